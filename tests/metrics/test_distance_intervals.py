"""Do 95 % intervals hold the truth in 95 % of cases? Gaussians with a known distance, in clips that are alike."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from hafm_jax.common.errors import InputError
from hafm_jax.metrics.distance_intervals import draw_clips, drawn_frechet_distances, frechet_interval, kernel_interval
from hafm_jax.metrics.frechet import frechet_distance

DIMENSIONS = 8


def clips_like(rng: np.random.Generator, num_clips: int, scale: float = 1.0) -> list[np.ndarray]:
    """5 embeddings a clip with variance scale^2 in each dimension, half of it between clips."""
    centres = rng.standard_normal((num_clips, 1, DIMENSIONS))
    return list(scale * np.sqrt(0.5) * (centres + rng.standard_normal((num_clips, 5, DIMENSIONS))))


def test_draws_of_clips():
    draws = draw_clips(9, 100, seed=1, which=0)
    assert draws.shape == (100, 9) and (draws.sum(axis=1) == 9).all()
    np.testing.assert_array_equal(draws, draw_clips(9, 100, seed=1, which=0))
    assert (draws != draw_clips(9, 100, seed=1, which=1)).any() and (draws != draw_clips(9, 100, seed=2, which=0)).any()


def test_drawn_distances_are_those_of_clips_written_out():
    rng = np.random.default_rng(0)
    reference, clips = clips_like(rng, 10), clips_like(rng, 8, 2.0)
    found = drawn_frechet_distances(reference, clips, num_draws=3, seed=5)
    for value, p, q in zip(found, draw_clips(10, 3, 5, 0), draw_clips(8, 3, 5, 1), strict=True):
        drawn = [np.concatenate(np.repeat(some, times, axis=0)) for some, times in ((reference, p), (clips, q))]
        assert value == pytest.approx(frechet_distance(*drawn), rel=1e-9)


def measured(interval_of, num_clips: int, scale: float, repeats: int) -> np.ndarray:
    """(value, low, high) of many pairs of sets, float [repeats, 3]."""
    rng = np.random.default_rng(0)
    sets = ((clips_like(rng, num_clips), clips_like(rng, num_clips, scale)) for _ in range(repeats))
    return np.array([interval_of(*both, num_draws=80, seed=n) for n, both in enumerate(sets)])


def share_holding(truth: float, found: np.ndarray) -> float:
    return np.mean((found[:, 1] <= truth) & (truth <= found[:, 2]))


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_frechet_intervals_hold_what_sets_of_this_size_give_on_average(scale):
    found = measured(frechet_interval, 40, scale, 50)
    average = found[:, 0].mean()
    assert average > 1.2 * DIMENSIONS * (scale - 1) ** 2  # more than sets without end would
    assert share_holding(average, found) >= 0.88
    # and they are not merely wide: 2 x 1.96 standard deviations would be exact
    assert np.mean(found[:, 2] - found[:, 1]) < 2.2 * 3.92 * found[:, 0].std()


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_kernel_intervals_hold_the_truth(scale):
    # E exp(-|x - y|^2 / 2 w^2) of normal x - y with variance v a dimension is (1 + v / w^2)^(-D/2)
    square_width = 2 * scipy.stats.chi2.median(DIMENSIONS)  # of the reference: |x - y|^2 / 2 is chi-squared

    def kernel(variance: float) -> float:
        return (1 + variance / square_width) ** (-DIMENSIONS / 2)

    truth = 100 * (kernel(2) + kernel(2 * scale**2) - 2 * kernel(1 + scale**2))
    found = measured(kernel_interval, 40, scale, 100)
    assert share_holding(truth, found) >= 0.87
    assert abs(found[:, 0].mean() - truth) < 4 * found[:, 0].std() / np.sqrt(len(found))


def test_few_clips_are_refused():
    clips = clips_like(np.random.default_rng(0), 8)
    for interval_of in (frechet_interval, kernel_interval):
        with pytest.raises(InputError, match="7 clips; expected 8"):
            interval_of(clips, clips[:7])
