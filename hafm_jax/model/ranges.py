"""The ranges of a model's and a mix's numbers, wherever they come from: the command line, a training configuration, a
model directory, Python. All ours. Without JAX, so that --help is quick."""

from __future__ import annotations

# Field of Sampling -> its kind, its least and its largest value.
SAMPLING: dict[str, tuple[type, float, float]] = {
    "guidance_scale": (float, 0, 100),
    "no_history_scale": (float, 0, 100),
    "temperature": (float, 0, 100),
    "top_k": (int, 0, 10**6),
    "top_p": (float, 1e-6, 1),
}

# Field of StageConfig -> the same. So large that memory is the limit, so small that no count of bytes overflows.
STAGE: dict[str, tuple[type, float, float]] = {
    "d_model": (int, 1, 2**20),
    "num_layers": (int, 1, 2**16),
    "num_heads": (int, 1, 2**20),
    "window_cells": (int, 1, 2**20),  # of 40 ms: 12 hours
}

SEED = (int, 0, 2**31 - 1)

# Option of a mix -> the same; the last is its rate.
MIX: dict[str, tuple[type, float, float]] = {
    "balance_lu": (float, -40, 40),
    "loudness_lufs": (float, -60, 0),
    "rate_hz": (int, 8_000, 384_000),
}
