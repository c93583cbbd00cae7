"""The kernel distance (squared maximum mean discrepancy, MMD) between two sets of clips, without bias for small sets.

The kernel is KAD's (Chung et al. 2025, arXiv 2502.15602): Gaussian, its width the median distance between embeddings of
the reference, and the result times 100. It detects every difference between two distributions, has no unit, and no
outlier can dominate it. KID's polynomial of degree 3 (Binkowski et al. 2018, arXiv 1801.01401) detects differences in
three moments and grows with the sixth power of the embeddings' scale.

The estimate leaves out all pairs of embeddings from one clip, whereas KID and KAD leave out only the pair of an
embedding with itself: neighbours in a song are alike, and with them every set of clips would look narrower than its
distribution. Its mean over sets of independent clips is therefore the true distance for any number of clips, and 0 for
equal distributions: about half of such estimates are negative. With one embedding per clip it is KAD. Where clips share
songs, pass a song's clips as one.

Axes: C clips (P of the reference, Q of the other set), N embeddings, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.spatial.distance

from hafm_jax.common.errors import InputError

SCALE = 100.0  # KAD's, so that usual values are not all zeros
MEDIAN_EMBEDDINGS = 2000  # at most, evenly spread over the reference, for its median distance


class ClipKernels(NamedTuple):
    """Sums of the kernel over the embeddings of two clips, for all pairs of clips: the distance needs nothing else.

    reference float64 [P, P], other [Q, Q], across [P, Q]; reference_counts [P], other_counts [Q]: embeddings per clip.
    """

    reference: np.ndarray
    other: np.ndarray
    across: np.ndarray
    reference_counts: np.ndarray
    other_counts: np.ndarray

    def distance(self, reference_draws: np.ndarray | None = None, other_draws: np.ndarray | None = None) -> float:
        """The distance with each clip counted as often as `draws` say, int [P] and [Q] (None: once).

        A clip that is drawn twice is not compared with its copy, so resampling adds no bias.
        """
        p = np.ones(len(self.reference_counts)) if reference_draws is None else reference_draws.astype(float)
        q = np.ones(len(self.other_counts)) if other_draws is None else other_draws.astype(float)
        across = p @ self.across @ q / ((p @ self.reference_counts) * (q @ self.other_counts))
        within = _between_clips(self.reference, self.reference_counts, p) + _between_clips(
            self.other, self.other_counts, q
        )
        return float(SCALE * (within - 2 * across))


def clip_kernels(reference: Sequence[np.ndarray], clips: Sequence[np.ndarray]) -> ClipKernels:
    """Compare all clips of two sets, each a sequence of float [N, D]; needs memory for one clip against a set.

    Raises InputError on fewer than two clips in a set, or where all embeddings of the reference are equal.
    """
    for name, some in (("the reference", reference), ("the other set", clips)):
        if len(some) < 2:
            raise InputError(f"{name} has {len(some)} clips; expected two or more to compare: add clips")
    first, second = (np.concatenate(some).astype(np.float64) for some in (reference, clips))
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"the reference has embeddings of {first.shape[1]} dimensions, the other set of {second.shape[1]}; "
            "expected one kind: compute both with the same embedding"
        )
    width = _median_distance(first)
    return ClipKernels(
        _sums(reference, reference, width),
        _sums(clips, clips, width),
        _sums(reference, clips, width),
        np.array([len(clip) for clip in reference]),
        np.array([len(clip) for clip in clips]),
    )


def kernel_distance(reference: Sequence[np.ndarray], clips: Sequence[np.ndarray]) -> float:
    """The distance of two sets of clips, each a sequence of float [N, D]; the reference determines the kernel's width.

    Unbiased if no song is in both sets. Raises InputError as `clip_kernels`.
    """
    return clip_kernels(reference, clips).distance()


def _median_distance(embeddings: np.ndarray) -> float:
    some = embeddings[:: -(-len(embeddings) // MEDIAN_EMBEDDINGS)]
    median = float(np.median(scipy.spatial.distance.pdist(some)))
    if not median > 0:
        raise InputError(
            f"half of the reference's embeddings are equal, or NaN (median distance {median}); expected different "
            "sounds: look for silence in the reference"
        )
    return median


def _sums(first: Sequence[np.ndarray], second: Sequence[np.ndarray], width: float) -> np.ndarray:
    """float64 [P, Q]: the kernel summed over the embeddings of each pair of clips."""
    every = np.concatenate(second).astype(np.float64)  # [N, D]
    starts = np.cumsum([0, *(len(clip) for clip in second[:-1])])
    out = np.empty((len(first), len(second)))
    for number, clip in enumerate(first):
        squares = scipy.spatial.distance.cdist(clip.astype(np.float64), every, "sqeuclidean")
        out[number] = np.add.reduceat(np.exp(-squares / (2 * width**2)).sum(axis=0), starts)
    return out


def _between_clips(sums: np.ndarray, counts: np.ndarray, draws: np.ndarray) -> float:
    """The mean of the kernel over pairs of embeddings of different clips."""
    sizes = draws * counts  # embeddings of each clip
    total = draws @ sums @ draws - (draws**2) @ np.diag(sums)
    pairs = sizes.sum() ** 2 - np.square(sizes).sum()
    return total / pairs if pairs > 0 else np.nan
