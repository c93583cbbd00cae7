"""Source separation: a mixture in, its vocals out, by published networks behind one interface.

    demucs   Demucs of all kinds and bags of it, through the package demucs (hafm_jax.corpus.demucs)
    mdx      MDX-Net as ONNX, through ONNX Runtime (hafm_jax.corpus.mdx); the HAFM paper uses KUIELab-MDX-Net

The instrumental is the mixture minus the vocals, so that the stems sum to the mixture.

A network processes one segment at a time. Segments overlap, and fade into each other:

    one segment   |edge|fade|           |fade|edge|        edges are processed and not kept
    the next                       |edge|fade|           |fade|edge|

Axes: S samples, always of two channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hafm_jax.common.errors import InputError

KINDS = ("demucs", "mdx")
# Fade over the kept part of a segment: the default of both demucs and Ultimate Vocal Remover.
OVERLAP = 0.25


class Network(Protocol):
    """One kind of separator. Segments start at multiples of `hop_samples` from each other."""

    sample_rate_hz: int
    sha256: str  # of the weights
    segment_samples: int
    edge_samples: int
    hop_samples: int
    normalizes_song: bool  # needs mean 0 and variance 1 of the song as a whole

    def vocals(self, segment: np.ndarray) -> np.ndarray:
        """Mixture float32 [2, segment_samples] -> vocals float32 [2, segment_samples]."""


class Separator:
    """Stereo mixtures -> vocals. `sample_rate_hz`: of both; `sha256`: of the weights."""

    def __init__(self, network: Network) -> None:
        self.sample_rate_hz, self.sha256 = network.sample_rate_hz, network.sha256
        self._network = network

    def separate(self, mixture: np.ndarray) -> np.ndarray:
        """Mixture float32 [2, S] at sample_rate_hz, S from 1 on -> vocals float32 [2, S], sample for sample.

        Equal mixtures give equal vocals. Beside its result it needs the memory of a segment (for demucs, of one channel
        too), whatever S. Raises ValueError on another shape.
        """
        if mixture.ndim != 2 or mixture.shape[0] != 2 or mixture.shape[1] == 0:
            raise ValueError(f"mixture has shape {mixture.shape}; expected [2, S] with S from 1 on")
        mixture = np.asarray(mixture, np.float32)
        mean, scale = _mean_and_scale(mixture) if self._network.normalizes_song else (np.float32(0), np.float32(1))

        def vocals(segment: np.ndarray) -> np.ndarray:
            return self._network.vocals((segment - mean) / scale) * scale + mean

        sizes = self._network.segment_samples, self._network.edge_samples, self._network.hop_samples
        return in_segments(mixture, vocals, *sizes)


def load_separator(kind: str, weights: str, sha256: str | None = None, device: str | None = None) -> Separator:
    """The separator of `weights`: a local file or folder, a Hub id (OWNER/NAME or OWNER/NAME/FILE) or an https URL.

    kind: one of KINDS. For demucs, `weights` may also be the name of a model that its authors published (htdemucs).
    sha256: of the weights, as hafm_jax.common.download.check_sha256 returns it; None accepts any.
    device: cpu, cuda or cuda:N; None is cuda where there is one. All computation is in float32.
    Raises InputError where weights are missing, damaged, of another kind or not those of `sha256`, and where a package
    or the device is missing.
    """
    if kind == "demucs":
        from hafm_jax.corpus.demucs import DemucsNetwork

        return Separator(DemucsNetwork(weights, sha256, device))
    if kind == "mdx":
        from hafm_jax.corpus.mdx import MdxNetwork

        return Separator(MdxNetwork(weights, sha256, device))
    raise InputError(f"no separator is called {kind!r}; expected one of {', '.join(KINDS)}")


def in_segments(
    audio: np.ndarray,
    process: Callable[[np.ndarray], np.ndarray],
    segment_samples: int,
    edge_samples: int,
    hop_samples: int,
) -> np.ndarray:
    """Audio float32 [2, S] -> float32 [2, S], by `process` [2, segment_samples] -> the same shape.

    The kept parts of two segments, without their edges, overlap by about OVERLAP, where one fades into the other
    linearly. Before and after the audio are zeros.
    """
    num_samples = audio.shape[1]
    kept = segment_samples - 2 * edge_samples
    fade = int(OVERLAP * kept) // hop_samples * hop_samples
    stride = kept - fade
    num_segments = 1 + max(0, -(-(num_samples - kept) // stride))
    fade_in = (np.arange(1, fade + 1) / (fade + 1)).astype(np.float32)
    fade_out = 1 - fade_in
    out = np.zeros(audio.shape, np.float32)
    for number in range(num_segments):
        start = number * stride
        piece = np.array(process(_window(audio, start - edge_samples, segment_samples)), np.float32)
        piece = piece[:, edge_samples : edge_samples + kept]
        if number > 0:
            piece[:, :fade] *= fade_in
        if number < num_segments - 1:
            piece[:, stride:] *= fade_out
        target = out[:, start : start + kept]
        target += piece[:, : target.shape[1]]
    return out


def _window(audio: np.ndarray, start: int, length: int) -> np.ndarray:
    """audio[:, start : start + length], with zeros where it has no samples."""
    first, last = max(start, 0), min(start + length, audio.shape[1])
    return np.pad(audio[:, first:last], ((0, 0), (first - start, start + length - last)))


def _mean_and_scale(mixture: np.ndarray) -> tuple[np.float32, np.float32]:
    """Mean and standard deviation of the mono mix, in the memory of one channel."""
    mono = mixture.mean(axis=0)  # [S]
    # the small number keeps silence silent
    return mono.mean(dtype=np.float64).astype(np.float32), (mono.std(dtype=np.float64) + 1e-8).astype(np.float32)
