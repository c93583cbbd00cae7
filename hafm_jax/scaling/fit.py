"""The fit of a sweep: laws, optima and predictions of each stage and codebook. fit.json holds

    left_out        runs that no law is fitted to, each with its reason
    stages          stage ->
      runs, range   the number of runs in the fits; [smallest, largest] parameters, tokens and flops among them
      token_cost    FLOPs of training per target token as a function of N (scaling/optima.py)
      losses        "all", "codebook 1", ... ->
        law         numbers E, A, alpha, B, beta (estimates), scatter of log losses about it, residuals by run index
        rows        IsoFLOP rows, each with its minimum
        envelope    columns over FLOP counts ("all" only)
        methods     law, isoflop, envelope -> exponents a, b of the best N ~ C^a and D ~ C^b (estimates), and by budget
                    the best parameters, tokens and, from the law, loss (estimates), and what of it is `beyond` the runs
        held_out    runs kept out of the fit: predicted (estimate; its interval includes the scatter of one run),
                    measured
    learning_rates  stage -> optima by width (scaling/rules.py)
    machines        what the runs were made on and with, where the sweep's command wrote the file

An estimate is a value and its 95 % interval over bootstrap draws of the runs (for the IsoFLOP rows: of residuals); the
interval is None where too few draws have an answer. `missing` gives the reason for a part that there is not.

Axes: N parameters without embeddings and heads, D target tokens, C FLOPs of training. R runs, S draws.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.bootstrap import NUM_DRAWS, draw_counts
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, sealed, write_bytes
from hafm_jax.scaling.estimates import NotEnough, estimate
from hafm_jax.scaling.loss_law import Law, fit_law
from hafm_jax.scaling.optima import (
    POWERS,
    Curves,
    PowerLaws,
    TokenCost,
    envelope_power_laws,
    fit_token_cost,
    isoflop_power_laws,
    isoflop_rows,
)
from hafm_jax.scaling.rules import learning_rate_optima
from hafm_jax.scaling.runs import Run

AHEAD = (1.0, 10.0, 100.0)  # ours: budgets that are predicted, over the largest of the runs
UNKNOWNS = 5  # of the law: it takes so many degrees of freedom from the residuals
QUANTITIES = ("parameters", "tokens", "flops")


def fit_sweep(runs: Sequence[Run], seed: int = 0, budgets_flops: Sequence[float] = ()) -> dict[str, Any]:
    """What fit.json holds (the head of this file), without the machines. `seed` is the bootstrap's. Best sizes and
    lengths are given for `budgets_flops` and for 1, 10 and 100 times the largest budget of each stage's runs.

    Raises InputError where no run can be used.
    """
    reasons = [_why_left_out(run) for run in runs]
    kept = [run for run, reason in zip(runs, reasons, strict=True) if not reason]
    if not kept:
        counts = Counter(reasons)
        named = ", ".join(f"{number} {reason}" for reason, number in counts.most_common())
        remedy = (
            "run the sweep" if counts["unfinished"] else "plan lower rates or more tokens a run, in a new --workdir"
        )
        raise InputError(
            f"none of {len(runs)} runs can be fitted: {named}; expected some that are finished at the rule's rate: "
            f"{remedy}"
        )
    stages = {}
    for stage in dict.fromkeys(run.stage for run in kept):
        held_out = [run for run in runs if run.stage == stage and run.held_out]
        stages[stage] = _fit_stage([run for run in kept if run.stage == stage], held_out, seed, budgets_flops)
    return {
        "format_version": 1,
        "seed": seed,
        "draws": NUM_DRAWS,
        "left_out": [
            {"index": run.index, "run": run.name, "reason": reason}
            for run, reason in zip(runs, reasons, strict=True)
            if reason
        ],
        "stages": stages,
        "learning_rates": learning_rate_optima(runs, seed),
    }


def write_fit(workdir: Path, fit: Mapping[str, Any]) -> None:
    """As WORKDIR/fit.json. Raises InputError where it cannot be written."""
    write_bytes(workdir / "fit.json", (json.dumps(sealed(fit), indent=1, allow_nan=False) + "\n").encode())


def read_fit(workdir: Path) -> dict[str, Any]:
    """Raises InputError where WORKDIR/fit.json is missing or damaged."""
    return read_json(workdir / "fit.json", "what `sweep fit` writes: fit first")


def _why_left_out(run: Run) -> str:
    if run.held_out:
        return f"held out, {run.status}"
    if run.status != "finished":
        return run.status
    if not math.isclose(run.learning_rate_factor, 1.0, rel_tol=1e-6):
        return f"learning rate is {run.learning_rate_factor:.3g} times the rule's"
    return ""


@dataclass(frozen=True)
class _Stage:
    """The runs of a stage that laws are fitted to. `draws` int64 [S, R], the same for all codebooks, the law and the
    envelope."""

    runs: list[Run]
    held_out: list[Run]
    seed: int
    parameters: np.ndarray  # all [R]
    tokens: np.ndarray
    flops: np.ndarray
    cost: TokenCost
    budgets: list[float]  # to predict, FLOPs
    draws: np.ndarray

    @property
    def ranges(self) -> dict[str, list[float]]:
        return {name: [float(getattr(self, name).min()), float(getattr(self, name).max())] for name in QUANTITIES}

    def beyond(self, parameters: float, tokens: float, flops: float) -> dict[str, float]:
        """For what is outside the range of the runs: above 1, times the largest; below 1, times the smallest."""
        found = {}
        for name, value in zip(QUANTITIES, (parameters, tokens, flops), strict=True):
            smallest, largest = self.ranges[name]
            if not smallest * (1 - 1e-6) <= value <= largest * (1 + 1e-6):
                found[name] = float(value / (largest if value > largest else smallest))
        return found

    def best(self, flops: float, sizes: tuple, lengths: tuple, losses: tuple | None = None) -> dict[str, Any]:
        """The JSON of a budget's best size, length and loss, each given as (number, draws [S])."""
        return {
            "flops": float(flops),
            "parameters": estimate(*sizes),
            "tokens": estimate(*lengths),
            "loss": estimate(*losses) if losses else None,
            "beyond": self.beyond(float(sizes[0]), float(lengths[0]), float(flops)),
        }


