"""Does training work here? The curve of `make overfit`, which learns one song of 5 s by heart.

    make overfit
    python -m experiments.overfit [--workdir build/overfit/coarse] [--out experiments/results/overfit.json]

The loss falls to nearly 0, and the tokens that the stage then draws sound like the song's own (configs/overfit.py); the
same tokens are the same bits of sound.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks._common import begin_result, make_parser, markdown
from hafm_jax.common.errors import InputError, run_command

STEPS = (1, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("build/overfit/coarse"), help="default: %(default)s")
    arguments = parser.parse_args()
    metrics, sounds = arguments.workdir / "metrics.jsonl", arguments.workdir / "sounds"
    if not metrics.exists() or not sounds.exists():
        raise InputError(f"{arguments.workdir} does not hold a finished run; expected one: run `make overfit` first")
    write = begin_result(arguments.out)
    lines = map(json.loads, metrics.read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if line["step"] in STEPS and "loss" in line}
    drawn, song = ((sounds / f"{name}-0-{STEPS[-1]}.wav").read_bytes() for name in ("generated", "song"))
    write({"steps": list(losses), "loss": list(losses.values()), "drawn_equals_song": drawn == song})
    print(markdown([["step", *map(str, losses)], ["loss, nats a token", *(f"{loss:.3f}" for loss in losses.values())]]))
    print(f"the drawn band {'equals' if drawn == song else 'differs from'} the song")


if __name__ == "__main__":
    run_command(main)
