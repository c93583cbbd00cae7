"""The report of a sweep: figures as PNG and SVG, and a page that carries them with the tables."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes
from hafm_jax.common.pages import svg, table, write_page
from hafm_jax.scaling import figures
from hafm_jax.scaling.runs import Run
from hafm_jax.scaling.texts import Fit, beyond_text, estimate_text, flops_text, four_digits, si

PAGE = "index.html"
FOLDER = "plots"
STYLE = "td,th{white-space:nowrap;font-size:.8rem;padding:.2rem .6rem}"
DRAWN = {  # file name: what draws it, heading
    "curves": (figures.curves, "Loss along the trainings"),
    "frontier": (figures.frontier, "Loss by budget"),
    "isoflop": (figures.isoflop, "Sizes at equal budgets"),
    "best_sizes": (figures.best_sizes, "The best size by budget"),
    "residuals": (figures.residuals, "What the law misses"),
    "learning_rates": (figures.learning_rates, "Learning rates by width"),
}


def write_report(workdir: Path, runs: Sequence[Run], fit: Fit) -> None:
    """Write WORKDIR/plots/NAME.png and .svg and WORKDIR/index.html. `fit` is fit_sweep's, of these runs.

    Raises InputError where matplotlib is missing or the files cannot be written.
    """
    folder = workdir / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); expected an existing folder {workdir}") from error
    drawings = {}
    for name, (draw, _) in DRAWN.items():
        if (figure := draw(runs, fit)) is None:
            continue
        drawings[name] = svg(figure)
        write_bytes(folder / f"{name}.svg", drawings[name].encode())
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
        write_bytes(folder / f"{name}.png", png.getvalue())
    write_page(workdir / PAGE, "Scaling laws", _parts(fit, drawings), STYLE)


def _parts(fit: Fit, drawings: Mapping[str, str]) -> list[str]:
    """The page, from top to bottom."""

    def drawn(name: str, *notes: str) -> list[str]:
        if name not in drawings:
            return []
        return [f"<h2>{DRAWN[name][1]}</h2>", *(f"<p>{html.escape(note)}</p>" for note in notes), drawings[name]]

    intervals = (
        f"Brackets hold 95 % intervals over {fit['draws']} bootstrap draws: runs are drawn anew with replacement, for "
        "the IsoFLOP rows residuals about the parabolas. “No interval”: too many draws had no answer."
    )
    return [
        "<p>The law of the validation loss in nats a token, L(N, D) = E + A / N<sup>alpha</sup> + B / "
        "D<sup>beta</sup>: N parameters without embeddings and heads, D target tokens trained on.</p>",
        f"<p>{html.escape(intervals)}</p>",
        _laws(fit),
        *drawn("frontier", "Beyond the largest run the law is extrapolated: dashed."),
        "<h2>Best size and length by budget</h2>",
        "<p>N grows as C<sup>a</sup>, D as C<sup>b</sup>, over the budgets of the runs.</p>",
        _exponents(fit),
        _predictions(fit),
        *(f"<p>{html.escape(line)}</p>" for line in _costs(fit)),
        _held_out(fit),
        *drawn("best_sizes"),
        *drawn(
            "isoflop",
            "A row's loss is a parabola in log N but near its minimum; wide or lopsided rows move its best size.",
        ),
        *drawn("curves", "Lines run along each training, dots are ends. Only ends count for the law."),
        *drawn("residuals"),
        *drawn("learning_rates"),
        *([_learning_rates(fit)] if fit["learning_rates"] else []),
        *_left_out(fit),
    ]  # fmt: skip


def _each_loss(fit: Fit) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and fit of every stage, and of its codebooks."""
    return [
        (stage if name == "all" else f"{stage}, {name}", of_loss)
        for stage, found in fit["stages"].items()
        for name, of_loss in found["losses"].items()
    ]


def _laws(fit: Fit) -> str:
    names = ["E", "A", "alpha", "B", "beta"]
    rows = []
    for name, of_loss in _each_loss(fit):
        law = of_loss["law"]
        if "missing" in law:
            rows.append([name, f"no law: {law['missing']}", *[""] * len(names)])
        else:
            rows.append([name, *(estimate_text(law["numbers"][n]) for n in names), f"{100 * law['scatter']:.2g} %"])
    return table(["", *names, "scatter of runs"], rows)


