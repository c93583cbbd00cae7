"""The best size by budget from IsoFLOP rows: method 2 of Hoffmann et al. 2022 (arXiv 2203.15556).

The runs of a row have one budget of FLOPs and several sizes. A parabola of their losses over log N has its minimum at
the best size. A loss over log N is no parabola but near its minimum, so that wide rows, or rows off centre, bias the
answer (Czech et al. 2026, arXiv 2603.22339). R runs, S draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial

from hafm_jax.scaling.loss_law import NotEnough
from hafm_jax.scaling.power_laws import PowerLaws
from hafm_jax.scaling.runs import Run

ROW_SPREAD = 1.25  # largest over smallest budget of a row's runs: beyond, they are not of one budget


@dataclass(frozen=True)
class Row:
    """Where a row is best. All of the minimum is nan, and `parabola` None, where `missing` says why there is none."""

    label: str
    flops: float  # geometric mean of its runs
    missing: str = ""
    parabola: Polynomial | None = None  # log N -> nats a token
    parameters: float = np.nan
    tokens: float = np.nan
    loss: float = np.nan


def isoflop_rows(runs: Sequence[Run], loss: np.ndarray) -> list[Row]:
    """The rows of runs that have a label, by budget. `loss` float64 [R]."""
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
        return Row(label, flops, f"its minimum lies beyond the {side} size")
    log_cost = log_flops - np.log([run.tokens for run in runs])  # of a token, at the row's own sizes
    tokens = flops / np.exp(np.interp(lowest, log_n, log_cost))
    return Row(label, flops, "", parabola, float(np.exp(lowest)), float(tokens), float(parabola(lowest)))


def isoflop_power_laws(runs: Sequence[Run], loss: np.ndarray, num_draws: int, seed: int) -> tuple[PowerLaws, PowerLaws]:
    """Through the minima of the rows, and the same of draws [S]. `loss` float64 [R].

    A row has too few runs to be drawn anew. So in a draw every run keeps its place, and its loss is the parabola's plus
    a residual drawn from those of all rows, which are enlarged by what three unknowns a row have taken from them.

    Raises NotEnough where rows with a minimum are of fewer than two budgets.
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
    if freedom == 0:  # parabolas through all points: nothing is known of the scatter
        return _through(good), PowerLaws(*np.full((4, num_draws), np.nan))
    residual = (loss - fitted) * np.sqrt(len(runs) / freedom)
    moved = np.random.default_rng(seed).choice(residual, size=(num_draws, len(runs)))  # [S, R]
    return _through(good), PowerLaws.stack([_through(isoflop_rows(runs, fitted + by)) for by in moved])


def _through(rows: list[Row]) -> PowerLaws:
    kept = [row for row in rows if not row.missing]
    return PowerLaws.through(
        *(np.array([getattr(row, name) for row in kept]) for name in ("flops", "parameters", "tokens"))
    )
