"""The kernel distance against the sums it is defined by, and what its mean over many sets must be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hafm_jax.common.errors import InputError
from hafm_jax.metrics.kernel_distance import clip_kernels, kernel_distance


def clips_like(rng: np.random.Generator, num_clips: int, shift: float = 0.0) -> list[np.ndarray]:
    """Clips of 4 embeddings that are much alike: two thirds of the variance lies between clips."""
    centres = rng.standard_normal((num_clips, 1, 6))
    return list(shift + (np.sqrt(2) * centres + rng.standard_normal((num_clips, 4, 6))) / np.sqrt(3))


def by_definition(reference: list[np.ndarray], clips: list[np.ndarray]) -> float:
    """Pair by pair; pairs within a clip are left out."""
    points = np.concatenate(reference)
    width = np.median([np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)])

    def mean_kernel(first, second, same):
        pairs = [
            (a, b)
            for (i, x), (j, y) in itertools.product(enumerate(first), enumerate(second))
            if not (same and i == j)
            for a, b in itertools.product(x, y)
        ]
        return np.mean([np.exp(-np.square(a - b).sum() / (2 * width**2)) for a, b in pairs])

    within = mean_kernel(reference, reference, True) + mean_kernel(clips, clips, True)
    return 100 * (within - 2 * mean_kernel(reference, clips, False))


def test_the_sums_it_is_defined_by():
    rng = np.random.default_rng(0)
    reference = [rng.standard_normal((n, 3)) for n in (3, 1, 4)]  # clips of different lengths
    clips = [rng.standard_normal((n, 3)) + 0.5 for n in (2, 5)]
    assert kernel_distance(reference, clips) == pytest.approx(by_definition(reference, clips), rel=1e-10)


def test_draws_are_repetitions_that_are_not_compared_with_each_other():
    rng = np.random.default_rng(0)
    reference, clips = clips_like(rng, 4), clips_like(rng, 4)
    kernels, fewer = clip_kernels(reference, clips), clip_kernels(reference, clips[:1] + clips[2:])
    for times, other_times in ((1, 1), (2, 3)):  # each clip twice or thrice is the same set
        assert kernels.distance(np.full(4, times), np.full(4, other_times)) == pytest.approx(kernels.distance())
    assert kernels.distance(None, np.array([1, 0, 1, 1])) == pytest.approx(fewer.distance())


def test_the_mean_is_zero_for_equal_distributions_though_clips_are_alike():
    rng = np.random.default_rng(0)
    values = np.array([kernel_distance(clips_like(rng, 12), clips_like(rng, 8)) for _ in range(400)])
    standard_error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * standard_error
    assert (values < 0).any()
    # the test can fail: with the pairs inside clips the mean would be far above zero
    separate = [np.concatenate(clips_like(rng, 12))[:, None] for _ in range(40)]
    biased = [kernel_distance(list(a), list(b)) for a, b in itertools.pairwise(separate)]
    assert np.mean(biased) > 10 * standard_error


def test_the_scale_of_embeddings_does_not_matter():
    rng = np.random.default_rng(0)
    reference, clips = clips_like(rng, 8), clips_like(rng, 8, 0.5)
    scaled = kernel_distance([1000 * x for x in reference], [1000 * x for x in clips])
    assert scaled == pytest.approx(kernel_distance(reference, clips), rel=1e-9)


def test_bad_sets_are_named():
    clips = clips_like(np.random.default_rng(0), 3)
    with pytest.raises(InputError, match="the other set has 1 clips"):
        kernel_distance(clips, clips[:1])
    with pytest.raises(InputError, match="6 dimensions, the other set of 5"):
        kernel_distance(clips, [clip[:, :5] for clip in clips])
    with pytest.raises(InputError, match="embeddings are equal"):
        kernel_distance([np.ones((4, 6))] * 3, clips)
