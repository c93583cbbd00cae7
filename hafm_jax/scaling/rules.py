"""How a run's optimiser follows from its size and length: one rule for all runs of a sweep, and a test of it.

The test takes runs that differ only in the learning rate, at several widths. For each width a parabola of the loss over
x, the log of the rate over the rule's rate, has its minimum at the best rate. How far runs scatter about their
parabolas, all widths together, gives the uncertainty of the minima.

Axes: N parameters without embeddings and heads, D target tokens. R runs of a width, S draws, W widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.common.bootstrap import NUM_DRAWS
from hafm_jax.scaling.estimates import estimate
from hafm_jax.scaling.runs import Run

BASE_WIDTH = 128  # ours: the demo's, at which the base rate was found
BASE_LEARNING_RATE = 4e-3  # ours: peak, at BASE_WIDTH; near the best of five rates at widths 48 and 144
# Adam's best rate for matrices whose inputs grow with the width is proportional to its inverse (muP: Yang et al. 2022,
# arXiv 2203.03466).
WIDTH_POWER = -1.0
WARMUP_SHARE = 0.1  # ours, of the steps
NEIGHBOURS = 2  # ours: rates on either side of the best run's in its parabola; farther off the loss is not a parabola
MIN_RATES = 3


def learning_rate(d_model: int) -> float:
    """The peak learning rate."""
    return BASE_LEARNING_RATE * (d_model / BASE_WIDTH) ** WIDTH_POWER


def batch_windows(tokens: float, tokens_per_window: int) -> int:
    """Windows a step for a run of `tokens` target tokens: 0.58 D^0.571 tokens (Step Law: Li et al. 2025,
    arXiv 2503.04715), as a power of two, so that devices can share it and few shapes are compiled."""
    windows = 0.58 * tokens**0.571 / tokens_per_window
    return 2 ** max(0, round(math.log2(windows)))


class _Parabola(NamedTuple):
    """Loss over x: factors of 1, x, x^2 [3], their covariance for a scatter of 1 [3, 3], and the residuals [R]."""

    factors: np.ndarray
    covariance: np.ndarray
    residual: np.ndarray


def learning_rate_optima(runs: Sequence[Run], seed: int = 0) -> dict[str, Any]:
    """For each stage whose runs have several learning rates at one size and length:

    - widths: size, d_model, rule (rate), runs (indices), diverged (names); best (rate; estimate), over_rule (best over
      rule; estimate), lowest (nats a token at the best rate), price (how much more at the rule's rate); or missing, the
      reason why there is no best rate
    - slope: of log best over log width (estimate), rule_slope: the same of the rule, holds: whether rule_slope is
      within the interval of slope; or missing
    """
    found = {}
    for stage in dict.fromkeys(run.stage for run in runs):
        groups: dict[tuple, list[Run]] = {}
        for run in runs:
            if run.stage == stage and not run.held_out:
                groups.setdefault((run.d_model, run.size, run.tokens, run.batch_size), []).append(run)
        swept = [of for _, of in sorted(groups.items()) if len({run.learning_rate_factor for run in of}) >= MIN_RATES]
        if swept:
            found[stage] = _of_stage(swept, np.random.default_rng(seed))
    return found


def _of_stage(groups: list[list[Run]], random: np.random.Generator) -> dict[str, Any]:
    parabolas = [_parabola(group) for group in groups]
    fitted = [p for p in parabolas if isinstance(p, _Parabola)]
    freedom = sum(len(p.residual) - 3 for p in fitted)
    scatter = np.sqrt(sum((p.residual**2).sum() for p in fitted) / freedom) if freedom else np.nan
    # from few runs the scatter itself is uncertain: Student's t
    scatter = scatter * np.sqrt(freedom / random.chisquare(max(freedom, 1), NUM_DRAWS))  # [S]
    widths, best, best_draws = [], [], []
    for group, parabola in zip(groups, parabolas, strict=True):
        rule = group[0].learning_rate / group[0].learning_rate_factor
        width = {"size": group[0].size, "d_model": group[0].d_model, "rule": rule}
        width["runs"] = [run.index for run in group]
        if isinstance(parabola, str):
            width["missing"] = parabola
        else:
            root = np.linalg.cholesky(parabola.covariance)
            moved = parabola.factors + scatter[:, None] * (random.standard_normal((NUM_DRAWS, 3)) @ root.T)  # [S, 3]
            x = -parabola.factors[1] / (2 * parabola.factors[2])
            x_draws = np.where(moved[:, 2] > 0, -moved[:, 1] / (2 * moved[:, 2]), np.nan)
            best.append(np.log(rule) + x)
            best_draws.append(np.log(rule) + x_draws)
            width["best"] = estimate(rule * np.exp(x), rule * np.exp(x_draws))
            width["over_rule"] = estimate(np.exp(x), np.exp(x_draws))
            width["lowest"] = float(parabola.factors[0] - parabola.factors[2] * x**2)
            width["price"] = float(parabola.factors[2] * x**2)  # the loss at 0 less that at x
        width["diverged"] = [run.name for run in group if run.status == "diverged"]
        widths.append(width)
    known = [width for width in widths if "best" in width]
    log_width = np.log([width["d_model"] for width in known])
    if len(np.unique(log_width)) < 2:
        return {"widths": widths, "missing": f"a slope needs 2 widths with a best rate, and there are {len(known)}"}
    log_width -= log_width.mean()
    toward = log_width / (log_width @ log_width)  # [W]: the slope of a line is its product with the line's points
    slope = estimate(toward @ np.array(best), toward @ np.array(best_draws))
    rule_slope = float(toward @ np.log([width["rule"] for width in known]))
    low, high = slope["interval"] or (None, None)
    holds = None if low is None else bool(low <= rule_slope <= high)
    return {"widths": widths, "slope": slope, "rule_slope": rule_slope, "holds": holds}


def _parabola(group: list[Run]) -> _Parabola | str:
    """The parabola through the finished runs around the best one, or why there is none."""
    finished = sorted((run for run in group if run.status == "finished"), key=lambda run: run.learning_rate_factor)
    rates = sorted({run.learning_rate_factor for run in finished})
    if len(rates) < MIN_RATES:
        return f"a parabola needs {MIN_RATES} learning rates, and {len(rates)} have finished runs"
    lowest = rates.index(min(finished, key=lambda run: run.loss).learning_rate_factor)
    near = rates[max(0, lowest - NEIGHBOURS) : lowest + NEIGHBOURS + 1]
    kept = [run for run in finished if run.learning_rate_factor in near]
    x = np.log([run.learning_rate_factor for run in kept])
    loss = np.array([run.loss for run in kept])
    terms = np.stack([np.ones_like(x), x, x**2], axis=1)  # [R, 3]
    inverse = np.linalg.pinv(terms)
    factors = inverse @ loss
    if factors[2] <= 0 or not x.min() < -factors[1] / (2 * factors[2]) < x.max():
        side = "smallest" if lowest == 0 else "largest" if lowest == len(rates) - 1 else ""
        return f"the lowest loss is at the {side} rate tried" if side else "its losses have no minimum over the rates"
    return _Parabola(factors, inverse @ inverse.T, loss - terms @ factors)
