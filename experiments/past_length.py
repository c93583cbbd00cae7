"""The loss past the trained length, with `clock` and with `index`: windows of 1 to 4 times the length in training.

    python -m experiments.past_length --workdir runs/clock runs/index --data TOKENS

The runs, alike but for the position mode, a quarter of an hour each on two cores (SONGS: 700 + 32 + 64 of 20 s):

    python tokenize/extract_tokens.py --songs SONGS --tokenizers hafm_jax/demo --out TOKENS
    python -m hafm_jax.train --config configs/demo.py:semantic --data TOKENS --workdir runs/clock \\
        --config.embeddings=random --config.size=demo --config.window_cells=125 \\
        --config.batch_size=8 --config.steps=1500 --config.learning_rate=1.5e-3 --config.warmup_steps=100 \\
        --config.position=clock

The loss is that of test songs in one window of several times the trained length. For each stretch of one trained
length there are two figures: nats a token with the right vocal, and the margin, by which another song's vocal is worse,
that is how much the model still uses the vocal. Intervals are over songs.

Axes: F frames, K codebooks.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown, mean_interval, show_interval
from hafm_jax.common.errors import run_command
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.model import transformer
from hafm_jax.streams import CELLS_PER_S, tokens_of
from hafm_jax.training.workdir import load_run

forward = jax.jit(transformer.forward, static_argnums=0)


def nats(config, params, conditions, target) -> np.ndarray:
    """Nats a token of each frame, [F]; conditions and target int32 [F, K]."""
    logits = forward(config, params, [c[None] for c in conditions], target[None])
    log_probability = np.asarray(jax.nn.log_softmax(logits, axis=-1))[0]
    return -np.take_along_axis(log_probability, target[..., None], -1)[..., 0].mean(-1)


def measure(workdir: Path, records: list[dict], times: int) -> dict:
    """The figures of one run, by window and stretch."""
    run = load_run(workdir)
    trained_cells = run.config.window_cells
    stage = run.config.stage
    stretch = trained_cells * stage.target.frames_per_cell
    lengths = {}
    for multiple in range(1, times + 1):
        cells = multiple * trained_cells
        config = dataclasses.replace(run.config, window_cells=cells)
        cut = [[tokens_of(s, r)[: cells * s.frames_per_cell] for s in stage.streams] for r in records]
        right, wrong = [], []
        for i, (*conditions, target) in enumerate(tqdm(cut, desc=f"{run.config.position} {multiple}x", leave=False)):
            others = [  # the next song's vocal; everything else is its own
                cut[(i + 1) % len(cut)][j] if s.name == "vocal_semantic" else conditions[j]
                for j, s in enumerate(stage.conditions)
            ]
            right.append(nats(config, run.params, conditions, target).reshape(multiple, stretch).mean(1))
            wrong.append(nats(config, run.params, others, target).reshape(multiple, stretch).mean(1))
        right, wrong = np.array(right), np.array(wrong)  # [songs, stretches]
        lengths[f"{cells / CELLS_PER_S:g} s"] = [
            {"nats": mean_interval(right[:, k]), "margin": mean_interval(wrong[:, k] - right[:, k])}
            for k in range(multiple)
        ]
    return {
        "stage": run.config.stage_name,
        "position": run.config.position,
        "trained_s": trained_cells / CELLS_PER_S,
        "steps": run.facts["step"],
        "windows_by_stretch": lengths,
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", type=Path, nargs="+", required=True, help="training runs to compare")
    parser.add_argument("--data", type=Path, required=True, help="token set with the split `test`")
    parser.add_argument("--times", type=int, default=4, help="longest window, in trained lengths (default: 4)")
    arguments = parser.parse_args()

    write = begin_result(arguments.out)
    source = TokenRecords(arguments.data, "test")
    records = [source[i] for i in range(len(source))]
    runs = [measure(workdir, records, arguments.times) for workdir in arguments.workdir]
    write({"songs": len(records), "runs": runs})
    rows = [["positions", "window", "nats a token (and margin) of each stretch"]]
    for run in runs:
        for window, stretches in run["windows_by_stretch"].items():
            cells = (f"{show_interval(s['nats'])}, margin {show_interval(s['margin'])}" for s in stretches)
            rows.append([run["position"], window, "; ".join(cells)])
    print(markdown(rows))


if __name__ == "__main__":
    run_command(main)
