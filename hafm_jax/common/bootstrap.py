"""The bootstrap: how far would a figure be another, had other clips, songs or runs of the same kind been drawn?

Items are drawn with replacement, as many as there are (Efron 1979). A draw is how often each item is in it.

Axes: S draws, N items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUM_DRAWS = 200  # enough for quantiles of 2.5 % to a tenth of the interval's width
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """`value` as measured, and the CONFIDENCE interval around it from `low` to `high`."""

    value: float
    low: float
    high: float


def draw_counts(num_items: int, seed: int | list[int], num_draws: int = NUM_DRAWS) -> np.ndarray:
    """How often each item is in each draw, int64 [S, N], rows summing to N."""
    return np.random.default_rng(seed).multinomial(num_items, np.full(num_items, 1 / num_items), size=num_draws)


def percentile_interval(value: float, draws: np.ndarray) -> Interval:
    """From the quantiles of the values of draws [S] themselves: for means, and whatever has no bias of its own."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(low), float(high))


def basic_interval(value: float, draws: np.ndarray, least: float = -np.inf) -> Interval:
    """From how the values of draws [S] scatter around their mean, for figures that are biased in draws.

    The basic, or reverse percentile, interval of Davison and Hinkley 1997, section 5.2, with the draws' shift taken
    off. What cannot be below `least` has no interval that is.
    """
    lower, upper = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - np.mean(draws)
    return Interval(*(max(float(x), least) for x in (value, value - upper, value - lower)))
