"""The Fréchet distance against closed forms, scipy's sqrtm and its own properties."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hafm_jax.common.errors import InputError
from hafm_jax.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, frechet_infinity


def normal(seed: int, count: int, dimensions: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimensions))


def covariance(seed: int, dimensions: int, rank: int | None = None) -> np.ndarray:
    rows = normal(seed, rank or 3 * dimensions, dimensions)
    return rows.T @ rows / len(rows)


def test_closed_form_of_gaussians_whose_covariances_commute():
    # tr((A B)^(1/2)) of diagonal matrices is the sum of the roots, so the distance is a sum over the axes
    mean, other_mean = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
    deviation, other_deviation = np.array([1.0, 2.0, 0.0]), np.array([3.0, 2.0, 0.5])
    rotation = scipy.stats.ortho_group.rvs(3, random_state=0)

    def gaussian(mean, deviation):
        return Gaussian.of(rotation @ mean, rotation @ np.diag(deviation**2) @ rotation.T)

    expected = np.square(mean - other_mean).sum() + np.square(deviation - other_deviation).sum()
    found = frechet_distance(gaussian(mean, deviation), gaussian(other_mean, other_deviation))
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dimensions", [1, 2, 17, 128])
def test_sqrtm_where_it_is_stable(dimensions):
    a, b = covariance(0, dimensions), covariance(1, dimensions)
    mean, other_mean = normal(2, 2, dimensions)
    expected = np.square(mean - other_mean).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet_distance(Gaussian.of(mean, a), Gaussian.of(other_mean, b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [5, 40])
def test_embeddings_are_taken_for_a_gaussian_with_their_moments(count):
    first, second = normal(0, count, 12), 2 * normal(1, count, 12) + 1  # 5: singular; 40: not
    expected = frechet_distance(*(Gaussian.of(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (first, second)))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    fitted = fit_gaussian(first)
    np.testing.assert_allclose(fitted.root.T @ fitted.root, np.cov(first, rowvar=False), atol=1e-12)
    assert len(fitted.root) <= 12


@pytest.mark.parametrize("count", [6, 40])
def test_counts_are_repetitions(count):
    embeddings = normal(0, count, 10)
    counts = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count))
    found, expected = fit_gaussian(embeddings, counts), fit_gaussian(np.repeat(embeddings, counts, axis=0))
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(found.root.T @ found.root, expected.root.T @ expected.root, atol=1e-12)


# Numbers from hypothesis, with many equal, tiny and huge ones: covariances of any rank and condition.
SETS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 8), st.just(4)),
    elements=st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1.0, 1e-9]),
)


@given(SETS, SETS)
def test_never_negative_symmetric_and_indifferent_to_rotation(first, second):
    scale = 1 + np.square(first).sum() + np.square(second).sum()
    distance = frechet_distance(first, second)
    assert distance >= 0 and np.isfinite(distance)
    assert frechet_distance(second, first) == pytest.approx(distance, abs=1e-12 * scale)
    rotation = scipy.stats.ortho_group.rvs(4, random_state=0)
    assert frechet_distance(first @ rotation, second @ rotation) == pytest.approx(distance, abs=1e-7 * scale)


@given(SETS, st.randoms(use_true_random=False))
def test_equal_sets_are_at_distance_zero(embeddings, random):
    order = list(range(len(embeddings)))
    random.shuffle(order)
    assert frechet_distance(embeddings, embeddings[order]) <= 1e-12 * (1 + np.square(embeddings).sum())


@given(SETS, SETS, SETS)
def test_its_root_keeps_the_triangle_inequality(a, b, c):
    ab, bc, ac = (np.sqrt(frechet_distance(*pair)) for pair in ((a, b), (b, c), (a, c)))
    assert ac <= ab + bc + 1e-5 * (1 + ab + bc)


def grouped(embeddings: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(embeddings, len(embeddings) // size)


@pytest.mark.parametrize("exact_reference", [True, False])
def test_infinity_is_nearer_to_the_truth_than_the_distance_of_small_sets(exact_reference):
    dimensions = 16
    truth = dimensions * (1.2 - 1) ** 2
    plain, extrapolated = [], []
    for seed in range(10):
        clips = grouped(1.2 * normal(seed, 320, dimensions), 5)
        if exact_reference:
            reference = whole = Gaussian.of(np.zeros(dimensions), np.eye(dimensions))
        else:
            reference = grouped(normal(seed + 100, 320, dimensions), 5)
            whole = np.concatenate(reference)
        plain.append(frechet_distance(whole, np.concatenate(clips)))
        extrapolated.append(frechet_infinity(reference, clips, seed))
    bias = np.mean(plain) - truth
    assert bias > 0.2  # a third of the truth at least
    assert abs(np.mean([e.value for e in extrapolated]) - truth) < 0.25 * bias
    assert np.mean([e.bias for e in extrapolated]) == pytest.approx(bias, rel=0.3)


def test_infinity_depends_on_the_seed_alone():
    reference, clips = grouped(normal(0, 100, 4), 5), grouped(normal(1, 100, 4), 5)
    first = frechet_infinity(reference, clips, seed=3)
    assert first == frechet_infinity(reference, clips, seed=3) != frechet_infinity(reference, clips, seed=4)
    assert first.bias > 0 and 0 < first.r_squared <= 1
    assert first.value + first.bias == pytest.approx(
        frechet_distance(*map(np.concatenate, (reference, clips))), rel=0.5
    )


def test_bad_sets_are_named():
    good = normal(0, 10, 4)
    with pytest.raises(InputError, match="found 1 embeddings; expected two"):
        frechet_distance(good, good[:1])
    with pytest.raises(InputError, match="NaN or infinity"):
        frechet_distance(good, np.full((3, 4), np.nan))
    with pytest.raises(InputError, match="4 dimensions, the other of 3"):
        frechet_distance(good, good[:, :3])
    with pytest.raises(InputError, match="found 7 clips; expected 8"):
        frechet_infinity([good] * 8, [good] * 7)
    with pytest.raises(ValueError, match=r"expected \[N, D\]"):
        frechet_distance(good, good[0])