def _fit_stage(runs: list[Run], held_out: list[Run], seed: int, budgets_flops: Sequence[float]) -> dict[str, Any]:
    parameters, tokens, flops = (np.array([getattr(run, name) for run in runs], float) for name in QUANTITIES)
    cost, cost_error = fit_token_cost(parameters, tokens, flops)
    budgets = sorted({*(times * float(flops.max()) for times in AHEAD), *map(float, budgets_flops)})
    draws = draw_counts(len(runs), seed)
    stage = _Stage(runs, held_out, seed, parameters, tokens, flops, cost, budgets, draws)
    losses = {"all": _fit_loss(stage, None)}
    codebooks = len(runs[0].loss_per_codebook)
    if codebooks > 1:
        losses |= {f"codebook {k + 1}": _fit_loss(stage, k) for k in range(codebooks)}
    return {
        "runs": len(runs),
        "range": stage.ranges,
        "token_cost": {
            "powers": POWERS.tolist(),
            "factors": cost.factors.tolist(),
            "largest_error": cost_error,
            "flops_per_parameter_and_token": [float(cost(n) / n) for n in stage.ranges["parameters"]],
        },
        "losses": losses,
    }


def _fit_loss(stage: _Stage, codebook: int | None) -> dict[str, Any]:
    """The fit of the mean loss over codebooks (None), or of one codebook's, from 0."""

    def of(run: Run) -> float | None:
        return run.loss if codebook is None or run.loss is None else run.loss_per_codebook[codebook]

    loss = np.array([of(run) for run in stage.runs])
    found: dict[str, Any] = {"held_out": [], "rows": [], "envelope": {}, "methods": {}}

    try:
        law, drawn = fit_law(stage.parameters, stage.tokens, loss, stage.draws)
    except NotEnough as lack:
        found["law"] = found["methods"]["law"] = {"missing": str(lack)}
    else:
        residual = np.log(loss / law.loss(stage.parameters, stage.tokens))  # [R]
        found["law"] = _law_facts(law, drawn, residual, stage.runs)
        found["methods"]["law"] = _by_law(stage, law, drawn)
        found["held_out"] = [_compare(stage, law, drawn, residual, run, of(run)) for run in stage.held_out]

    for row in isoflop_rows(stage.runs, loss):
        at_minimum = {name: getattr(row, name) for name in ("parameters", "tokens", "loss")}
        parabola = None if row.missing else row.parabola.convert().coef.tolist()  # of 1, log N, log N squared
        found["rows"].append(
            {"label": row.label, "flops": row.flops}
            | ({"missing": row.missing} if row.missing else at_minimum | {"parabola": parabola})
        )
    found["methods"]["isoflop"] = _by_power_laws(
        stage, lambda: isoflop_power_laws(stage.runs, loss, NUM_DRAWS, stage.seed)
    )

    if codebook is not None:
        found["envelope"] = found["methods"]["envelope"] = {
            "missing": "losses along the training are means over codebooks"
        }
        return found
    found["methods"]["envelope"] = _by_power_laws(stage, lambda: envelope_power_laws(stage.runs, stage.draws))
    try:
        envelope, _ = Curves(stage.runs).envelope(np.ones(len(loss), bool))
        found["envelope"] = {name: values.tolist() for name, values in vars(envelope).items()}
    except NotEnough as lack:
        found["envelope"] = {"missing": str(lack)}
    return found


