"""The plots of an evaluation's report.

Axes: S samples, F frames, M mel bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hafm_jax.audio.stft import log_mel_db
from hafm_jax.common.pages import Html, new_figure, picture, svg
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

Figures = Mapping[str, Mapping[str, float]]  # name -> value, low, high


def distance_plot(found: Mapping[str, Figures], headings: Mapping[str, str]) -> Html:
    """Of each system the figures that `headings` name, on a panel each, with their intervals."""
    names = [*found][::-1]
    figure, panels = new_figure(len(headings), width_in=5, height_in=0.3 * len(names) + 1)
    for axes, (form, heading) in zip(panels, headings.items(), strict=True):
        values = np.array([[found[n][form][k] for k in ("value", "low", "high")] for n in names])
        axes.hlines(range(len(names)), values[:, 1], values[:, 2], color="gray")
        axes.plot(values[:, 0], range(len(names)), "o")
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel=heading, xscale="symlog")
        axes.set_xlim(0, 1.5 * values.max())  # on a logarithmic scale the factor makes room for the dot
    figure.tight_layout()
    return svg(figure)


def lag_plot(lags_ms: Mapping[str, Sequence[float]]) -> Html:
    """A histogram of the clips' lags of each system."""
    figure, panels = new_figure(len(lags_ms), width_in=3, height_in=2.2)
    for axes, (system, lags) in zip(panels, lags_ms.items(), strict=True):
        axes.hist(lags, bins=np.linspace(-250, 250, 51))
        axes.set(title=system, xlabel="ms")
    figure.tight_layout()
    return svg(figure)


def guidance_plot(panels: Mapping[str, Iterable[tuple[float, Mapping[str, float] | None]]]) -> Html:
    """title -> figures at guidance scales, (scale, figure) each, those that are defined."""
    figure, every = new_figure(len(panels), width_in=2.6, height_in=2.4)
    for axes, (title, points) in zip(every, panels.items(), strict=True):
        finite = [(scale, found) for scale, found in points if found and math.isfinite(found["value"])]
        scales = [scale for scale, _ in finite]
        values = np.array([[f["value"], f["low"], f["high"]] for _, f in finite]).reshape(-1, 3)
        axes.vlines(scales, values[:, 1], values[:, 2], color="gray")
        axes.plot(scales, values[:, 0], "o-")
        axes.set(title=title, xlabel="guidance scale", xticks=scales)
    figure.tight_layout()
    return svg(figure)


def spectrogram(audio: np.ndarray) -> Html:
    """Of audio float32 [S] at CODEC_SAMPLE_RATE_HZ: log-mel levels from -80 to 0 dB, without axes."""
    figure, (axes,) = new_figure(width_in=2.6, height_in=1.4)
    level_db = np.asarray(log_mel_db(audio[None], 1024, 64, CODEC_SAMPLE_RATE_HZ)[0])  # [F, M]
    axes.imshow(level_db.T, origin="lower", aspect="auto", vmin=-80, vmax=0, interpolation="nearest")
    axes.axis("off")
    return picture(figure)
