"""The report of a sweep: figures as PNG and SVG, and a page that holds them with the tables (page.html.j2).

Each figure is a function of the runs and of their fit, the result of hafm_jax.scaling.fit.fit_sweep. It returns a
matplotlib figure with a column for each stage that has something to show, or None. Below are the functions that draw
one of the columns.

Axes: N parameters, D target tokens, C FLOPs of training.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.files import make_folder, write_bytes
from hafm_jax.common.pages import new_figure, svg, write_page
from hafm_jax.scaling import estimates
from hafm_jax.scaling.estimates import estimate_text, flops_text, si
from hafm_jax.scaling.loss_law import Law
from hafm_jax.scaling.optima import TokenCost
from hafm_jax.scaling.runs import Run

PAGE = "index.html"
FOLDER = "plots"
Fit = Mapping[str, Any]  # the result of hafm_jax.scaling.fit.fit_sweep
WIDTH_IN, HEIGHT_IN = 5.2, 3.9
COLOURS = {"law": "tab:blue", "isoflop": "tab:orange", "envelope": "tab:green"}  # of the methods
Draw = Callable[[Any, Sequence[Run], Fit, str], None]  # axes, runs, fit, stage
Drawn = Callable[[Sequence[Run], Fit], Any]  # runs, fit -> figure, or None
DRAWN: dict[str, Drawn] = {}  # by name


def write_report(workdir: Path, runs: Sequence[Run], fit: Fit) -> None:
    """Write WORKDIR/plots/NAME.png and .svg and WORKDIR/index.html. `fit` is that of these runs.

    Raises InputError where matplotlib or Jinja2 is missing or the files cannot be written.
    """
    make_folder(workdir / FOLDER, "--workdir")
    drawings = {}
    for name, draw in DRAWN.items():
        if (figure := draw(runs, fit)) is None:
            continue
        drawings[name] = svg(figure)
        write_bytes(workdir / FOLDER / f"{name}.svg", drawings[name].encode())
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
        write_bytes(workdir / FOLDER / f"{name}.png", png.getvalue())
    write_page(
        workdir / PAGE, "scaling/page.html.j2", title="Scaling laws", fit=fit, drawings=drawings, words=estimates
    )


def per_stage(stages: Callable[[Fit], list[str]]) -> Callable[[Draw], Drawn]:
    """Make the function of a figure, in DRAWN, of one that draws a stage: a column for each of `stages` of the fit."""

    def of(draw: Draw) -> Drawn:
        @wraps(draw)
        def drawn(runs: Sequence[Run], fit: Fit) -> Any:
            if not (shown := stages(fit)):
                return None
            figure, every = new_figure(len(shown), WIDTH_IN, HEIGHT_IN)
            for axes, stage in zip(every, shown, strict=True):
                draw(axes, runs, fit, stage)
                axes.set_title(stage)
                if axes.get_legend_handles_labels()[1]:
                    axes.legend(frameon=False, fontsize="x-small")
            figure.tight_layout()
            return figure

        DRAWN[draw.__name__] = drawn
        return drawn

    return of


def _shade(position: int, of: int) -> tuple:
    from matplotlib import colormaps

    return colormaps["viridis"](0.9 * position / max(1, of - 1))


def _fitted(runs: Sequence[Run], fit: Fit, stage: str) -> list[Run]:
    left_out = {row["index"] for row in fit["left_out"]}
    return [run for run in runs if run.stage == stage and run.index not in left_out]


def _law(fit: Fit, stage: str) -> tuple[Law, TokenCost] | None:
    """None where there is no law, or where the law has no best sizes."""
    found = fit["stages"][stage]
    if "missing" in found["losses"]["all"]["methods"]["law"]:
        return None
    number = {name: row["value"] for name, row in found["losses"]["all"]["law"]["numbers"].items()}
    law = Law(number["E"], np.log(number["A"]), number["alpha"], np.log(number["B"]), number["beta"])
    return law, TokenCost(np.array(found["token_cost"]["factors"]))


def _error_bar(estimate: Mapping[str, Any]) -> list[list[float]] | None:
    """For matplotlib: the lengths of the interval below and above the value, [2, 1]; None without an interval."""
    if estimate["interval"] is None:
        return None
    low, high = estimate["interval"]
    return [[max(0.0, estimate["value"] - low)], [max(0.0, high - estimate["value"])]]


@per_stage(lambda fit: list(fit["stages"]))
def curves(axes: Any, runs: Sequence[Run], fit: Fit, stage: str) -> None:
    """Validation loss along each training, by size; ends as dots."""
    shown = _fitted(runs, fit, stage)
    sizes = sorted({(run.parameters, run.size) for run in shown})
    for position, (parameters, size) in enumerate(sizes):
        colour = _shade(position, len(sizes))
        of_size = [run for run in shown if (run.parameters, run.size) == (parameters, size)]
        for run in of_size:
            axes.plot(*np.reshape(run.curve, (-1, 2)).T, color=colour, linewidth=0.8, alpha=0.7)
        ends = np.array([(run.tokens, run.loss) for run in of_size]).T
        axes.plot(*ends, "o", color=colour, markersize=4, label=f"{size}: {si(parameters)}")
    axes.set(xscale="log", xlabel="target tokens D", ylabel="validation loss, nats a token")
    losses = [run.loss for run in shown]
    room = 0.1 * (max(losses) - min(losses)) or 0.1
    axes.set_ylim(min(losses) - room, max(losses) + 3 * room)  # the first steps are far above the rest
    axes.set_xlim(left=min(run.tokens for run in shown) / 5)


@per_stage(lambda fit: [s for s in fit["stages"] if fit["stages"][s]["losses"]["all"]["rows"]])
def isoflop(axes: Any, runs: Sequence[Run], fit: Fit, stage: str) -> None:
    """Loss over size at equal budgets, the parabola of each row, and its minimum."""
    shown = _fitted(runs, fit, stage)
    rows = fit["stages"][stage]["losses"]["all"]["rows"]
    for position, row in enumerate(rows):
        colour = _shade(position, len(rows))
        points = np.array([(run.parameters, run.loss) for run in shown if run.isoflop == row["label"]]).T
        note = f" ({row['missing']})" if "missing" in row else ""
        axes.plot(*points, "o", color=colour, markersize=4, label=f"{flops_text(row['flops'])}{note}")
        if "missing" not in row:
            log_n = np.linspace(np.log(points[0].min()), np.log(points[0].max()), 100)
            axes.plot(np.exp(log_n), np.polynomial.polynomial.polyval(log_n, row["parabola"]), color=colour)
            axes.plot(row["parameters"], row["loss"], "*", color=colour, markersize=11, markeredgecolor="black")
    axes.set(xscale="log", xlabel="parameters N", ylabel="validation loss, nats a token")


@per_stage(lambda fit: list(fit["stages"]))
def frontier(axes: Any, runs: Sequence[Run], fit: Fit, stage: str) -> None:
    """Loss over budget: the runs, the lowest loss that any had reached, the law's best, its extrapolation to larger
    budgets, and the held-out runs as measured."""
    shown = _fitted(runs, fit, stage)
    axes.plot([r.flops for r in shown], [r.loss for r in shown], ".", color="gray", label="runs in the fit")
    held_out = [run for run in runs if run.stage == stage and run.held_out and run.loss is not None]
    if held_out:
        axes.plot([r.flops for r in held_out], [r.loss for r in held_out], "rD", label="held out, measured")
    found = fit["stages"][stage]["losses"]["all"]
    ends = [run.loss for run in shown]
    if "missing" not in found["envelope"]:
        flops, lowest = (np.array(found["envelope"][name]) for name in ("flops", "loss"))
        lowest = np.minimum.accumulate(lowest)  # reached with this budget or less
        inside = lowest <= max(ends)
        axes.plot(flops[inside], lowest[inside], color=COLOURS["envelope"], label="lowest along the trainings")
    if law_and_cost := _law(fit, stage):
        law, cost = law_and_cost
        best = found["methods"]["law"]["best"]
        reach = fit["stages"][stage]["range"]["flops"]
        for (low, high), style, label in (
            (reach, "-", "law, best N and D"),
            ((reach[1], best[-1]["flops"]), "--", "law beyond the runs"),
        ):
            flops = np.geomspace(low, high, 100)
            axes.plot(flops, law.loss(*cost.best(law, flops)), style, color=COLOURS["law"], label=label)
        for point in best:
            axes.errorbar(
                point["flops"], point["loss"]["value"], _error_bar(point["loss"]), fmt="o", markersize=4,
                capsize=3, color=COLOURS["law"],
            )  # fmt: skip
        axes.axhline(law.e, color="gray", linestyle=":", linewidth=1, label=f"E = {law.e:.3g}")
    axes.set(xscale="log", xlabel="FLOPs of training C", ylabel="validation loss, nats a token")


@per_stage(lambda fit: list(fit["stages"]))
def best_sizes(axes: Any, runs: Sequence[Run], fit: Fit, stage: str) -> None:
    """The best size by budget by each method: its data as marks, its power law as a line, dashed beyond the runs."""
    found = fit["stages"][stage]
    methods = found["losses"]["all"]["methods"]
    reach = found["range"]["flops"]
    axes.plot(
        [r.flops for r in _fitted(runs, fit, stage)],
        [r.parameters for r in _fitted(runs, fit, stage)],
        ".",
        color="lightgray",
        label="runs",
    )
    for row in found["losses"]["all"]["rows"]:
        if "missing" not in row:
            axes.plot(row["flops"], row["parameters"], "*", color=COLOURS["isoflop"], markersize=10)
    law_and_cost = _law(fit, stage)
    for method, colour in COLOURS.items():
        if "missing" in methods[method]:
            continue
        best = methods[method]["best"]
        for (low, high), style in ((reach, "-"), ((reach[1], best[-1]["flops"]), "--")):
            flops = np.geomspace(low, high, 50)
            if method == "law" and law_and_cost:
                sizes = law_and_cost[1].best(law_and_cost[0], flops)[0]
            else:
                anchor, exponent = best[0], methods[method]["a"]["value"]
                sizes = anchor["parameters"]["value"] * (flops / anchor["flops"]) ** exponent
            label = f"{method}: a = {estimate_text(methods[method]['a'])}" if style == "-" else None
            axes.plot(flops, sizes, style, color=colour, label=label)
        for point in best:
            bar = _error_bar(point["parameters"])
            axes.errorbar(point["flops"], point["parameters"]["value"], bar, fmt=".", capsize=3, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="FLOPs of training C", ylabel="best parameters N")


@per_stage(lambda fit: [s for s in fit["stages"] if "missing" not in fit["stages"][s]["losses"]["all"]["law"]])
def residuals(axes: Any, runs: Sequence[Run], fit: Fit, stage: str) -> None:
    """Measured loss over the law's, by tokens and size; held-out runs with the predicted interval."""
    found = fit["stages"][stage]["losses"]["all"]
    by_index = {run.index: run for run in runs}
    points = [(by_index[index], 100 * residual) for index, residual in found["law"]["residuals"]]
    sizes = sorted({run.parameters for run, _ in points})
    for position, parameters in enumerate(sizes):
        of_size = np.array([(run.tokens, r) for run, r in points if run.parameters == parameters]).T
        axes.plot(*of_size, "o", color=_shade(position, len(sizes)), markersize=4, label=si(parameters))
    for row in found["held_out"]:
        run, predicted = by_index[row["index"]], row["predicted"]
        low, high = (100 * np.log(np.array(predicted["interval"]) / predicted["value"])).tolist()
        bar = [[max(0.0, -low)], [max(0.0, high)]]
        axes.errorbar(run.tokens, 0, bar, color="red", capsize=4, label=f"held out: {si(run.parameters)}")
        if row["measured"] is not None:
            axes.plot(run.tokens, 100 * np.log(row["measured"] / predicted["value"]), "rD")
    axes.axhline(0, color="gray", linewidth=1)
    axes.set(xscale="log", xlabel="target tokens D", ylabel="measured over law, %")


@per_stage(lambda fit: list(fit["learning_rates"]))
def learning_rates(axes: Any, runs: Sequence[Run], fit: Fit, stage: str) -> None:
    """Loss over learning rate by width; the rule's rate as a line, the best with its interval as a star."""
    widths = fit["learning_rates"][stage]["widths"]
    for position, width in enumerate(widths):
        colour = _shade(position, len(widths))
        swept = [r for r in runs if r.index in width["runs"] and r.loss is not None]
        points = np.array(sorted((r.learning_rate, r.loss) for r in swept)).reshape(-1, 2).T
        axes.plot(*points, "o-", color=colour, markersize=4, linewidth=0.8, label=f"width {width['d_model']}")
        axes.axvline(width["rule"], color=colour, linestyle="--", linewidth=1)
        if "best" in width:
            bar = _error_bar(width["best"])
            axes.errorbar(
                width["best"]["value"], width["lowest"], xerr=bar, fmt="*", markersize=11, capsize=3, color=colour,
                markeredgecolor="black",
            )  # fmt: skip
    axes.set(xscale="log", xlabel="peak learning rate (dashed: the rule's)", ylabel="validation loss, nats a token")
