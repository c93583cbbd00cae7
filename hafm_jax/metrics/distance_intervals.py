"""Bootstrap intervals of distances between two sets of clips: which distance would other clips of the same kind give?

Clips are drawn, not embeddings: the embeddings of one clip are alike, and separate draws would make intervals too
narrow. Where several clips come from one song, pass them as one clip for the same reason. Both sets are drawn,
independently of each other.

The Fréchet distance of drawn clips is biased: a clip that is drawn twice adds nothing, so the distance exceeds that of
the clips themselves, which in turn exceeds that of infinite sets. The interval between two quantiles of the drawn
distances would often not even contain the measured one. `basic_interval` therefore takes from the draws not their
position but their scatter around their mean:

    low = value - (upper quantile - mean),   high = value - (lower quantile - mean)

It is an interval for the average distance of sets of this size. The bias of small sets remains in it. That bias is
similar for systems with equally many clips, and `frechet_infinity` estimates it. The kernel distance has no bias, so
its interval is one for the true distance.

The draws depend on the seed and the number of clips alone: systems on the same clips get the same draws, and the
interval of their difference is `basic_interval(a - b, drawn_a - drawn_b)`.

Axes: R draws, C clips (P of the reference, Q of the other set), N embeddings, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hafm_jax.common.bootstrap import NUM_DRAWS, Interval, basic_interval, draw_counts
from hafm_jax.common.errors import InputError
from hafm_jax.metrics.frechet import MIN_CLIPS, Gaussian, fit_gaussian, frechet_distance
from hafm_jax.metrics.kernel_distance import ClipKernels, clip_kernels


def draw_clips(num_clips: int, num_draws: int, seed: int, which: int) -> np.ndarray:
    """How often each clip is in each draw, int64 [R, C]; sets with another `which` are drawn independently.

    Raises InputError on fewer than MIN_CLIPS clips.
    """
    if num_clips < MIN_CLIPS:
        raise InputError(f"found a set of {num_clips} clips; expected {MIN_CLIPS} or more to draw from: add clips")
    return draw_counts(num_clips, [seed, which], num_draws)


def fit_draws(clips: Sequence[np.ndarray], draws: np.ndarray) -> list[Gaussian]:
    """The Gaussian of each draw [R, C] of clips, each float [N, D]. Raises InputError as `fit_gaussian`."""
    sizes = [len(clip) for clip in clips]
    embeddings = np.concatenate(clips).astype(np.float64)
    return [fit_gaussian(embeddings, np.repeat(draw, sizes)) for draw in draws]


def drawn_frechet_distances(
    reference: Sequence[np.ndarray], clips: Sequence[np.ndarray], num_draws: int = NUM_DRAWS, seed: int = 0
) -> np.ndarray:
    """The Fréchet distances of draws from two sets of clips, each float [N, D]: float64 [R].

    Raises InputError on fewer than MIN_CLIPS clips in a set, and as `frechet_distance`.
    """
    draws = (draw_clips(len(some), num_draws, seed, which) for which, some in enumerate((reference, clips)))
    pairs = zip(*(fit_draws(some, drawn) for some, drawn in zip((reference, clips), draws, strict=True)), strict=True)
    return np.array([frechet_distance(a, b) for a, b in pairs])


def frechet_interval(
    reference: Sequence[np.ndarray], clips: Sequence[np.ndarray], num_draws: int = NUM_DRAWS, seed: int = 0
) -> Interval:
    """The FAD of two sets of clips, each float [N, D], with its interval.

    Raises InputError as `drawn_frechet_distances`.
    """
    value = frechet_distance(np.concatenate(reference), np.concatenate(clips))
    return basic_interval(value, drawn_frechet_distances(reference, clips, num_draws, seed), least=0.0)


def kernel_interval(
    reference: Sequence[np.ndarray], clips: Sequence[np.ndarray], num_draws: int = NUM_DRAWS, seed: int = 0
) -> Interval:
    """The kernel distance of two sets of clips, each float [N, D], with its interval. All draws use the kernel's width
    of the reference as it is.

    Raises InputError on fewer than MIN_CLIPS clips in a set, and as `kernel_distance`.
    """
    kernels = clip_kernels(reference, clips)
    return basic_interval(kernels.distance(), _drawn(kernels, num_draws, seed))


def _drawn(kernels: ClipKernels, num_draws: int, seed: int) -> np.ndarray:
    counts = (kernels.reference_counts, kernels.other_counts)
    draws = (draw_clips(len(some), num_draws, seed, which) for which, some in enumerate(counts))
    return np.array([kernels.distance(p, q) for p, q in zip(*draws, strict=True)])
