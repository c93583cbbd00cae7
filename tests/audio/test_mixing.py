from __future__ import annotations

import numpy as np
import pytest
from helpers.tunes import sine

from hafm_jax.audio import mixing

RATE_HZ = 24_000


# ---------------------------------------------------------------------------------------------------------- loudness


def test_k_weighting_is_the_standards_table_at_48_khz():
    table = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_allclose(mixing._k_weighting(48_000), table, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [24_000, 44_100, 48_000])
def test_loudness_of_the_standards_calibration_tone(rate_hz):
    # BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LUFS; EBU Tech 3341 case 1: -23 dBFS stereo, -23 LUFS
    assert mixing.loudness_lufs(sine(997, 5, rate_hz, 1.0), rate_hz) == pytest.approx(-3.01, abs=0.05)
    stereo = np.stack([sine(1000, 20, rate_hz, 10 ** (-23 / 20))] * 2)
    assert mixing.loudness_lufs(stereo, rate_hz) == pytest.approx(-23.0, abs=0.1)


def test_pauses_do_not_count():
    tone = np.stack([sine(1000, 20, level=10 ** (-23 / 20))] * 2)
    with_pause = np.concatenate([tone, np.zeros_like(tone)], axis=-1)
    assert mixing.loudness_lufs(with_pause, RATE_HZ) == pytest.approx(-23.0, abs=0.15)


@pytest.mark.parametrize("level", [0.0, 1e-30])
@pytest.mark.parametrize("num_samples", [1, 100, 20_000])
def test_silence_is_minus_infinity(level, num_samples):
    assert mixing.loudness_lufs(np.full(num_samples, level), RATE_HZ) == -np.inf


# ------------------------------------------------------------------------------------------------------------ mixing


@pytest.mark.parametrize("vocal_level", [0.0, 1e-12, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("instrumental_level", [0.0, 1e-3, 0.2, 1.0])
@pytest.mark.parametrize("shapes", [(None, None), (2, None), (1, 2), (2, 2)])
def test_mix_adds_up_and_stays_under_the_limit(vocal_level, instrumental_level, shapes):
    def stem(f_hz, level, channels):
        tone = sine(f_hz, 1.0, level=level)
        return tone if channels is None else np.stack([tone] * channels)

    vocal, instrumental = stem(440, vocal_level, shapes[0]), stem(330, instrumental_level, shapes[1])
    out = mixing.mix(vocal, instrumental, RATE_HZ)
    assert out.audio.shape == out.instrumental.shape == (max(shapes[0] or 1, shapes[1] or 1), RATE_HZ)
    assert out.audio.dtype == out.instrumental.dtype == np.float32 and np.isfinite(out.audio).all()
    limit = 10 ** (-1 / 20) + 1e-6
    assert np.abs(out.audio).max() <= limit and np.abs(out.instrumental).max() <= limit
    np.testing.assert_allclose(out.audio, out.vocal_gain * np.atleast_2d(vocal) + out.instrumental, atol=1e-6)


def test_mix_sets_the_balance_whatever_the_levels_were():
    for vocal_level, instrumental_level in [(0.2, 0.9), (0.9, 0.1), (0.05, 0.05)]:
        out = mixing.mix(sine(440, 2, level=vocal_level), sine(330, 2, level=instrumental_level), RATE_HZ)
        vocal_lufs = mixing.loudness_lufs(out.vocal_gain * sine(440, 2, level=vocal_level), RATE_HZ)
        assert vocal_lufs - mixing.loudness_lufs(out.instrumental, RATE_HZ) == pytest.approx(2.0, abs=0.01)


def test_mix_beside_a_silent_vocal_is_at_a_set_loudness():
    out = mixing.mix(np.zeros(2 * RATE_HZ), sine(330, 2, level=0.9), RATE_HZ)
    assert mixing.loudness_lufs(out.audio, RATE_HZ) == pytest.approx(-20, abs=0.01) and out.vocal_gain == 1


def test_mix_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match="trim"):
        mixing.mix(np.zeros(5), np.zeros(6), RATE_HZ)