def _exponents(fit: Fit) -> str:
    rows, missing = [], []
    for name, of_loss in _each_loss(fit):
        for method, found in of_loss["methods"].items():
            if "missing" not in found:
                rows.append([name, method, estimate_text(found["a"]), estimate_text(found["b"])])
            elif name in fit["stages"]:  # what a codebook lacks, its stage lacks too, or has alone
                missing.append(f"<p>{html.escape(name)}, {method}: {html.escape(found['missing'])}.</p>")
    return table(["", "method", "a", "b"], rows) + "".join(missing)


def _predictions(fit: Fit) -> str:
    rows = [
        [
            stage,
            flops_text(best["flops"]),
            method,
            estimate_text(best["parameters"], si),
            estimate_text(best["tokens"], si),
            estimate_text(best["loss"], four_digits) if best["loss"] else "",
            beyond_text(best["beyond"]) or "no",
        ]
        for stage, found in fit["stages"].items()
        for method, of_method in found["losses"]["all"]["methods"].items()
        for best in of_method.get("best", [])
    ]
    return table(["", "budget", "method", "best N", "best D", "loss", "beyond the runs"], rows)


def _costs(fit: Fit) -> list[str]:
    lines = []
    for stage, found in fit["stages"].items():
        cost = found["token_cost"]
        small, large = cost["flops_per_parameter_and_token"]
        lines.append(
            f"{stage}: C is not 6 N D. A target token costs {small:.3g} N FLOPs at the smallest size and {large:.3g} N "
            "at the largest: condition tokens, attention and heads are in it. Budgets are shared out by a curve "
            f"through the runs' analytic FLOPs, at most {100 * cost['largest_error']:.2g} % off."
        )
    return lines


def _held_out(fit: Fit) -> str:
    rows = [
        [
            row["run"] + ("" if name in fit["stages"] else name[name.index(",") :]),
            estimate_text(row["predicted"], four_digits),
            row["status"] if row["measured"] is None else f"{row['measured']:.4g}",
            _difference(row),
            beyond_text(row["beyond"]) or "no",
        ]
        for name, of_loss in _each_loss(fit)
        for row in of_loss["held_out"]
    ]
    header = ["run", "predicted (interval of a run)", "measured", "measured over predicted", "beyond the runs"]
    return f"<h2>Held out: predicted, then measured</h2>{table(header, rows)}" if rows else ""


def _difference(row: Mapping[str, Any]) -> str:
    if row["measured"] is None:
        return ""
    low, high = row["predicted"]["interval"]
    where = "inside" if low <= row["measured"] <= high else "outside"
    return f"{100 * (row['measured'] / row['predicted']['value'] - 1):+.2f} %, {where}"


def _learning_rates(fit: Fit) -> str:
    rows, verdicts = [], []
    for stage, found in fit["learning_rates"].items():
        for width in found["widths"]:
            known = "best" in width
            rows.append(
                [
                    stage,
                    str(width["d_model"]),
                    f"{width['rule']:.3g}",
                    estimate_text(width["best"]) if known else f"none: {width['missing']}",
                    estimate_text(width["over_rule"]) if known else "",
                    f"{width['price']:.2g}" if known else "",
                    ", ".join(width["diverged"]) or "none",
                ]
            )
        verdicts.append(f"<p>{html.escape(f'{stage}: {_verdict(found)}')}</p>")
    header = ["", "width", "rule", "best", "best over rule", "the rule costs, nats", "diverged"]
    return table(header, rows) + "".join(verdicts)


def _verdict(found: Mapping[str, Any]) -> str:
    if "missing" in found:
        return f"the rule is not tested: {found['missing']}."
    measured = f"the best rate goes as width to the power {estimate_text(found['slope'])}, the rule's as "
    measured += f"{found['rule_slope']:.3g}: "
    if found["holds"] is None:
        return measured + "the losses scatter too much to tell whether it holds."
    price = max(width["price"] for width in found["widths"] if "price" in width)
    where = "within the interval" if found["holds"] else "outside of the interval, so that it does not hold exactly"
    return measured + f"{where}. It costs at most {price:.2g} nats at these widths."


def _left_out(fit: Fit) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for row in fit["left_out"]:
        by_reason.setdefault(row["reason"], []).append(row["run"])
    lines = [f"<p>{html.escape(reason)}: {html.escape(', '.join(names))}.</p>" for reason, names in by_reason.items()]
    return ["<h2>Left out of the fit</h2>", *lines] if lines else []
