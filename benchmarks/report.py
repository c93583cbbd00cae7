"""How figures are summed up and shown."""

from __future__ import annotations

import statistics


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def interval(figure: dict[str, float]) -> str:
    """A figure's value, and between what it lies."""
    return "{value:.3f} ({low:.3f} to {high:.3f})".format_map(figure)


def markdown(rows: list[list[str]]) -> str:
    """A table; the first row is its header."""
    header, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rest])
