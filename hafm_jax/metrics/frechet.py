"""The Fréchet distance between two sets of embeddings (FAD), and its estimate for infinite sets.

Each set is modelled as a Gaussian. With means m, n and covariances A, B

    distance = |m - n|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2))

(Dowson and Landau 1982; for audio embeddings Kilgour et al. 2019, arXiv 1812.08466, who call it FAD and do not take
the root either). All arithmetic is float64. A covariance is stored as a root F with A = F^T F, so that the last term is
the sum of the singular values of F G^T: real and not negative for any rank. With fewer embeddings than dimensions,
sqrtm(A B) becomes complex or does not converge.

The distance of small sets is too large: for N embeddings and a large reference it is too high by about c / N, with a c
that grows with the dimensions and differs from system to system (Chong and Forsyth 2020, arXiv 1911.07023). Therefore
compare only sets of the same size. Two sets of one distribution are not at 0: measure that floor too.
`frechet_infinity` removes most of the bias; hafm_jax.metrics.distance_intervals has intervals.

Axes: C clips, N embeddings, D dimensions, R rows of a root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from hafm_jax.common.errors import InputError

SUBSETS = 25  # number of sizes for the fit of FAD-infinity (fadtk, the toolkit of Gui et al. 2024, arXiv 2311.01616)
SMALLEST_SUBSET = 0.5  # of the clips; ours: for smaller subsets the bias is no longer proportional to 1 / size
MIN_CLIPS = 8  # ours: fewer are not enough to fit a line or to draw sets


class Gaussian(NamedTuple):
    """A set for the Fréchet distance: mean float64 [D], root float64 [R, D], covariance = root.T @ root."""

    mean: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
        """From a mean [D] and a symmetric covariance [D, D], singular or not."""
        values, vectors = scipy.linalg.eigh(np.asarray(covariance, np.float64))
        # Values within rounding of 0 are set to 0, as in numpy's matrix rank: their roots would not be as small.
        values[values <= values[-1] * len(values) * np.finfo(np.float64).eps] = 0
        return cls(np.asarray(mean, np.float64), np.sqrt(values)[:, None] * vectors.T)


class Extrapolation(NamedTuple):
    """FAD-infinity: `value` for infinite sets, `bias` by which these sets exceed it, `r_squared` of the line."""

    value: float
    bias: float
    r_squared: float


def fit_gaussian(embeddings: np.ndarray, counts: np.ndarray | None = None) -> Gaussian:
    """The Gaussian of embeddings float [N, D]: their mean and unbiased covariance (divided by N - 1).

    `counts` int [N]: the weight of each embedding (None: 1). Raises InputError on fewer than two embeddings, or
    where there are NaN or infinity.
    """
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings of shape {embeddings.shape}; expected [N, D]")
    if counts is None:
        counts = np.ones(len(embeddings), np.int64)
    embeddings, counts = embeddings[counts > 0], counts[counts > 0]
    total = int(counts.sum())
    if total < 2:
        raise InputError(f"found {total} embeddings; expected two or more for a covariance: use more sound")
    mean = counts @ embeddings / total
    if not np.isfinite(mean).all():
        raise InputError(
            "the embeddings hold NaN or infinity; expected finite numbers: look for silence or broken audio"
        )
    rows = (embeddings - mean) * np.sqrt(counts / (total - 1))[:, None]  # [N, D]
    # Few embeddings are a root themselves. Of many, the covariance is smaller, and its root has D rows at most.
    return Gaussian(mean, rows) if len(rows) <= rows.shape[1] else Gaussian.of(mean, rows.T @ rows)


def frechet_distance(a: Gaussian | np.ndarray, b: Gaussian | np.ndarray) -> float:
    """The distance of two sets, each a Gaussian or embeddings float [N, D]: symmetric, not negative, 0 for equal sets.

    It is too high for small sets (see above). Raises InputError where the dimensions differ, and as `fit_gaussian`.
    """
    a, b = (x if isinstance(x, Gaussian) else fit_gaussian(x) for x in (a, b))
    if a.mean.shape != b.mean.shape:
        raise InputError(
            f"one set has embeddings of {a.mean.size} dimensions, the other of {b.mean.size}; expected one kind: "
            "compute both with the same embedding"
        )
    common = scipy.linalg.svdvals(a.root @ b.root.T).sum()  # tr((A B)^(1/2))
    distance = np.square(a.mean - b.mean).sum() + np.square(a.root).sum() + np.square(b.root).sum() - 2 * common
    return max(float(distance), 0.0)  # only rounding is below zero


def frechet_infinity(
    reference: Gaussian | Sequence[np.ndarray], clips: Sequence[np.ndarray], seed: int = 0
) -> Extrapolation:
    """The estimated distance of infinite sets; both arguments are clips, each an array float [N, D].

    A line is fitted to the distances of random subsets, drawn without replacement, over 1 / size, and extrapolated to
    1 / size = 0 (Chong and Forsyth 2020; for music Gui et al. 2024). Whole clips are drawn: embeddings of one clip are
    alike. Both sets are reduced by the same factor, which removes the bias of both. A reference that is given as a
    Gaussian is not reduced: that is the published way, and suits a reference so large that it has no bias.

    The bias is a line only with more clips than dimensions. The value varies a little more than the distance itself
    and may be below zero for sets that are nearly equal. Raises InputError on fewer than MIN_CLIPS clips in a set.
    """
    sets = [clips] if isinstance(reference, Gaussian) else [reference, clips]
    for some in sets:
        if len(some) < MIN_CLIPS:
            raise InputError(f"found {len(some)} clips; expected {MIN_CLIPS} or more to extrapolate: add clips")
    rng = np.random.default_rng(seed)
    times_smaller, distances = np.linspace(1, 1 / SMALLEST_SUBSET, SUBSETS), []
    for factor in times_smaller:
        subsets = [
            fit_gaussian(np.concatenate([some[i] for i in rng.permutation(len(some))[: round(len(some) / factor)]]))
            for some in sets
        ]
        distances.append(frechet_distance(*(subsets if len(sets) == 2 else (reference, *subsets))))
    bias, value = np.polyfit(times_smaller, distances, 1)
    residual, spread = np.var(np.array(distances) - (value + bias * times_smaller)), np.var(distances)
    return Extrapolation(float(value), float(bias), float(1 - residual / spread) if spread > 0 else 1.0)
