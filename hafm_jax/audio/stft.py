"""Short-time spectra in JAX, and the distance between an original and its copy that is measured with them.

Everything here is pure, differentiable and local in time.

Axes: B batch, S samples, F frames, N samples of a window, W frequency bins (N / 2 + 1), M mel bands.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

# The scales of `spectral_distance_db`: window in samples -> mel bands; ours. At 24 kHz these are 21, 43 and 85 ms: the
# short window resolves onsets, the long one neighbouring semitones down to about 200 Hz. The number of bands grows with
# the window so that the lowest are about one bin wide.
DISTANCE_SCALES = {512: 32, 1024: 64, 2048: 128}
DISTANCE_FLOOR_DB = -80.0  # below full scale; quieter bands count as equally silent


def hann_window(size: int) -> np.ndarray:
    """The periodic Hann window, float32 [size], whose shifted copies add up to a constant."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def split_frames(audio: jax.Array, size: int, hop: int) -> jax.Array:
    """Cut [B, F * hop + size - hop] into overlapping frames [B, F, size]. `size` is a multiple of `hop`.

    Written as shifted slices of [B, F, hop] pieces: a gather is several times slower, backward above all.
    """
    overlap = size // hop
    pieces = audio.reshape(audio.shape[0], -1, hop)  # [B, F + overlap - 1, hop]
    frames = pieces.shape[1] - overlap + 1
    return jnp.concatenate([pieces[:, i : i + frames] for i in range(overlap)], axis=-1)


def overlap_add(frames: jax.Array, hop: int) -> jax.Array:
    """Add overlapping frames [B, F, N] into [B, F * hop + N - hop], the transpose of `split_frames`."""
    batch, num_frames, size = frames.shape
    overlap = size // hop
    pieces = frames.reshape(batch, num_frames, overlap, hop)
    shifted = (jnp.pad(pieces[:, :, i], ((0, 0), (i, overlap - 1 - i), (0, 0))) for i in range(overlap))
    return functools.reduce(jnp.add, shifted).reshape(batch, -1)


def stft(audio: jax.Array, size: int, hop: int, *, padded: bool = False) -> jax.Array:
    """Complex64 spectra [B, F, W] of audio [B, S], F = ceil(S / hop), scaled so that a sine of amplitude a peaks at a.

    Frame f is centred on the middle of its hop (sample f * hop + hop / 2), with silence before the start and after the
    end. With `padded`, the (size - hop) / 2 samples on either side are part of `audio`, and no silence is added. Raises
    ValueError unless size is a multiple of hop and their difference even.
    """
    if size % hop or (size - hop) % 2:
        raise ValueError(f"window {size} must be a multiple of hop {hop}, and their difference even")
    if not padded:
        side = (size - hop) // 2
        audio = jnp.pad(audio, ((0, 0), (side, side + -audio.shape[1] % hop)))
    window = hann_window(size)
    return jnp.fft.rfft(split_frames(audio, size, hop) * (window * (2 / window.sum())))


def mel_per_hz(f_hz: np.ndarray) -> np.ndarray:
    """The slope of the mel scale of `mel_filters` in mel per Hz, float32 in the shape of `f_hz`."""
    return (2595 / math.log(10) / (700 + f_hz)).astype(np.float32)


@functools.cache
def mel_filters(size: int, bands: int, rate_hz: int) -> np.ndarray:
    """Triangular filters float32 [W, M], equally spaced in mel (2595 log10(1 + f / 700), O'Shaughnessy 1987), peak 1.

    Where bands are narrower than a bin, a filter is widened to one bin so that no band is empty.
    """
    bins_hz = np.arange(size // 2 + 1) * rate_hz / size
    top_mel = 2595 * math.log10(1 + rate_hz / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top_mel, bands + 2) / 2595) - 1)  # [M + 2]
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    bin_hz = rate_hz / size
    rising = (bins_hz[:, None] - centre) / np.maximum(centre - low, bin_hz)
    falling = (centre - bins_hz[:, None]) / np.maximum(high - centre, bin_hz)
    return np.maximum(0.0, 1 + np.minimum(rising, falling)).astype(np.float32)


def log_mel_db(audio: jax.Array, size: int, bands: int, rate_hz: int) -> jax.Array:
    """Power of mel bands in dB of a full-scale sine, float32 [B, F, M], floored at DISTANCE_FLOOR_DB; hop size / 2."""
    spectra = stft(audio, size, size // 2)
    power = (jnp.square(spectra.real) + jnp.square(spectra.imag)) @ mel_filters(size, bands, rate_hz)
    return 10 * jnp.log10(power + 10 ** (DISTANCE_FLOOR_DB / 10))


def spectral_distance_db(audio: jax.Array, reference: jax.Array, rate_hz: int) -> jax.Array:
    """The multi-scale spectral distance in dB, float32 [B]: 0 for equal sound, blind to phase.

    The mean absolute difference of the log-mel powers of two signals [B, S] over frames and bands, averaged over the
    windows of DISTANCE_SCALES. DISTANCE_FLOOR_DB is added to both powers. A codec's evaluation reports this distance.
    """
    distances = [
        jnp.abs(log_mel_db(audio, size, bands, rate_hz) - log_mel_db(reference, size, bands, rate_hz)).mean(axis=(1, 2))
        for size, bands in DISTANCE_SCALES.items()
    ]
    return sum(distances) / len(distances)
