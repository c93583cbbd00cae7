from __future__ import annotations

import numpy as np
import pytest
from helpers.tunes import sine

from hafm_jax.audio import loudness

RATE_HZ = 24_000


def test_k_weighting_is_the_standards_table_at_48_khz():
    table = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_allclose(loudness._k_weighting(48_000), table, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [24_000, 44_100, 48_000])
def test_loudness_of_the_standards_calibration_tone(rate_hz):
    # BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LUFS; EBU Tech 3341 case 1: -23 dBFS stereo, -23 LUFS
    assert loudness.loudness_lufs(sine(997, 5, rate_hz, 1.0), rate_hz) == pytest.approx(-3.01, abs=0.05)
    stereo = np.stack([sine(1000, 20, rate_hz, 10 ** (-23 / 20))] * 2)
    assert loudness.loudness_lufs(stereo, rate_hz) == pytest.approx(-23.0, abs=0.1)


def test_pauses_do_not_count():
    tone = np.stack([sine(1000, 20, level=10 ** (-23 / 20))] * 2)
    with_pause = np.concatenate([tone, np.zeros_like(tone)], axis=-1)
    assert loudness.loudness_lufs(with_pause, RATE_HZ) == pytest.approx(-23.0, abs=0.15)


@pytest.mark.parametrize("level", [0.0, 1e-30])
@pytest.mark.parametrize("num_samples", [1, 100, 20_000])
def test_silence_is_minus_infinity(level, num_samples):
    assert loudness.loudness_lufs(np.full(num_samples, level), RATE_HZ) == -np.inf


def test_a_long_sound_has_the_loudness_of_its_parts():
    """The filters' state is carried from one part of the work to the next."""
    tone = sine(60, 2.5 * loudness.HOPS_AT_ONCE * loudness.HOP_S, RATE_HZ, 0.3)
    powers = loudness.block_powers(tone, RATE_HZ)
    assert len(powers) == len(tone) // (RATE_HZ // 10) - 3
    np.testing.assert_allclose(powers[10:], powers[10], rtol=1e-6)


@pytest.mark.parametrize("gain", [2.0**-20, 2.0**20])
def test_what_sounds_does_not_depend_on_the_level(gain):
    rng = np.random.default_rng(0)
    audio = rng.normal(0, np.repeat([0, 1e-3, 0.1, 0.03, 0], RATE_HZ)).astype(np.float32)
    powers = loudness.block_powers(audio, RATE_HZ)
    np.testing.assert_array_equal(loudness.block_powers(audio * np.float32(gain), RATE_HZ), powers * gain**2)
    sounds = loudness.sounding(powers)
    np.testing.assert_array_equal(loudness.sounding(powers * gain**2), sounds)
    assert sounds[20:27].all() and not sounds[:16].any() and not sounds[41:].any()
