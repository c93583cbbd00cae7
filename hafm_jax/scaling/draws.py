"""Bootstrap: what would have come out of other runs of the same kind? R runs, S draws."""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_DRAWS = 200
PERCENTILES = (2.5, 97.5)  # over draws: an interval of 95 %
ANSWERED = 0.9  # share of draws that must have an answer: the interval of fewer would be that of lucky draws


def bootstrap_counts(num_runs: int, seed: int, num_draws: int = NUM_DRAWS) -> np.ndarray:
    """Runs are drawn with replacement, as many as there are: how often each is in each draw, int64 [S, R]."""
    return np.random.default_rng(seed).multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=num_draws)


def estimate(value: float, draws: np.ndarray) -> dict[str, Any]:
    """As JSON: the value, and the interval over draws; None where too many of them are nan."""
    known = draws[np.isfinite(draws)]
    enough = len(known) > 0 and len(known) >= ANSWERED * draws.size
    return {"value": float(value), "interval": np.percentile(known, PERCENTILES).tolist() if enough else None}
