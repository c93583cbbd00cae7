"""What a fit gives: a number with its interval, or the reason why there is none; and both in words for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hafm_jax.common.bootstrap import percentile_interval

ANSWERED = 0.9  # ours: share of draws that must have an answer; the interval of fewer would be that of lucky draws


class NotEnough(Exception):
    """The runs do not determine what a fit asks for. The message says what is missing."""


def estimate(value: float, draws: np.ndarray) -> dict[str, Any]:
    """As JSON: the value, and its interval over draws [S]; None where more than 1 - ANSWERED of them are nan."""
    known = draws[np.isfinite(draws)]
    if len(known) == 0 or len(known) < ANSWERED * draws.size:
        return {"value": float(value), "interval": None}
    found = percentile_interval(value, known)
    return {"value": found.value, "interval": [found.low, found.high]}


def headlines(fit: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of `fit_sweep`'s result: for each stage the law, the best next runs and held-out runs."""
    lines = []
    for stage, found in fit["stages"].items():
        of_loss = found["losses"]["all"]
        if "missing" in of_loss["law"]:
            lines.append(f"{stage}, {found['runs']} runs: no law: {of_loss['law']['missing']}")
            continue
        numbers = {name: estimate_text(number) for name, number in of_loss["law"]["numbers"].items()}
        named = ", ".join(f"{name} {text}" for name, text in numbers.items())
        lines.append(f"{stage}, {found['runs']} runs: L = E + A / N^alpha + B / D^beta, {named}")
        by_law = of_loss["methods"]["law"]
        if "missing" in by_law:
            lines.append(f"  {by_law['missing']}")
        for best in by_law.get("best", []):
            size, length = (estimate_text(best[name], si) for name in ("parameters", "tokens"))
            loss = estimate_text(best["loss"], four_digits)
            lines.append(
                f"  best at {flops_text(best['flops'])}: N {size}, D {length}, loss {loss}{_extrapolated(best)}"
            )
        for row in of_loss["held_out"]:
            predicted = estimate_text(row["predicted"], four_digits)
            measured = row["status"] if row["measured"] is None else f"measured {row['measured']:.4g}"
            lines.append(f"  held out: {row['run']}: predicted {predicted}, {measured}{_extrapolated(row)}")
    lines += [f"left out, {reason}: {', '.join(names)}" for reason, names in left_out(fit).items()]
    return lines


def left_out(fit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Reason -> the names of the runs that the fit leaves out for it."""
    by_reason: dict[str, list[str]] = {}
    for row in fit["left_out"]:
        by_reason.setdefault(row["reason"], []).append(row["run"])
    return by_reason


def _extrapolated(prediction: Mapping[str, Any]) -> str:
    far = beyond_text(prediction["beyond"])
    return f" (extrapolated: {far})" if far else ""


def beyond_text(beyond: Mapping[str, float]) -> str:
    """How far a prediction is from the runs, as in "C 10 x, D 3.8 x the largest"; empty where it is among them."""
    letters = {"flops": "C", "parameters": "N", "tokens": "D"}
    sides = {
        side: ", ".join(
            f"{letters[name]} {beyond[name]:.3g} x" for name in letters if name in beyond and of(beyond[name])
        )
        for side, of in (("largest", lambda times: times > 1), ("smallest", lambda times: times < 1))
    }
    return "; ".join(f"{factors} the {side}" for side, factors in sides.items() if factors)


def estimate_text(estimate: Mapping[str, Any], write: Callable[[float], str] = "{:.3g}".format) -> str:
    """0.451 (0.4 to 0.5)."""
    if estimate["interval"] is None:
        return f"{write(estimate['value'])} (no interval)"
    low, high = map(write, estimate["interval"])
    return f"{write(estimate['value'])} ({low} to {high})"


def four_digits(value: float) -> str:
    return f"{value:.4g}"


def si(value: float) -> str:
    """185 k, 1.23 M."""
    for factor, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value:.3g}"


def flops_text(value: float) -> str:
    """3.87e13 FLOPs."""
    return f"{value:.3g} FLOPs".replace("e+", "e")
