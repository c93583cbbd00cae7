"""How the best size and length grow with the budget: N ~ C^a and D ~ C^b, straight lines in logs.

N parameters, D target tokens, C FLOPs of training. S draws, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np


@dataclass(frozen=True)
class PowerLaws:
    """log N = log_n + a log C and log D = log_d + b log C; numbers, or arrays [S], nan where a draw has no answer."""

    log_n: np.ndarray
    a: np.ndarray
    log_d: np.ndarray
    b: np.ndarray

    def at(self, flops: float) -> tuple[np.ndarray, np.ndarray]:
        """N and D."""
        return np.exp(self.log_n + self.a * np.log(flops)), np.exp(self.log_d + self.b * np.log(flops))

    @classmethod
    def through(cls, flops: np.ndarray, parameters: np.ndarray, tokens: np.ndarray) -> PowerLaws:
        """Least squares in logs over points: `flops` [P], the others [..., P]. All is nan where fewer than two."""
        x = np.log(flops)
        if len(x) < 2:
            return cls(*np.full((4, *np.shape(parameters)[:-1]), np.nan))
        middle = x.mean()
        found = []
        for y in (np.log(parameters), np.log(tokens)):
            slope = (y * (x - middle)).sum(-1) / ((x - middle) ** 2).sum()
            found += [y.mean(-1) - slope * middle, slope]
        return cls(*found)

    @classmethod
    def stack(cls, draws: Sequence[PowerLaws]) -> PowerLaws:
        return cls(*np.array([astuple(draw) for draw in draws]).T)
