"""Draw the loss curves of training runs, from their metrics.jsonl.

    python benchmarks/loss_curve.py runs/coarse runs/other --out curves.png

A line for the training loss of every work directory, dots for its validation loss, both in nats a token. Needs
matplotlib, which nothing else here does: `pip install matplotlib`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hafm_jax.common.errors import InputError, run_command


def losses(workdir: Path, name: str) -> dict[int, float]:
    """Step -> value of a field of metrics.jsonl. A resumed run may log a step again: the last word holds."""
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{path} is missing; expected a work directory of hafm_jax.train")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return dict(sorted({line["step"]: line[name] for line in lines if name in line}.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", type=Path, nargs="+", help="work directories of hafm_jax.train")
    parser.add_argument("--out", type=Path, required=True, help="picture to write: .png, .svg or .pdf")
    arguments = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("matplotlib is not installed; the plot needs it: pip install matplotlib") from error

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for workdir in arguments.workdirs:
        training, validation = losses(workdir, "loss"), losses(workdir, "validation_loss")
        (line,) = axes.plot(list(training), list(training.values()), linewidth=1, label=str(workdir))
        axes.plot(list(validation), list(validation.values()), "o", color=line.get_color(), label="validation")
    axes.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(arguments.out, dpi=100)


if __name__ == "__main__":
    run_command(main)
