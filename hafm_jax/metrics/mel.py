"""The embedding `mel`: statistics of a log-mel spectrogram over patches of 0.96 s. It is ours and needs no weights.

It serves where no weights can be downloaded. Its distances can be compared with its own only, and their agreement with
listeners has not been shown. A patch becomes

    24   mean level of the mel bands: instruments, brightness, limited bandwidth, a floor of noise
    24   their standard deviation over time: dynamics, decay, sustained or struck
     6   flatness of the spectrum within octaves: separate tones, or noise between them
    16   modulation of four wide bands at four ranges of rates: rhythm, from beats up to roughness

All are logarithms of power to base ten (bels), so that no scale has to be estimated from data. The level counts: a gain
of 10 dB changes 24 of them by one.

Axes: S samples, F frames, P patches, W frequency bins, M mel bands, D features.
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy.fft

from hafm_jax.audio.stft import hann_window, mel_filters
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as SAMPLE_RATE_HZ

# All constants are ours. Window and hop locate onsets to 10 ms and separate partials from about 100 Hz up.
WINDOW = 1024  # 43 ms
HOP = SAMPLE_RATE_HZ // 100  # 240 samples, 10 ms
PATCH_FRAMES = 96  # 0.96 s, as VGGish has it
MEL_BANDS = 24  # few enough to estimate their covariance from a hundred clips
LEVEL_FLOOR = 1e-7  # power, full scale being 1: everything below -70 dB counts as silent
OCTAVE_EDGES = WINDOW // 128 * 2 ** np.arange(7)  # bins 8, 16, ..., 512: 188 Hz to 12 kHz
BIN_FLOOR = 1e-9  # the same for one bin of the spectrum, which holds less of a noise: silence is flat
WIDE_BANDS = 4  # of six mel bands each: bass, chords, voice and snare, cymbals
RATE_EDGES = (1, 4, 8, 16, 49)  # in periods per patch, about Hz: beats, eighths, sixteenths, roughness
MODULATION_FLOOR = 1e-4  # bels squared: below, a level counts as steady

MIN_SAMPLES = WINDOW + (PATCH_FRAMES - 1) * HOP
DIMENSIONS = 2 * MEL_BANDS + (len(OCTAVE_EDGES) - 1) + WIDE_BANDS * (len(RATE_EDGES) - 1)


def mel_statistics(audio: np.ndarray) -> np.ndarray:
    """Audio float32 [S] at 24 kHz -> float32 [P, 70], a row for each whole patch; S at least MIN_SAMPLES."""
    window = hann_window(WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(audio, WINDOW)[::HOP]  # [F, WINDOW]
    patches = len(frames) // PATCH_FRAMES
    spectra = scipy.fft.rfft(frames[: patches * PATCH_FRAMES] * (window * (2 / window.sum())))
    power = np.square(np.abs(spectra)).reshape(patches, PATCH_FRAMES, -1)  # [P, F, W], a full-scale sine peaks at 1
    level = np.log10(power @ mel_filters(WINDOW, MEL_BANDS, SAMPLE_RATE_HZ) + LEVEL_FLOOR)  # [P, F, M]
    parts = [level.mean(axis=1), level.std(axis=1), _flatness(power), _modulation(level)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _flatness(power: np.ndarray) -> np.ndarray:
    """[P, F, W] -> [P, octaves]: log of geometric over arithmetic mean of an octave's bins, averaged over frames."""
    power = power + BIN_FLOOR
    octaves = [power[..., low:high] for low, high in itertools.pairwise(OCTAVE_EDGES)]
    flatness = [np.log10(octave).mean(axis=-1) - np.log10(octave.mean(axis=-1)) for octave in octaves]
    return np.stack(flatness, axis=-1).mean(axis=1)


def _modulation(level: np.ndarray) -> np.ndarray:
    """[P, F, M] -> [P, rates * wide bands]: log power of the modulation of wide bands' levels by range of rates."""
    wide = level.reshape(*level.shape[:2], WIDE_BANDS, -1).mean(axis=-1)  # [P, F, wide]
    wide = (wide - wide.mean(axis=1, keepdims=True)) * hann_window(PATCH_FRAMES)[:, None]
    power = np.square(np.abs(scipy.fft.rfft(wide, axis=1)) / PATCH_FRAMES)  # [P, rates, wide]
    ranges = [power[:, low:high].sum(axis=1) for low, high in itertools.pairwise(RATE_EDGES)]
    return np.log10(np.concatenate(ranges, axis=1) + MODULATION_FLOOR)
