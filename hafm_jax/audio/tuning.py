"""The tuning of a voice: how far its notes are from those of A = 440 Hz, and the rate that would bring them there.

Notes are in tune with each other, not with a fork: a choir sinks, a singer practises with a piano at 432 Hz, a tape
runs slow. The pitch of held notes is found by autocorrelation (Boersma 1993: that of a windowed frame, divided by the
window's own). A wrong octave changes nothing here, since tuning is a distance to the nearest semitone.

Axes: S samples, F frames, L lags, N held notes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hafm_jax.audio.voice import one_channel
from hafm_jax.streams import SEMANTIC_SAMPLE_RATE_HZ as RATE_HZ

WINDOW = 1024  # 64 ms: five periods of the lowest pitch
HOP = 320  # 20 ms
PITCH_HZ = (80.0, 800.0)
OVERSAMPLING = 4  # of the autocorrelation; then a parabola through its peak is right to a cent
HIGHEST_HZ = 2000.0  # of the harmonics that are used: above, a voice is noisy
# All ours.
VOICED = 0.85  # least autocorrelation at a period
NEAR_BEST = 0.95  # the shortest lag whose autocorrelation is nearly the best: multiples of a period are as good
FAINT_DB = -20.0  # frames so far below the mean power are not used
HELD_FRAMES = 18  # 360 ms, two cycles of a vibrato: their mean is the note
HELD_CENTS = 20.0  # means of the two halves of a held note differ by less
LEAST_EVIDENCE = 7.0  # Rayleigh's statistic: notes of no common tuning exceed it once in a thousand times, exp(-7)
LEAST_CENTS = 12.0  # what is nearer to A = 440 Hz stays as it is: singers err by as much
LEAST_ERRORS = 4.0  # standard errors
FRAMES_AT_ONCE = 32  # bounds memory


class Tuning(NamedTuple):
    """cents: of the voice above A = 440 Hz, -50 to 50; error_cents: its standard error, infinite where notes are few or
    disagree."""

    cents: float
    error_cents: float


def rate_in_tune(vocal: np.ndarray, rate_hz: int) -> int:
    """The rate in Hz at which a vocal float32 [S] or [C, S] of `rate_hz` would be in tune to A = 440 Hz: `rate_hz`
    where it is, or where its tuning is not clear."""
    tuning = measure_tuning(vocal, rate_hz)
    if abs(tuning.cents) < max(LEAST_CENTS, LEAST_ERRORS * tuning.error_cents):
        return rate_hz
    return round(rate_hz * 2 ** (-tuning.cents / 1200))


def measure_tuning(vocal: np.ndarray, rate_hz: int) -> Tuning:
    """The tuning of a vocal float32 [S] or [C, S]: the circular mean of its held notes, modulo a semitone."""
    notes = held_notes(pitches(one_channel(vocal, rate_hz)))
    mean = np.exp(2j * np.pi * notes).mean() if notes.size else 0.0
    cents, resultant, count = 100 * np.angle(mean) / (2 * np.pi), np.abs(mean), len(notes) / 2  # they overlap by half
    if count * resultant**2 < LEAST_EVIDENCE:
        return Tuning(float(cents), np.inf)
    spread_cents = 100 * np.sqrt(-2 * np.log(min(resultant, 1.0))) / (2 * np.pi)  # circular standard deviation
    return Tuning(float(cents), float(spread_cents / np.sqrt(count)))


def held_notes(semitones: np.ndarray) -> np.ndarray:
    """Pitches float64 [F], NaN where unvoiced -> mean pitch of each stretch of HELD_FRAMES that is one note [N]."""
    half = HELD_FRAMES // 2
    halves = semitones[: len(semitones) // half * half].reshape(-1, half).mean(axis=1)  # NaN unless all are voiced
    before, after = halves[:-1], halves[1:]
    held = np.abs(after - before) < HELD_CENTS / 100
    return (before[held] + after[held]) / 2


def pitches(voice: np.ndarray) -> np.ndarray:
    """Voice float32 [S] at RATE_HZ -> semitones above A = 440 Hz, float64 [F], NaN where unvoiced or faint."""
    num_frames = max(0, (len(voice) - WINDOW) // HOP + 1)
    out, power = np.full(num_frames, np.nan), np.zeros(num_frames)
    hann = np.hanning(WINDOW + 2)[1:-1]
    lags = np.arange(int(RATE_HZ / PITCH_HZ[1] * OVERSAMPLING) - 1, int(RATE_HZ / PITCH_HZ[0] * OVERSAMPLING) + 2)
    own = _autocorrelation(hann[None])[0]
    own = own[lags] / own[0]  # [L]
    for first in range(0, num_frames, FRAMES_AT_ONCE):
        count = min(FRAMES_AT_ONCE, num_frames - first)
        samples = voice[first * HOP : (first + count - 1) * HOP + WINDOW].astype(np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
        frames = (frames - frames.mean(axis=1, keepdims=True)) * hann
        found = _autocorrelation(frames)
        power[first : first + count] = found[:, 0]
        found = found[:, lags] / (own * found[:, :1] + 1e-300)  # [F, L]
        left, middle, right = found[:, :-2], found[:, 1:-1], found[:, 2:]
        best = np.where((middle >= left) & (middle > right), middle, 0.0)
        peak = (best >= NEAR_BEST * best.max(axis=1, keepdims=True)).argmax(axis=1)
        rows = np.arange(count)
        a, b, c = left[rows, peak], middle[rows, peak], right[rows, peak]
        with np.errstate(divide="ignore", invalid="ignore"):
            lag = lags[1 + peak] + 0.5 * (a - c) / (a - 2 * b + c)
        voiced = best[rows, peak] > VOICED
        out[first : first + count][voiced] = 12 * np.log2(RATE_HZ * OVERSAMPLING / lag[voiced] / 440)
    out[power < 10 ** (FAINT_DB / 10) * power.mean() if num_frames else []] = np.nan
    return out


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    """[F, WINDOW] -> [F, 2 * OVERSAMPLING * WINDOW], of the sound below HIGHEST_HZ."""
    spectra = np.fft.rfft(frames, 2 * WINDOW)
    power = np.square(spectra.real) + np.square(spectra.imag)
    power[:, int(HIGHEST_HZ * 2 * WINDOW / RATE_HZ) :] = 0
    return np.fft.irfft(power, 2 * OVERSAMPLING * WINDOW)
