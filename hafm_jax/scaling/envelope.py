"""The best size by budget from training curves: method 1 of Hoffmann et al. 2022 (arXiv 2203.15556).

At each FLOP count, which size has reached the lowest loss, in whatever run? Of few sizes the answer is a staircase, cut
off at both ends, and a line through all of it would be too flat. Where a size overtakes another they are equally good,
and the best one stands between them: the line goes through these points. Points before a run's end are worse than those
of a run made to end there, whose learning rate would have come down: so every size needs runs of several lengths.

N parameters, D target tokens, C FLOPs. R runs, S draws, Z sizes, G FLOP counts, X crossings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hafm_jax.scaling.loss_law import NotEnough
from hafm_jax.scaling.power_laws import PowerLaws
from hafm_jax.scaling.runs import Run

COUNTS_PER_DECADE = 20  # FLOP counts at which the curves are compared


@dataclass(frozen=True)
class Envelope:
    """The lowest loss that any run had reached at FLOP counts [G], and this run's size and tokens by then."""

    flops: np.ndarray
    loss: np.ndarray
    parameters: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class Crossings:
    """Where one size overtakes another, both having come so far: FLOPs [X], and between the two, in the middle of the
    logs, the best size and its tokens."""

    flops: np.ndarray
    parameters: np.ndarray
    tokens: np.ndarray

    def power_laws(self) -> PowerLaws:
        """nan where the crossings are of fewer than two pairs of sizes."""
        few = len(np.unique(self.parameters)) < 2
        return PowerLaws.through(*(values[: 0 if few else None] for values in vars(self).values()))


class Curves:
    """The losses of runs at common FLOP counts. Raises NotEnough where a run has no curve."""

    def __init__(self, runs: Sequence[Run]):
        if without := [run.name for run in runs if not any(tokens > 0 for tokens, _ in run.curve)]:
            raise NotEnough(f"it needs the losses along each training; missing of {', '.join(without)}")
        self._sizes, self._size = np.unique([run.parameters for run in runs], return_inverse=True)  # [Z], [R]
        cost = np.array([run.flops / run.tokens for run in runs])
        self._cost = np.array([cost[self._size == z].mean() for z in range(len(self._sizes))])  # FLOPs a token [Z]
        points = [
            np.array([point for point in run.curve if point[0] > 0]).T for run in runs
        ]  # tokens and loss [2, ...]
        log_flops = [np.log(tokens * c) for (tokens, _), c in zip(points, cost, strict=True)]
        first, last = min(x[0] for x in log_flops), max(x[-1] for x in log_flops)
        grid = np.linspace(first, last, 2 + int((last - first) / np.log(10) * COUNTS_PER_DECADE))
        self._flops = np.exp(grid)  # [G]
        self._loss = np.array([  # [R, G], infinite where a run has not been
            np.interp(grid, x, loss, np.inf, np.inf) for x, (_, loss) in zip(log_flops, points, strict=True)
        ])  # fmt: skip

    def envelope(self, present: np.ndarray) -> tuple[Envelope, Crossings]:
        """Of the runs that are `present`, bool [R]; FLOP counts that none of them has reached are left out."""
        of_size = np.full((len(self._sizes), len(self._flops)), np.inf)  # [Z, G]
        np.minimum.at(of_size, self._size[present], self._loss[present])
        there = np.isfinite(of_size)
        of_size, there, flops = (values[..., there.any(axis=0)] for values in (of_size, there, self._flops))
        best = of_size.argmin(axis=0)  # [G]
        loss = of_size.min(axis=0)
        envelope = Envelope(flops, loss, self._sizes[best], flops / self._cost[best])
        at = np.flatnonzero(best[:-1] != best[1:])
        at = at[there[best[at], at + 1] & there[best[at + 1], at]]
        pairs = np.stack([best[at], best[at + 1]])  # [2, X]
        budget = np.sqrt(flops[at] * flops[at + 1])
        return envelope, Crossings(budget, _middle(self._sizes[pairs]), budget / _middle(self._cost[pairs]))


def _middle(pairs: np.ndarray) -> np.ndarray:
    return np.exp(np.log(pairs).mean(axis=0))


def envelope_power_laws(runs: Sequence[Run], counts: np.ndarray) -> tuple[PowerLaws, PowerLaws]:
    """Through the crossings, and the same of draws; `counts` int64 [S, R].

    Raises NotEnough where the lead passes fewer than twice, or a run has no curve.
    """
    curves = Curves(runs)
    _, crossings = curves.envelope(np.ones(len(runs), bool))
    if (found := len(np.unique(crossings.parameters))) < 2:
        raise NotEnough(
            f"it needs 2 pairs of sizes of which one overtakes the other, and found {found} among "
            f"{len(np.unique([run.parameters for run in runs]))} sizes"
        )
    return crossings.power_laws(), PowerLaws.stack([curves.envelope(count > 0)[1].power_laws() for count in counts])
