"""Does training work here? The curve of `make overfit`, which learns one song of 5 s by heart.

    make overfit
    python -m experiments.overfit [--workdir build/overfit/coarse] [--out experiments/results/overfit.json]

The loss falls to nearly 0, and the stage then draws the song's own tokens (configs/overfit.py).
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks._common import begin_result, make_parser, markdown
from hafm_jax.common.errors import InputError, run_command

SHOWN_STEPS = (1, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200)


def read_losses(workdir: Path) -> dict[int, float]:
    """Step -> loss in nats a token. Raises InputError where the folder is not one of a run."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"{path} does not exist; expected the work directory of a run: run `make overfit` first")
    lines = map(json.loads, path.read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("build/overfit/coarse"), help="default: %(default)s")
    arguments = parser.parse_args()
    write = begin_result(arguments.out)
    losses = read_losses(arguments.workdir)
    write({"steps": list(losses), "losses": list(losses.values())})
    shown = [step for step in SHOWN_STEPS if step in losses]
    print(markdown([["step", *map(str, shown)], ["loss, nats a token", *(f"{losses[step]:.3f}" for step in shown)]]))


if __name__ == "__main__":
    run_command(main)
