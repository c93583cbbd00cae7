"""Pages for people: one HTML file with its tables, plots, pictures and sounds in it, which needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.2rem .8rem;border-bottom:1px solid #ccc;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg,img{max-width:100%;height:auto}"
)


def write_page(path: Path, title: str, parts: Sequence[str], style: str = "") -> None:
    """Write a page of HTML parts under its title. Raises InputError where it cannot be written."""
    title = html.escape(title)
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}{style}</style><h1>{title}</h1>"
    )
    write_bytes(path, (head + "\n".join(parts) + "\n").encode())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are text, not HTML."""

    def row(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    return "<table>" + row(header, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"


def new_figure(columns: int = 1, width_in: float = 4.0, height_in: float = 3.0) -> tuple[Any, np.ndarray]:
    """A matplotlib figure and its axes [columns], each of this width; equal data gives an equal picture.

    Raises InputError where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"plots need matplotlib ({error}): pip install matplotlib") from error
    matplotlib.rcParams["svg.hashsalt"] = "hafm_jax"
    figure = Figure(figsize=(width_in * columns, height_in))
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def picture(figure: Any) -> str:
    """As PNG, for what has too many parts to be drawn as SVG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return f"<img src='{data_url(out.getvalue(), 'image/png')}'>"


def player(audio: np.ndarray, sample_rate_hz: int) -> str:
    """Audio float32 [S] or [C, S] as an MP3 to be played on the page."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.asarray(audio).T, sample_rate_hz, format="MP3")
    return f"<audio controls preload=metadata src='{data_url(out.getvalue(), 'audio/mpeg')}'></audio>"


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
