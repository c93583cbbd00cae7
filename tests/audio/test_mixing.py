from __future__ import annotations

import numpy as np
import pytest
from helpers.tunes import sine
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import mixing
from hafm_jax.audio.loudness import loudness_lufs

RATE_HZ = 24_000
LIMIT = 10 ** (-1 / 20) + 1e-6
SINE_AGAINST_NOISE_DB = 2.0 + 3.7  # RMS of 330 Hz and of white noise that are 2 LU apart: K-weighting favours the noise


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
        vocal_lufs = loudness_lufs(out.vocal_gain * sine(440, 2, level=vocal_level), RATE_HZ)
        assert vocal_lufs - loudness_lufs(out.instrumental, RATE_HZ) == pytest.approx(2.0, abs=0.01)


def test_mix_beside_a_silent_vocal_is_at_a_set_loudness():
    out = mixing.mix(np.zeros(2 * RATE_HZ), sine(330, 2, level=0.9), RATE_HZ)
    assert loudness_lufs(out.audio, RATE_HZ) == pytest.approx(-20, abs=0.01) and out.vocal_gain == 1


def test_mix_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match="trim"):
        mixing.mix(np.zeros(5), np.zeros(6), RATE_HZ)


# ------------------------------------------------------------------------------------------- any voice, any accident


def phrases(num_samples: int, pauses: bool = True) -> np.ndarray:
    """A tone that comes and goes, as a voice does."""
    t_s = np.arange(num_samples) / RATE_HZ
    return (np.sin(2 * np.pi * 330 * t_s) * ((t_s % 2 < 1.2) if pauses else 1)).astype(np.float32)


def below_lu(out: mixing.Mix, vocal: np.ndarray, where: slice = slice(None)) -> float:
    """The band below the voice in the mix, by the standard's loudness at an audible level."""
    up = np.float32(0.1 / (out.vocal_gain * np.abs(vocal).max()))
    voice = (out.audio - out.instrumental)[:, where]
    return loudness_lufs(up * voice, RATE_HZ) - loudness_lufs(up * out.instrumental[:, where], RATE_HZ)


@given(
    level_db=st.floats(-75, 140),  # of full scale; int16 samples as floats are near 70, int24 near 118
    band_db=st.floats(-10, 0),
    channels=st.integers(1, 3),
    offset=st.sampled_from([0.0, 0.0, 0.3, -1.0]),
    start_s=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_the_balance_is_the_same_for_any_voice(level_db, band_db, channels, offset, start_s):
    clean = phrases(6 * RATE_HZ)
    clean[: start_s * RATE_HZ] = 0
    band = 0.1 * np.random.default_rng(0).normal(0, 1, 6 * RATE_HZ)
    band[: max(start_s - 1, 0) * RATE_HZ] *= 6  # it plays an intro, louder than what follows
    vocal = np.tile((clean + np.float32(offset)) * np.float32(10 ** (level_db / 20)), (channels, 1))
    out = mixing.mix(vocal, band * 10 ** (band_db / 20), RATE_HZ)
    assert out.audio.shape == out.instrumental.shape == (channels, 6 * RATE_HZ)
    assert max(np.abs(out.audio).max(), np.abs(out.instrumental).max()) <= LIMIT
    expected = out.vocal_gain * (vocal - out.vocal_offset) + out.instrumental
    np.testing.assert_allclose(out.audio, expected, atol=1e-5)

    def below_db(of: mixing.Mix) -> float:
        return float(10 * np.log10(np.mean((of.audio[0] - of.instrumental[0])[clean != 0] ** 2)
                                   / np.mean(of.instrumental[0, clean != 0] ** 2)))  # fmt: skip

    assert below_db(out) == pytest.approx(below_db(mixing.mix(0.1 * clean, band, RATE_HZ)), abs=0.15)
    assert below_db(out) == pytest.approx(SINE_AGAINST_NOISE_DB, abs=1.5)  # blocks may be partly silent
    assert np.abs(out.audio).max() > 0.02
    note = mixing.describe_voice(out)
    assert ("raised" in note) == (out.vocal_gain > 10 ** (1 / 20)) and ("DC" in note) == (offset != 0)


def test_an_intro_and_a_burst_before_the_voice_do_not_count():
    vocal, band = phrases(20 * RATE_HZ), phrases(20 * RATE_HZ, pauses=False) * np.float32(0.1)
    vocal[: 12 * RATE_HZ] = 0
    band[:RATE_HZ] *= 9
    out = mixing.mix(0.3 * vocal, band, RATE_HZ)
    assert below_lu(out, vocal, slice(13 * RATE_HZ, None)) == pytest.approx(2.0, abs=0.3)


def test_a_band_that_never_sounds_with_the_voice_is_balanced_by_itself():
    vocal, band = phrases(4 * RATE_HZ, pauses=False), phrases(4 * RATE_HZ, pauses=False)
    vocal[2 * RATE_HZ :] = 0
    band[: 2 * RATE_HZ] = 0
    out = mixing.mix(vocal * np.float32(0.1), band, RATE_HZ)
    voice, stem = (np.abs(x).max() for x in (out.audio[:, : 2 * RATE_HZ], out.instrumental))
    assert 20 * np.log10(voice / stem) == pytest.approx(2.0, abs=0.1)


def test_a_nearly_silent_band_is_not_raised_to_its_noise():
    vocal, band = phrases(2 * RATE_HZ) * np.float32(0.3), phrases(2 * RATE_HZ) * np.float32(1e-4)
    for gain in (1.0, 32768.0):
        out = mixing.mix(vocal * np.float32(gain), band, RATE_HZ)
        assert np.abs(out.instrumental).max() <= 1e-4 * 10**1.5 * 1.001


def test_a_stereo_vocal_stays_stereo():
    left = phrases(2 * RATE_HZ) * np.float32(0.2)
    out = mixing.mix(np.stack([left, 0 * left]), phrases(2 * RATE_HZ, pauses=False), RATE_HZ)
    np.testing.assert_allclose(out.audio[0] - out.audio[1], out.vocal_gain * left, atol=1e-6)


def test_only_what_listeners_could_notice_is_said():
    band = phrases(2 * RATE_HZ, pauses=False)
    notes = [
        mixing.describe_voice(mixing.mix(phrases(2 * RATE_HZ) * np.float32(level), band, RATE_HZ))
        for level in (0.0, 0.1, 1e-3, 3e4)
    ]
    assert notes[:2] == ["", ""]
    assert notes[2].startswith("the voice is at -6") and "raised by 3" in notes[2] and "\n" not in notes[2]
    assert notes[3].startswith("the voice is at 8") and "lowered by 9" in notes[3]
