"""The best size and length for a budget of FLOPs, by the three methods of Hoffmann et al. 2022 (arXiv 2203.15556).

method 1, envelope    Which size has the lowest loss at each FLOP count, along all trainings?
method 2, IsoFLOP     Which size is best among runs of one budget?
method 3, law         Which size does the fitted law prefer? (`TokenCost.best`; the law itself is in loss_law.py)

Each method gives N ~ C^a and D ~ C^b: straight lines in logs (`PowerLaws`).

C = 6 N D does not hold here: a target token brings condition tokens with it, and at small sizes attention and heads
cost more than the layers that N counts. Runs carry analytic FLOPs (model/config.py). `TokenCost` is a curve through
them, which gives the cost of sizes between the runs and beyond them.

Axes: N parameters, D target tokens, C FLOPs of training. R runs, S draws, P points, Z sizes, G FLOP counts,
X crossings, ... any shape that broadcasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.polynomial import Polynomial
from scipy.optimize import elementwise, nnls

from hafm_jax.scaling.estimates import NotEnough
from hafm_jax.scaling.loss_law import Law
from hafm_jax.scaling.runs import Run

# Where depth grows with width, N ~ width^3: layers cost N, attention (depth x width) N^(2/3), heads (width) N^(1/3).
# Where depth is constant, N ~ width^2: attention and heads cost N^(1/2).
POWERS = np.array([1, 2 / 3, 1 / 2, 1 / 3])
LARGEST_LOG_SIZE = 100.0  # ours: best sizes are searched from 1 to e^100 parameters
ROW_SPREAD = 1.25  # ours: largest over smallest budget of a row's runs; more is not one budget
COUNTS_PER_DECADE = 20  # ours: FLOP counts at which the envelope compares the curves


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
        """Least squares in logs over points: `flops` [P], the others [..., P]. All nan for fewer than two points."""
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
        """Numbers of S draws -> arrays [S]."""
        return cls(*np.array([astuple(draw) for draw in draws]).T)


# --------------------------------------------------------------------------------------------------- method 3: the law


@dataclass(frozen=True)
class TokenCost:
    """FLOPs of training per target token: the sum of factors [4], none negative, times N to the POWERS."""

    factors: np.ndarray

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """N [...] -> FLOPs per token [...]."""
        return np.power.outer(parameters, POWERS) @ self.factors

    def elasticity(self, parameters: np.ndarray) -> np.ndarray:
        """d log cost / d log N [...]: 1 where the layers are the whole cost."""
        return np.power.outer(parameters, POWERS) @ (self.factors * POWERS) / self(parameters)

    def best(self, law: Law, flops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """N and D of the lowest loss that `flops` can buy: [...] as law and `flops` broadcast, nan where no law falls.

        Along N cost(N) D = C the loss stops falling where alpha A / N^alpha = beta B / D^beta times the elasticity.
        The difference of the logs decreases with log N everywhere, so it has one root.
        """

        def gap(log_n: np.ndarray, log_flops, log_a, alpha, log_b, beta) -> np.ndarray:
            n = np.exp(log_n)
            log_d = log_flops - np.log(self(n))
            gain = np.log(alpha) + log_a - alpha * log_n
            return gain - (np.log(beta) + log_b - beta * log_d + np.log(self.elasticity(n)))

        unknowns = (np.log(flops), law.log_a, law.alpha, law.log_b, law.beta)
        with np.errstate(divide="ignore", invalid="ignore"):  # an exponent of 0: the law does not fall
            found = elementwise.find_root(gap, (0.0, LARGEST_LOG_SIZE), args=unknowns)
            outside = np.where(gap(np.float64(0), *unknowns) > 0, LARGEST_LOG_SIZE, 0.0)  # the nearer end
        log_n = np.where(found.success, found.x, outside)
        parameters = np.where(law.falls, np.exp(log_n), np.nan)
        return parameters, flops / self(parameters)


def fit_token_cost(parameters: np.ndarray, tokens: np.ndarray, flops: np.ndarray) -> tuple[TokenCost, float]:
    """The curve through runs, all float64 [R], and the largest relative error of its FLOPs among them."""
    measured = flops / tokens
    terms = np.power.outer(parameters, POWERS) / measured[:, None]  # [R, 4]
    scale = terms.max(axis=0)
    factors, _ = nnls(terms / scale, np.ones(len(measured)))
    cost = TokenCost(factors / scale)
    return cost, float(np.abs(cost(parameters) / measured - 1).max())


# ----------------------------------------------------------------------------------------------- method 2: IsoFLOP rows
# The runs of a row have one budget of FLOPs and several sizes. A parabola of their losses over log N has its minimum at
# the best size. A loss is a parabola in log N only near its minimum, so wide rows and off-centre rows bias the answer
# (Czech et al. 2026, arXiv 2603.22339).


@dataclass(frozen=True)
class Row:
    """The minimum of an IsoFLOP row. Without one, `missing` gives the reason, the numbers are nan, `parabola` None."""

    label: str
    flops: float  # geometric mean of its runs
    missing: str = ""
    parabola: Polynomial | None = None  # log N -> nats a token
    parameters: float = np.nan
    tokens: float = np.nan
    loss: float = np.nan


def isoflop_rows(runs: Sequence[Run], loss: np.ndarray) -> list[Row]:
    """The rows of the runs that have a label, by budget. `loss` float64 [R]."""
    rows = []
    for label in sorted({run.isoflop for run in runs if run.isoflop is not None}):
        of_row = [i for i, run in enumerate(runs) if run.isoflop == label]
        rows.append(_row(label, [runs[i] for i in of_row], loss[of_row]))
    return sorted(rows, key=lambda row: row.flops)


def _row(label: str, runs: list[Run], loss: np.ndarray) -> Row:
    order = np.argsort([run.parameters for run in runs], kind="stable")
    runs, loss = [runs[i] for i in order], loss[order]
    log_n = np.log([run.parameters for run in runs])
    log_flops = np.log([run.flops for run in runs])
    flops = float(np.exp(log_flops.mean()))
    if np.exp(np.ptp(log_flops)) > ROW_SPREAD:
        return Row(label, flops, f"its runs have {np.exp(log_flops.min()):.3g} to {np.exp(log_flops.max()):.3g} FLOPs")
    if (sizes := len(np.unique(log_n))) < 3:
        return Row(label, flops, f"a parabola needs 3 sizes, and it has {sizes}")
    parabola = Polynomial.fit(log_n, loss, 2)
    if not parabola.deriv(2)(log_n[0]) > 0:
        return Row(label, flops, "its losses bend down over sizes, not up")
    lowest = parabola.deriv().roots()[0]
    if not log_n[0] < lowest < log_n[-1]:
        side = "smallest" if lowest <= log_n[0] else "largest"
        return Row(label, flops, f"its minimum is beyond the {side} size")
    log_cost = log_flops - np.log([run.tokens for run in runs])  # of a token, at the row's own sizes
    tokens = flops / np.exp(np.interp(lowest, log_n, log_cost))
    return Row(label, flops, "", parabola, float(np.exp(lowest)), float(tokens), float(parabola(lowest)))


def isoflop_power_laws(runs: Sequence[Run], loss: np.ndarray, num_draws: int, seed: int) -> tuple[PowerLaws, PowerLaws]:
    """Power laws through the minima of the rows, and those of draws [S]. `loss` float64 [R].

    A row has too few runs to resample them. So a draw keeps every run, and its loss is the parabola's plus a residual
    drawn from those of all rows. These are enlarged, since three unknowns a row have made them too small.

    Raises NotEnough where the rows with a minimum have fewer than two budgets.
    """
    rows = isoflop_rows(runs, loss)
    good = [row for row in rows if not row.missing]
    if len(good) < 2 or good[-1].flops < 1.01 * good[0].flops:
        why = "".join(f"; {row.label}: {row.missing}" for row in rows if row.missing)
        raise NotEnough(f"it needs rows with a minimum at 2 budgets, and found {len(good)} of {len(rows)} rows{why}")
    drawn_from = [i for i, run in enumerate(runs) if run.isoflop in {row.label for row in good}]
    runs, loss = [runs[i] for i in drawn_from], loss[drawn_from]
    parabolas = {row.label: row.parabola for row in good}
    fitted = np.array([parabolas[run.isoflop](np.log(run.parameters)) for run in runs])
    freedom = len(runs) - 3 * len(good)
    if freedom == 0:  # parabolas through all points: the scatter is unknown
        return _through(good), PowerLaws(*np.full((4, num_draws), np.nan))
    residual = (loss - fitted) * np.sqrt(len(runs) / freedom)
    moved = np.random.default_rng(seed).choice(residual, size=(num_draws, len(runs)))  # [S, R]
    return _through(good), PowerLaws.stack([_through(isoflop_rows(runs, fitted + by)) for by in moved])


def _through(rows: list[Row]) -> PowerLaws:
    kept = [row for row in rows if not row.missing]
    return PowerLaws.through(
        *(np.array([getattr(row, name) for row in kept]) for name in ("flops", "parameters", "tokens"))
    )


# ----------------------------------------------------------------------------------------------- method 1: the envelope
# With few sizes the best size over FLOPs is a staircase that is cut off at both ends: a line through all of it would be
# too flat. Where one size overtakes another both are equally good, and the best size is between them: the line goes
# through these points. Before its end a run is worse than a run made to end there, whose learning rate would have come
# down. So every size needs runs of several lengths.


@dataclass(frozen=True)
class Envelope:
    """The lowest loss that any run has reached at FLOP counts [G], and that run's size and tokens there."""

    flops: np.ndarray
    loss: np.ndarray
    parameters: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class Crossings:
    """Where one size overtakes another, both having been trained so far: FLOPs [X], and the best size and its tokens,
    halfway between the two in logs."""

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
            raise NotEnough(f"it needs the losses along each training; they are missing for {', '.join(without)}")
        self._sizes, self._size = np.unique([run.parameters for run in runs], return_inverse=True)  # [Z], [R]
        cost = np.array([run.flops / run.tokens for run in runs])
        self._cost = np.array([cost[self._size == z].mean() for z in range(len(self._sizes))])  # FLOPs per token [Z]
        points = [np.array([point for point in run.curve if point[0] > 0]).T for run in runs]  # tokens, loss: [2, ...]
        log_flops = [np.log(tokens * c) for (tokens, _), c in zip(points, cost, strict=True)]
        first, last = min(x[0] for x in log_flops), max(x[-1] for x in log_flops)
        grid = np.linspace(first, last, 2 + int((last - first) / np.log(10) * COUNTS_PER_DECADE))
        self._flops = np.exp(grid)  # [G]
        self._loss = np.array([  # [R, G], infinite outside a run's curve
            np.interp(grid, x, loss, np.inf, np.inf) for x, (_, loss) in zip(log_flops, points, strict=True)
        ])  # fmt: skip

    def envelope(self, present: np.ndarray) -> tuple[Envelope, Crossings]:
        """Of the runs that are `present`, bool [R]; without the FLOP counts that none of them has reached."""
        of_size = np.full((len(self._sizes), len(self._flops)), np.inf)  # [Z, G]
        np.minimum.at(of_size, self._size[present], self._loss[present])
        reached = np.isfinite(of_size)
        of_size, reached, flops = (values[..., reached.any(axis=0)] for values in (of_size, reached, self._flops))
        best = of_size.argmin(axis=0)  # [G]
        loss = of_size.min(axis=0)
        envelope = Envelope(flops, loss, self._sizes[best], flops / self._cost[best])
        at = np.flatnonzero(best[:-1] != best[1:])
        at = at[reached[best[at], at + 1] & reached[best[at + 1], at]]
        pairs = np.stack([best[at], best[at + 1]])  # [2, X]
        budget = np.sqrt(flops[at] * flops[at + 1])
        return envelope, Crossings(budget, _middle(self._sizes[pairs]), budget / _middle(self._cost[pairs]))


def _middle(pairs: np.ndarray) -> np.ndarray:
    return np.exp(np.log(pairs).mean(axis=0))


def envelope_power_laws(runs: Sequence[Run], counts: np.ndarray) -> tuple[PowerLaws, PowerLaws]:
    """Power laws through the crossings, and those of draws; `counts` int64 [S, R].

    Raises NotEnough where there are fewer than two crossings, or a run has no curve.
    """
    curves = Curves(runs)
    _, crossings = curves.envelope(np.ones(len(runs), bool))
    if (found := len(np.unique(crossings.parameters))) < 2:
        raise NotEnough(
            f"it needs 2 pairs of sizes of which one overtakes the other, and found {found} among "
            f"{len(np.unique([run.parameters for run in runs]))} sizes"
        )
    return crossings.power_laws(), PowerLaws.stack([curves.envelope(count > 0)[1].power_laws() for count in counts])
