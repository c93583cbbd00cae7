"""`python -m hafm_jax.listening` is another name of `python -m hafm_jax.listen`."""

from hafm_jax.common.errors import run_command
from hafm_jax.listen import main

if __name__ == "__main__":
    run_command(main)
