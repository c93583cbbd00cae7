"""A small room and a microphone, for voices that were recorded or made without either.

Axes: S samples, B bins.
"""

from __future__ import annotations

import numpy as np


def fft_size(least: int) -> int:
    """A power of two, or three quarters of one: a length of at least `least` samples that is quickly transformed."""
    power = 1 << (least - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= least else power


def record(voice: np.ndarray, rng: np.random.Generator, rate_hz: int) -> np.ndarray:
    """The voice as a microphone in a small room takes it, float32 [S] to float32 [S], at the same RMS.

    The room, the microphone's colour and the noise floor are drawn; the direct sound comes without delay.
    """
    response = _room_response(rng, rate_hz) * np.float32(rng.uniform(0.0, 0.35))
    response[0] += 1
    size = fft_size(len(voice) + len(response))
    bins_hz = np.fft.rfftfreq(size, 1 / rate_hz).astype(np.float32)
    spectrum = np.fft.rfft(voice, size) * np.fft.rfft(response, size) * _microphone_gain(rng, bins_hz)
    heard = np.fft.irfft(spectrum, size)[: len(voice)].astype(np.float32)
    rms = np.sqrt(np.mean(voice**2))
    heard *= rms / (np.sqrt(np.mean(heard**2)) + 1e-12)
    # Hiss, and under 300 Hz the hum of rooms, 50 to 75 dB below the voice (ours).
    hiss = np.fft.rfft(rng.standard_normal(len(voice), dtype=np.float32))
    hiss *= 1 + 300.0 / (np.fft.rfftfreq(len(voice), 1 / rate_hz) + 30.0)
    noise = np.fft.irfft(hiss, len(voice)).astype(np.float32)
    return heard + noise * (rms * 10 ** (rng.uniform(-75, -50) / 20) / np.sqrt(np.mean(noise**2))).astype(np.float32)


def _room_response(rng: np.random.Generator, rate_hz: int) -> np.ndarray:
    """Early reflections off six walls and a tail, float32 [S], unit energy, without the direct sound."""
    decay_s = rng.uniform(0.03, 0.09)  # to 1/e of the amplitude; seven times that is RT60
    t_s = np.arange(int(6 * decay_s * rate_hz)) / rate_hz
    tail = rng.standard_normal(len(t_s), dtype=np.float32)
    tail = np.convolve(tail, np.float32([0.25, 0.5, 0.25]), "same")  # rooms damp high frequencies
    tail *= np.exp(-t_s / decay_s) * np.clip((t_s - 0.004) / 0.01, 0, 1)
    tail /= np.sqrt(np.sum(tail**2))
    for delay_s in rng.uniform(0.003, 0.025, 6):
        tail[int(delay_s * rate_hz)] += rng.uniform(0.1, 0.35) * rng.choice((-1, 1)) * np.exp(-delay_s / decay_s)
    return (tail / np.sqrt(np.sum(tail**2))).astype(np.float32)


def _microphone_gain(rng: np.random.Generator, bins_hz: np.ndarray) -> np.ndarray:
    """Amplitude [B]: a high-pass at 40 to 110 Hz of 12 dB an octave, and three wide bells of at most 3 dB."""
    corner_hz = np.float32(rng.uniform(40, 110))
    gain_db = np.zeros(len(bins_hz), np.float32)
    for low_hz, high_hz in ((120, 500), (700, 3000), (4000, 10_000)):
        centre_hz = low_hz * (high_hz / low_hz) ** rng.random()
        octaves = np.log2(np.maximum(bins_hz, 10) / centre_hz)
        gain_db += np.float32(rng.uniform(-3, 3)) * np.exp(-((octaves / 0.9) ** 2))
    return 10 ** (gain_db / 20) * bins_hz**2 / (bins_hz**2 + corner_hz**2)
