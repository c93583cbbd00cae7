"""Chroma and timbre features at 50 Hz: harmony, level and onsets of each frame; nothing to download.

Every frame of 20 ms is described by
    12   chroma: energy of the pitch classes C, C#, ..., B, from a window long enough to separate semitones
    4    level of four bands, from a short window
    4    flux: the rise of these levels since the frame before, where notes and drum hits begin
They describe the voice (melody, voiced or not, level, onsets) and the band (chord, drums, brightness, level) alike.

A frame depends only on the sound around it: the long window reaches 118 ms beyond either edge of the frame, the short
one 6 ms, and flux one frame back. There are no statistics of the whole clip and no tuning estimate, so that crops and
windows of a song have the tokens of the song.

The transforms are scipy's and not librosa's, which compiles its filter banks with numba at first use: that can take
minutes, and a sampler has to start in seconds. The definition is the usual one (librosa.filters.chroma: Gaussian bumps
a semitone apart, A440, tuning 0); only the bumps' width is fixed here.

Axes: S samples, F frames, N samples of a window, B frequency bins, D features.
"""

from __future__ import annotations

import functools

import numpy as np

from hafm_jax.streams import SEMANTIC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import STREAMS

HOP = RATE_HZ // STREAMS["vocal_semantic"].rate_hz  # 320 samples, 20 ms

# All constants below are ours; see docs/notebook.md. The weights multiply features before k-means, whose distance they
# shape.
LONG_WINDOW = 4096  # 256 ms: bins of 3.9 Hz, semitones apart from about 100 Hz up
SHORT_WINDOW = 512  # 32 ms: short enough to place a drum hit to a frame
CHROMA_RANGE_HZ = (80.0, 2000.0)  # below, bins are wider than semitones; above, overtones blur the chord
BUMP_SEMITONES = 0.5  # standard deviation of a pitch class's bump
CHROMA_GATE = 2e-3  # amplitude at which chroma has half of its full length: it fades out in silence and vocal noise
BAND_EDGES_HZ = (0.0, 200.0, 800.0, 3000.0, 8000.0)  # kick and bass; chords; voice and snare; cymbals and consonants
LEVEL_FLOOR_DB = -60.0  # silence, digital or not, is level 0
LEVEL_RANGE_DB = 50.0  # level 1 is -10 dB of full scale
LEVEL_WEIGHT = 0.7
FLUX_WEIGHT = 1.5
FRAMES_AT_ONCE = 256  # 4 MB of windows: bounds memory, and fits a cache

# Columns of the features.
CHROMA, LEVEL, FLUX = slice(0, 12), slice(12, 16), slice(16, 20)
DIMENSIONS = FLUX.stop


@functools.cache
def _chroma_bank() -> np.ndarray:
    """float32 [12, B]: share of a bin of the long window in a pitch class, C first. B ends at the range's top."""
    frequency_hz = np.fft.rfftfreq(LONG_WINDOW, 1 / RATE_HZ)
    frequency_hz = frequency_hz[frequency_hz <= CHROMA_RANGE_HZ[1]]
    midi = 69 + 12 * np.log2(np.maximum(frequency_hz, 1.0) / 440.0)  # [B]
    distance = (midi - np.arange(12)[:, None] + 6) % 12 - 6  # semitones on the circle of pitch classes, [12, B]
    inside = frequency_hz >= CHROMA_RANGE_HZ[0]
    return (np.exp(-0.5 * (distance / BUMP_SEMITONES) ** 2) * inside).astype(np.float32)


@functools.cache
def _band_bank() -> np.ndarray:
    """float32 [bands, B]: 1 where a bin of the short window is in the band."""
    frequency_hz = np.fft.rfftfreq(SHORT_WINDOW, 1 / RATE_HZ)
    edges_hz = np.array(BAND_EDGES_HZ)[:, None]
    edges_hz[-1] += 1  # the last band includes the Nyquist bin
    return ((frequency_hz >= edges_hz[:-1]) & (frequency_hz < edges_hz[1:])).astype(np.float32)


def _sum_bins(spectra: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """[F, B] by bank [D, B] -> [F, D].

    Not by BLAS, whose last bits depend on the number of cores, and with them a token now and then.
    """
    return np.einsum("fb,db->fd", spectra, bank)


def _spectra(padded: np.ndarray, first_sample: int, num_frames: int, window: int, num_bins: int) -> np.ndarray:
    """The first bins of amplitude spectra [F, B] of Hann windows every HOP samples; a full-scale sine reads 1."""
    from scipy.fft import rfft  # unlike numpy's, computes in float32

    samples = padded[first_sample : first_sample + (num_frames - 1) * HOP + window]
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::HOP]  # [F, N]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    return np.abs(rfft(frames * hann, axis=1)[:, :num_bins]) * np.float32(2 / hann.sum())


def chroma_features(audio: np.ndarray) -> np.ndarray:
    """Audio float32 [S] at 16 kHz -> float32 [F, 20], one row per 20 ms, weighted for k-means.

    Raises ValueError unless S is a multiple of 320.
    """
    if audio.ndim != 1 or audio.size % HOP:
        raise ValueError(f"audio has shape {audio.shape}; expected [S] with S a multiple of {HOP}")
    num_frames = audio.size // HOP
    half = LONG_WINDOW // 2
    # One more frame in front, since flux looks one frame back; before the file there is silence.
    padded = np.pad(np.asarray(audio, np.float32), half + HOP)  # frame f is centred at half + HOP + (f + 0.5) * HOP
    centre = half + HOP + HOP // 2
    out = np.empty((num_frames, DIMENSIONS), np.float32)
    for start in range(0, num_frames, FRAMES_AT_ONCE):
        count = min(FRAMES_AT_ONCE, num_frames - start)
        middle = centre + start * HOP
        bank = _chroma_bank()
        chroma = _sum_bins(_spectra(padded, middle - half, count, LONG_WINDOW, bank.shape[1]), bank)  # [F, 12]
        chroma /= np.linalg.norm(chroma, axis=1, keepdims=True) + CHROMA_GATE

        bank = _band_bank()
        first = middle - HOP - SHORT_WINDOW // 2  # one frame earlier
        short = _spectra(padded, first, count + 1, SHORT_WINDOW, bank.shape[1])
        power_db = 10 * np.log10(_sum_bins(np.square(short), bank) / 2 + 1e-10)  # [F + 1, bands]
        level = np.clip((power_db - LEVEL_FLOOR_DB) / LEVEL_RANGE_DB, 0, 1)
        flux = np.maximum(np.diff(level, axis=0), 0)

        block = out[start : start + count]
        block[:, CHROMA] = chroma
        block[:, LEVEL] = LEVEL_WEIGHT * level[1:]
        block[:, FLUX] = FLUX_WEIGHT * flux
    return out
