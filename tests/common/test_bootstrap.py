"""The bootstrap against closed forms: a mean's variance, a normal's quantiles, a coverage that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from hafm_jax.common.bootstrap import CONFIDENCE, basic_interval, draw_counts, percentile_interval


def test_a_draw_has_as_many_items_and_each_as_often():
    counts = draw_counts(7, 0, 5_000)
    assert counts.shape == (5_000, 7) and counts.dtype == np.int64
    assert (counts.sum(axis=1) == 7).all() and (counts >= 0).all()
    # Binomial(7, 1/7): mean 1, variance 6/7; over 5,000 draws their standard errors are 0.013 and about 0.02.
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(axis=0), 6 / 7, atol=0.1)
    np.testing.assert_array_equal(counts, draw_counts(7, 0, 5_000))
    assert (counts != draw_counts(7, [0, 1], 5_000)).any()


def test_the_percentile_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=50)
    draws = draw_counts(50, 0, 20_000) @ values / 50
    found = percentile_interval(values.mean(), draws)
    options = {"n_resamples": 20_000, "method": "percentile", "confidence_level": CONFIDENCE}
    expected = bootstrap((values,), np.mean, **options, rng=1).confidence_interval
    np.testing.assert_allclose(found, (values.mean(), *expected), atol=0.03 * values.std())
    assert found.low < found.value < found.high


def test_the_basic_interval_takes_the_draws_bias_off_and_is_mirrored():
    value, bias, scale = 3.0, 10.0, 0.5
    draws = value + bias + scale * np.random.default_rng(0).standard_normal(100_000)
    half = scale * norm.ppf((1 + CONFIDENCE) / 2)
    np.testing.assert_allclose(basic_interval(value, draws), (value, value - half, value + half), atol=0.02)
    skewed = np.random.default_rng(0).exponential(size=100_000)
    found = basic_interval(0.0, skewed)
    # Mirrored: the long tail above the mean is below the value. Quantiles of an exponential: -ln(1 - p), mean 1.
    np.testing.assert_allclose(found[1:], (1 + np.log(0.025), 1 + np.log(0.975)), atol=0.05)


def test_an_interval_keeps_above_the_least_value():
    draws = np.linspace(-5, 5, 101)
    assert basic_interval(1.0, draws).low < 0
    assert basic_interval(1.0, draws, least=0.0).low == 0.0
    assert basic_interval(1.0, draws, least=0.0).high == basic_interval(1.0, draws).high


@pytest.mark.parametrize("interval", [percentile_interval, basic_interval])
def test_95_of_100_intervals_of_a_mean_hold_it(interval):
    rng, held = np.random.default_rng(0), 0
    for number in range(400):
        values = rng.standard_normal(60)
        low, high = interval(values.mean(), draw_counts(60, number) @ values / 60)[1:]
        held += low <= 0 <= high
    assert held / 400 == pytest.approx(CONFIDENCE, abs=0.04)  # standard error 0.011, and 60 items are few
