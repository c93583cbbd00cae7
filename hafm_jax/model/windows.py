"""One stage over a whole song, in windows of the length that it was trained on.

A song longer than a window is covered by windows that overlap: what one has generated is given to the next. All streams
are cut by the same clock, in cells.

Axes: B batch, F frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.model import decode
from hafm_jax.model.config import StageConfig
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.weights import Weights

OVERLAP = 1 / 3  # ours: the share of a window that the window before has generated


class Window(NamedTuple):
    """A window that starts at cell `start` of a song; cells before `known` are there, those up to `stop` are wanted."""

    start: int
    known: int
    stop: int


def plan_windows(total_cells: int, window_cells: int) -> list[Window]:
    """Windows of one length, spread evenly over a song, so that all but the first overlap alike.

    A song shorter than a window is one window that stops early.
    """
    if total_cells <= window_cells:
        return [Window(0, 0, total_cells)]
    hop = max(1, window_cells - round(window_cells * OVERLAP))
    further = -(-(total_cells - window_cells) // hop)
    windows = [Window(0, 0, window_cells)]
    for i in range(1, further + 1):
        start = i * (total_cells - window_cells) // further
        windows.append(Window(start, windows[-1].stop, start + window_cells))
    return windows


def generate_stage(
    config: StageConfig,
    weights: Weights,
    conditions: dict[str, np.ndarray],
    total_cells: int,
    keys: jax.Array,
    sampling: Sampling,
    progress: Callable[[int], None],
) -> np.ndarray:
    """One stage over a whole song: weights from `Weights.prepare`, conditions int32 [B, F_s, K_s] by stream name, of at
    least `total_cells` and one window -> target int32 [B, F, K] of `total_cells`."""
    stage, target = config.stage, config.stage.target
    shape = (len(keys), max(total_cells, config.window_cells) * target.frames_per_cell, target.codebooks)
    song = np.zeros(shape, np.int32)
    for window in plan_windows(total_cells, config.window_cells):

        def cut(tokens: np.ndarray, frames_per_cell: int, start: int = window.start) -> jax.Array:
            return jnp.asarray(tokens[:, start * frames_per_cell : (start + config.window_cells) * frames_per_cell])

        filled = decode.generate_window(
            config,
            weights,
            [cut(conditions[s.name], s.frames_per_cell) for s in stage.conditions],
            cut(song, target.frames_per_cell),
            (window.known - window.start) * target.frames_per_cell,
            (window.stop - window.start) * target.frames_per_cell,
            keys,
            window.start * target.frames_per_cell,
            sampling,
            progress,
        )
        new = slice(window.known * target.frames_per_cell, window.stop * target.frames_per_cell)
        song[:, new] = np.asarray(filled)[:, new.start - window.start * target.frames_per_cell :][
            :, : new.stop - new.start
        ]
    return song[:, : total_cells * target.frames_per_cell]
