"""A recorded voice of five syllables, synthesised: a UTAU bank that fits in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 24_000
VOWELS_HZ = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "o": (570, 840, 2410)}
SYLLABLES = ("a", "i", "sa", "ta", "mo")
START_S, CONSONANT_S, VOWEL_S = 0.1, 0.08, 0.6  # where the recording begins, and how long each part of it is


def vowel(name: str, pitch_hz: float, seconds: float) -> np.ndarray:
    """Harmonics through three resonances: float64 [S], RMS 0.1."""
    t_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = np.zeros(len(t_s))
    for k in range(1, int(5000 / pitch_hz)):
        f_hz = k * pitch_hz
        gain = np.prod([c**2 / abs(c**2 - f_hz**2 + 1j * 100 * f_hz) for c in VOWELS_HZ[name]])
        sound += gain / k * np.sin(2 * np.pi * f_hz * t_s + 0.7 * k)
    return 0.1 * sound / sound.std()


def consonant(name: str, pitch_hz: float) -> np.ndarray:
    """float64 [S] of CONSONANT_S: noise for s, silence and a burst for t, a hum for m."""
    num_samples = round(CONSONANT_S * RATE_HZ)
    noise = np.random.default_rng(1).standard_normal(num_samples)
    if name == "s":
        return 0.02 * np.diff(noise, append=0.0)
    if name == "t":
        return 0.05 * noise * (np.arange(num_samples) > 0.8 * num_samples)
    return 0.03 * np.sin(2 * np.pi * pitch_hz * np.arange(num_samples) / RATE_HZ)


def write_voicebank(folder: Path, pitch_hz: float = 220.0) -> Path:
    """Write SYLLABLES as FLAC files and an oto.ini that names them .wav: the folder."""
    folder.mkdir(parents=True)
    lines = []
    for name in SYLLABLES:
        before = consonant(name[0], pitch_hz) if len(name) > 1 else np.zeros(0)
        lead_ms = 1000 * len(before) / RATE_HZ
        silence = np.zeros(round(START_S * RATE_HZ))
        sound = np.concatenate([silence, before, vowel(name[-1], pitch_hz, VOWEL_S), silence])
        soundfile.write(folder / f"{name}.flac", sound, RATE_HZ)
        end_ms = lead_ms + 1000 * VOWEL_S
        lines.append(f"{name}.wav={name},{1000 * START_S},{lead_ms + 60},{-end_ms},{lead_ms},{lead_ms / 3}")
    (folder / "oto.ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
