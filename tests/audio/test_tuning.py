"""Voices of the synthesiser, played at other rates, and tones with a vibrato."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import tuning
from hafm_jax.audio import voice as voice_module
from hafm_jax.synthesis.song import song_seed, synthesize_song

RATE_HZ = 16_000


def tones(midis: list[float], cents: float, depth_cents: float = 0.0, each_s: float = 1.0) -> np.ndarray:
    """Notes with ten harmonics and a vibrato of 5.5 Hz, float32 [S]."""
    t_s = np.arange(int(each_s * RATE_HZ)) / RATE_HZ
    vibrato = depth_cents * np.sin(2 * np.pi * 5.5 * t_s)
    pitch = np.concatenate([midi + (cents + vibrato) / 100 for midi in midis])
    turns = np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / RATE_HZ
    return sum(0.1 / k * np.sin(2 * np.pi * k * turns) for k in range(1, 11)).astype(np.float32)


@cache
def sung(number: int) -> np.ndarray:
    return synthesize_song(song_seed("test", number, 5), 15.0, RATE_HZ).vocals


@given(
    st.floats(-45, 45),
    st.floats(0, 90),
    st.lists(st.integers(45, 77), min_size=12, max_size=12),
    st.sampled_from([1e-3, 0.5, 3e4]),
)
@settings(max_examples=25, deadline=None)
def test_the_tuning_of_tones_is_found_to_a_cent_or_two(cents, depth_cents, midis, gain):
    found = tuning.measure_tuning(tones(midis, cents, depth_cents) * np.float32(gain), RATE_HZ)
    assert found.cents == pytest.approx(cents, abs=3) and found.error_cents < 5


@given(st.integers(0, 11), st.floats(-40, 40))
@settings(max_examples=20, deadline=None)
def test_a_voice_is_retuned_to_440_hz_or_left_alone(number, cents):
    """Singers err: the synthesiser's by 8 cents a note."""
    played_hz = round(RATE_HZ * 2 ** (cents / 1200))
    found_hz = tuning.rate_in_tune(sung(number), played_hz)
    left = 1200 * np.log2(found_hz / RATE_HZ)  # cents above A = 440 Hz at the rate that was found
    assert abs(left) < 10 if found_hz != played_hz else abs(cents) < 25 or has_few_notes(sung(number))


def has_few_notes(voice: np.ndarray) -> bool:
    """Twice the evidence would not be much: at another rate, other frames are held."""
    notes = tuning.held_notes(tuning.pitches(voice_module.one_channel(voice, RATE_HZ)))
    resultant = abs(np.exp(2j * np.pi * notes).mean()) if notes.size else 0.0
    return notes.size / 2 * resultant**2 < 2 * tuning.LEAST_EVIDENCE


def test_voices_at_440_hz_are_never_retuned():
    measured = [tuning.measure_tuning(sung(number), RATE_HZ) for number in range(12)]
    assert all(tuning.rate_in_tune(sung(number), RATE_HZ) == RATE_HZ for number in range(12))
    assert sum(np.isfinite(found.error_cents) for found in measured) > 8  # for most of them it is clear


@pytest.mark.slow
def test_fifty_more_voices_at_440_hz_are_never_retuned():
    for number in range(50):
        voice = synthesize_song(song_seed("validation", number, 5), 20.0, RATE_HZ).vocals
        assert tuning.rate_in_tune(voice, RATE_HZ) == RATE_HZ


def test_what_has_no_tuning_is_left_alone():
    rng = np.random.default_rng(0)
    glides = 0.3 * np.sin(2 * np.pi * np.cumsum(200 + 100 * np.sin(np.arange(20 * RATE_HZ) / RATE_HZ * 3)) / RATE_HZ)
    notes = tones(list(rng.uniform(45, 70, 40)), 0.0)
    for audio in (np.zeros(0), np.zeros(500), np.zeros(5 * RATE_HZ), rng.normal(0, 0.1, 10 * RATE_HZ), glides, notes):
        assert tuning.rate_in_tune(audio.astype(np.float32), RATE_HZ) == RATE_HZ
    few = tones([60, 62], 30.0)
    assert tuning.rate_in_tune(few, RATE_HZ) == RATE_HZ


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 96_000])
def test_the_rate_of_the_file_does_not_matter(rate_hz):
    from hafm_jax.audio.files import resample

    voice = resample(tones([50, 57, 62, 65] * 3, -31.8, 30), RATE_HZ, rate_hz)  # A = 432 Hz
    found_hz = tuning.rate_in_tune(np.stack([voice, -voice]), rate_hz)
    assert 1200 * np.log2(found_hz / rate_hz) == pytest.approx(31.8, abs=2)