def _law_facts(law: Law, drawn: Law, residual: np.ndarray, runs: Sequence[Run]) -> dict[str, Any]:
    of_draws = drawn.numbers()
    return {
        "numbers": {name: estimate(value, of_draws[name]) for name, value in law.numbers().items()},
        "scatter": float(np.sqrt((residual**2).sum() / (len(residual) - UNKNOWNS))),
        "residuals": [[run.index, float(r)] for run, r in zip(runs, residual, strict=True)],
    }


def _by_law(stage: _Stage, law: Law, drawn: Law) -> dict[str, Any]:
    """The law's exponents, as means over the budgets of the runs: they change with the budget, since cost is not
    proportional to N."""
    if not law.falls:
        flat = "size" if law.alpha < law.beta else "data"
        return {"missing": f"the law's loss does not fall with {flat}: no budget has a best size"}
    flops = np.geomspace(stage.flops.min(), stage.flops.max(), 9)
    laws, of_draws = (PowerLaws.through(flops, *stage.cost.best(either, flops)) for either in (law, drawn))
    predicted = []
    for budget in stage.budgets:
        n, d = stage.cost.best(law, budget)
        n_draws, d_draws = stage.cost.best(drawn, budget)  # [S, 1]
        losses = law.loss(n, d), drawn.loss(n_draws, d_draws)
        predicted.append(stage.best(budget, (n, n_draws), (d, d_draws), losses))
    return {"a": estimate(laws.a, of_draws.a), "b": estimate(laws.b, of_draws.b), "best": predicted}


def _by_power_laws(stage: _Stage, fit: Callable[[], tuple[PowerLaws, PowerLaws]]) -> dict[str, Any]:
    try:
        laws, drawn = fit()
    except NotEnough as lack:
        return {"missing": str(lack)}
    pairs = [(budget, laws.at(budget), drawn.at(budget)) for budget in stage.budgets]
    predicted = [stage.best(budget, (n, n_draws), (d, d_draws)) for budget, (n, d), (n_draws, d_draws) in pairs]
    return {"a": estimate(laws.a, drawn.a), "b": estimate(laws.b, drawn.b), "best": predicted}


def _compare(
    stage: _Stage, law: Law, drawn: Law, residual: np.ndarray, run: Run, measured: float | None
) -> dict[str, Any]:
    """The law's prediction of a run that is not in its fit. The interval is that of one run: each draw of the law is
    multiplied by the residual of a run of the fit, drawn at random."""
    moved = np.random.default_rng([stage.seed, run.index]).choice(residual, size=len(stage.draws))
    moved *= np.sqrt(len(residual) / (len(residual) - UNKNOWNS))
    n, d = np.float64(run.parameters), np.float64(run.tokens)
    return {
        "index": run.index,
        "run": run.name,
        "status": run.status,
        "predicted": estimate(law.loss(n, d), drawn.loss(n, d)[:, 0] * np.exp(moved)),
        "measured": measured,
        "beyond": stage.beyond(run.parameters, run.tokens, run.flops),
    }
