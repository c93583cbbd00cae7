"""How a run's optimiser follows from its size and length: one rule for all runs of a sweep.

N parameters without embeddings and heads, D target tokens.
"""

from __future__ import annotations

import math

BASE_WIDTH = 128  # ours: of the demo, where the base rate was found
BASE_LEARNING_RATE = 4e-3  # ours: peak, at BASE_WIDTH; near the best of five at widths 48 and 144
# Adam's best rate for matrices whose inputs grow with the width goes as its inverse (muP: Yang et al. 2022,
# arXiv 2203.03466).
WIDTH_POWER = -1.0
WARMUP_SHARE = 0.1  # ours, of the steps


def learning_rate(d_model: int) -> float:
    """Peak."""
    return BASE_LEARNING_RATE * (d_model / BASE_WIDTH) ** WIDTH_POWER


def batch_windows(tokens: float, tokens_per_window: int) -> int:
    """Windows a step for a run of so many target tokens: 0.58 D^0.571 tokens (Step Law: Li et al. 2025,
    arXiv 2503.04715), as a power of two, since devices share it out and few shapes are compiled."""
    windows = 0.58 * tokens**0.571 / tokens_per_window
    return 2 ** max(0, round(math.log2(windows)))
