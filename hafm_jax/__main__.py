"""`python -m hafm_jax` is another name of `hafm`."""

from hafm_jax.cli import run

if __name__ == "__main__":
    run()
