"""HTML pages, each one file that contains its tables, plots, pictures and sounds."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.errors import needed_for
from hafm_jax.common.files import write_bytes

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header and rows, for the macro `table`: {{ table(*it) }}


def write_page(path: Path, template: str, **context: Any) -> None:
    """Render a template of this package, such as "evaluation/report.html.j2" (relative to hafm_jax/), to a file.

    Templates extend common/page.html.j2. Text is escaped; the functions below return Html, which is not. Raises
    InputError where the page cannot be written or Jinja2 is missing.
    """
    with needed_for("pages need Jinja2", "pip install jinja2"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hafm_jax", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**context)
    write_bytes(path, page.encode(errors="backslashreplace"))  # names of files may be no text


class Html(str):
    """HTML text: templates do not escape it."""

    def __html__(self) -> str:
        return self


def new_figure(columns: int = 1, width_in: float = 4.0, height_in: float = 3.0) -> tuple[Any, np.ndarray]:
    """A matplotlib figure and its axes [columns], each `width_in` wide. Equal data give equal pictures.

    Raises InputError where matplotlib is missing.
    """
    with needed_for("plots need matplotlib", "pip install matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure
    matplotlib.rcParams["svg.hashsalt"] = "hafm_jax"
    figure = Figure(figsize=(width_in * columns, height_in))
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def svg(figure: Any) -> Html:
    """The figure as SVG, without the date."""
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return Html(out.getvalue()[out.getvalue().index("<svg") :])


def picture(figure: Any) -> Html:
    """The figure as PNG, for plots with too many parts for SVG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return Html(f"<img src='{data_url(out.getvalue(), 'image/png')}'>")


def player(audio: np.ndarray, sample_rate_hz: int) -> Html:
    """A player for audio float32 [S] or [C, S], as MP3."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.asarray(audio).T, sample_rate_hz, format="MP3")
    return Html(f"<audio controls preload=metadata src='{data_url(out.getvalue(), 'audio/mpeg')}'></audio>")


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
