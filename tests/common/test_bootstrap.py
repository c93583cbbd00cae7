"""Draws with replacement, and intervals of draws whose quantiles are known."""

from __future__ import annotations

import numpy as np
import pytest

from hafm_jax.common.bootstrap import basic_interval, draw_counts, percentile_interval

SKEWED = np.concatenate([np.full(50, 12.0), np.full(50, 13.0), np.full(100, 18.0)])  # mean 15.25


def test_a_draw_has_as_many_items_as_there_are_and_depends_on_the_seed():
    draws = draw_counts(9, [1, 0], num_draws=100)
    assert draws.shape == (100, 9) and (draws.sum(axis=1) == 9).all()
    np.testing.assert_array_equal(draws, draw_counts(9, [1, 0], num_draws=100))
    assert (draws != draw_counts(9, [1, 1], num_draws=100)).any() and (draws != draw_counts(9, 2, num_draws=100)).any()


def test_the_basic_interval_is_the_draws_scatter_mirrored_around_the_value():
    assert basic_interval(10.0, SKEWED) == pytest.approx((10.0, 10 - 2.75, 10 + 3.25))
    assert basic_interval(10.0, SKEWED, least=8.0) == pytest.approx((10.0, 8.0, 10 + 3.25))


def test_the_percentile_interval_is_between_quantiles_of_the_draws():
    assert percentile_interval(10.0, SKEWED) == pytest.approx((10.0, 12.0, 18.0))
