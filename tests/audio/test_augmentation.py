"""Augmentation of a vocal: its length, its pitch and its timing stay; colour and room change."""

from __future__ import annotations

import numpy as np
import pytest

from hafm_jax.audio.augmentation import EQUALISER_DB, augment_vocal

RATE_HZ = 16_000


def tone(f_hz: float, seconds: float = 2.0) -> np.ndarray:
    t_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (0.2 * np.sin(2 * np.pi * f_hz * t_s) * (t_s > 0.5) * (t_s < 1.5)).astype(np.float32)


def rms_db(x: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(x)) + 1e-12))


@pytest.mark.parametrize("seed", range(8))
def test_pitch_timing_and_length_stay(seed):
    vocal = tone(440)
    changed = augment_vocal(vocal, RATE_HZ, np.random.default_rng(seed))
    assert changed.shape == vocal.shape and changed.dtype == np.float32
    middle = changed[int(0.7 * RATE_HZ) : int(1.4 * RATE_HZ)]
    peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE_HZ / len(middle)
    assert peak == pytest.approx(440, abs=2)
    assert rms_db(changed[: int(0.45 * RATE_HZ)]) < rms_db(middle) - 30  # nothing sounds before the voice


def test_colours_differ_as_widely_as_the_equaliser_says():
    """High against low tones: the difference of two bands with EQUALISER_DB each, and now and then a telephone's."""
    ratios, both = [], tone(250) + tone(4000)
    for seed in range(200):
        spectrum = np.abs(np.fft.rfft(augment_vocal(both, RATE_HZ, np.random.default_rng(seed))))
        low, high = (spectrum[int(f * 2) - 40 : int(f * 2) + 40].max() for f in (250, 4000))
        ratios.append(20 * np.log10(high / low))
    spread = np.subtract(*np.percentile(ratios, [84, 16])) / 2
    assert spread == pytest.approx(EQUALISER_DB * 2**0.5, rel=0.25)
    assert abs(np.median(ratios)) < 1.5


def test_the_draw_is_the_generators():
    first, again, other = (augment_vocal(tone(300), RATE_HZ, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3)


def test_silence_stays_silent():
    assert not augment_vocal(np.zeros(1000, np.float32), RATE_HZ, np.random.default_rng(0)).any()
