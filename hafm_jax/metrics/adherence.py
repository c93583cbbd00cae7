"""Accompaniment prompt adherence (APA): do bands go with their vocals, heard in the mixes?

Grachten and Nistal 2025 (ICASSP, arXiv 2503.06346; their package is `audio-metrics`). Three sets of mixes, as
embeddings: the reference R, vocals with their own bands; the mismatched reference R', the same vocals each with the
band of another song; the candidates C, vocals with the bands to be judged. With the Fréchet distance d,

    APA = 1/2 + (d(C, R') - d(C, R)) / (2 d(R, R')),  clipped to 0..1

1 says that the candidates are to the mismatched mixes as the true ones are, 0 that they are as the mismatched ones.
Whatever drives both distances to C up alike, such as poor sound, hides adherence: the score tends to 1/2 on neither
side of it, so read it beside the score of true and of mismatched pairs that R does not hold. Small sets bring it nearer
to 1/2, since d(R, R') comes out too large. The authors take CLAP embeddings of windows of 5 s.

Axes: C clips, N embeddings, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hafm_jax.errors import InputError
from hafm_jax.metrics.bootstrap import DRAWS, Interval, draw_clips, fit_draws, interval
from hafm_jax.metrics.frechet import Gaussian, fit_gaussian, frechet_distance


def adherence(
    candidates: Sequence[np.ndarray], reference: Sequence[np.ndarray], mismatched: Sequence[np.ndarray]
) -> float:
    """APA of three sets of mixes, each a sequence of embeddings of a clip, float [N, D].

    Raises InputError where reference and mismatched mixes are equal, and as `frechet_distance`.
    """
    sets = (fit_gaussian(np.concatenate(clips)) for clips in (candidates, reference, mismatched))
    return float(np.clip(_unclipped(*sets), 0, 1))


def adherence_interval(
    candidates: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    mismatched: Sequence[np.ndarray],
    num_draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """APA with its bootstrap interval over clips (hafm_jax.metrics.bootstrap), all of it clipped to 0..1.

    Clip i of the reference and of the mismatched have the vocal of one song and are drawn together. Raises InputError
    where they are not equally many, and as `adherence`.
    """
    if len(reference) != len(mismatched):
        raise InputError(
            f"found {len(reference)} reference and {len(mismatched)} mismatched clips; expected equally many: mix each "
            "vocal of the reference with another song's band"
        )
    together = draw_clips(len(reference), num_draws, seed, 0)
    drawn = zip(
        fit_draws(candidates, draw_clips(len(candidates), num_draws, seed, 1)),
        fit_draws(reference, together),
        fit_draws(mismatched, together),
        strict=True,
    )
    value = _unclipped(*(fit_gaussian(np.concatenate(clips)) for clips in (candidates, reference, mismatched)))
    around = interval(value, np.array([_unclipped(*sets) for sets in drawn]))
    return Interval(*(float(np.clip(x, 0, 1)) for x in around))


def mismatch(songs: Sequence[str], seed: int = 0) -> np.ndarray:
    """For each clip a clip of another song, int64 [C], each taken once; `songs` names every clip's song.

    Raises InputError where one song has more than half of the clips, so that there are not enough others.
    """
    names, song, sizes = np.unique(np.asarray(songs), return_inverse=True, return_counts=True)
    if len(names) == 0 or 2 * sizes.max() > len(songs):
        raise InputError(
            f"{sizes.max(initial=0)} of {len(songs)} clips are of one song; expected half of them at most: take "
            "clips of more songs"
        )
    # Songs in random order, each one's clips in a row: going on by the longest row leaves the song, for every clip.
    order = np.argsort(np.random.default_rng(seed).permutation(len(names))[song], kind="stable")
    out = np.empty(len(songs), np.int64)
    out[order] = np.roll(order, -sizes.max())
    return out


def _unclipped(candidates: Gaussian, reference: Gaussian, mismatched: Gaussian) -> float:
    between = frechet_distance(reference, mismatched)
    if between <= 1e-12 * np.square(reference.root).sum():  # rounding leaves that much between equal sets
        raise InputError(
            "reference and mismatched mixes are the same set; expected other pairs of vocals and bands: take more clips"
        )
    nearer = frechet_distance(candidates, mismatched) - frechet_distance(candidates, reference)
    return 0.5 + nearer / (2 * between)
