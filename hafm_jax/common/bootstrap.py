"""The bootstrap: how much would a figure differ if other clips, songs or runs of the same kind had been drawn?

Items are drawn with replacement, as many as there are (Efron 1979). A draw is
the number of times that it holds each item.

Axes: S draws, N items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUM_DRAWS = 200  # enough for 2.5 % quantiles to a tenth of the interval's width
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A measured value and its CONFIDENCE interval from `low` to `high`."""

    value: float
    low: float
    high: float


def draw_counts(num_items: int, seed: int | list[int], num_draws: int = NUM_DRAWS) -> np.ndarray:
    """The number of times that each draw holds each item, int64 [S, N]; rows sum to N."""
    return np.random.default_rng(seed).multinomial(num_items, np.full(num_items, 1 / num_items), size=num_draws)


def percentile_interval(value: float, draws: np.ndarray) -> Interval:
    """The interval between the quantiles of the draws' values [S]: for means and whatever has no bias."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(low), float(high))


def basic_interval(value: float, draws: np.ndarray, least: float = -np.inf) -> Interval:
    """The interval from the scatter of the draws' values [S] around their mean: for figures that are biased in draws.

    The basic, or reverse percentile, interval of Davison and Hinkley 1997, section 5.2, without the draws' shift.
    Nothing in it is below `least`.
    """
    lower, upper = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - np.mean(draws)
    return Interval(*(max(float(x), least) for x in (value, value - upper, value - lower)))
