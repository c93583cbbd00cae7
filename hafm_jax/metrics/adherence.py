"""Accompaniment prompt adherence (APA): do bands go with their vocals, judged by the mixes?

Grachten and Nistal 2025 (ICASSP, arXiv 2503.06346; their package is `audio-metrics`). Three sets of mixes, as
embeddings: the reference R, vocals with their own bands; the mismatched reference R', the same vocals each with the
band of another song; the candidates C, vocals with the bands to be judged. With the Fréchet distance d,

    APA = 1/2 + (d(C, R') - d(C, R)) / (2 d(R, R')),  clipped to 0..1

At 1 the candidates are as far from the mismatched mixes as the true ones are; at 0 they are as the mismatched ones.

It can be fooled. The distance between matched and mismatched mixes is small. Where the sound of C, not its adherence,
makes both distances to C much larger, their difference is chance and the score becomes 0 or 1: with `mel` embeddings a
silent band can score 1. `Adherence` therefore has the distances too: trust the score only where `to_reference` is not
many times `between`, and compare it with the scores of true and mismatched pairs outside R. The authors use CLAP
embeddings of windows of 5 s.

Axes: C clips, N embeddings, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hafm_jax.common.bootstrap import NUM_DRAWS, Interval, basic_interval
from hafm_jax.common.errors import InputError
from hafm_jax.metrics.distance_intervals import draw_clips, fit_draws
from hafm_jax.metrics.frechet import Gaussian, fit_gaussian, frechet_distance


class Adherence(NamedTuple):
    """APA as `score`, and the Fréchet distances behind it: d(C, R), d(C, R') and d(R, R')."""

    to_reference: float
    to_mismatched: float
    between: float

    @property
    def unclipped(self) -> float:
        return 0.5 + (self.to_mismatched - self.to_reference) / (2 * self.between)

    @property
    def score(self) -> float:
        return float(np.clip(self.unclipped, 0, 1))


def adherence(
    candidates: Sequence[np.ndarray], reference: Sequence[np.ndarray], mismatched: Sequence[np.ndarray]
) -> Adherence:
    """APA of three sets of mixes, each a sequence of embeddings of a clip, float [N, D].

    Raises InputError where reference and mismatched mixes are equal, and as `frechet_distance`.
    """
    return _of_gaussians(*(fit_gaussian(np.concatenate(clips)) for clips in (candidates, reference, mismatched)))


def adherence_interval(
    candidates: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    mismatched: Sequence[np.ndarray],
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Interval:
    """APA with its bootstrap interval over clips (hafm_jax.metrics.distance_intervals), all of it clipped to 0..1.

    Clip i of the reference and clip i of the mismatched have the vocal of one song and are drawn together. Raises
    InputError where their numbers differ, and as `adherence`.
    """
    if len(reference) != len(mismatched):
        raise InputError(
            f"found {len(reference)} reference and {len(mismatched)} mismatched clips; expected as many: mix each "
            "vocal of the reference with another song's band"
        )
    together = draw_clips(len(reference), num_draws, seed, 0)
    drawn = zip(
        fit_draws(candidates, draw_clips(len(candidates), num_draws, seed, 1)),
        fit_draws(reference, together),
        fit_draws(mismatched, together),
        strict=True,
    )
    value = adherence(candidates, reference, mismatched).unclipped
    around = basic_interval(value, np.array([_of_gaussians(*sets).unclipped for sets in drawn]))
    return Interval(*(float(np.clip(x, 0, 1)) for x in around))


def mismatch(songs: Sequence[str], seed: int = 0) -> np.ndarray:
    """For each clip a clip of another song, int64 [C], each used once; `songs` names every clip's song.

    Raises InputError where one song has more than half of the clips.
    """
    names, song, sizes = np.unique(np.asarray(songs), return_inverse=True, return_counts=True)
    if len(names) == 0 or 2 * sizes.max() > len(songs):
        raise InputError(
            f"{sizes.max(initial=0)} of {len(songs)} clips are of one song; expected half of them at most: add "
            "clips of other songs"
        )
    # Songs in random order, the clips of each in a row: a shift by the longest row leaves the song for every clip.
    order = np.argsort(np.random.default_rng(seed).permutation(len(names))[song], kind="stable")
    out = np.empty(len(songs), np.int64)
    out[order] = np.roll(order, -sizes.max())
    return out


def _of_gaussians(candidates: Gaussian, reference: Gaussian, mismatched: Gaussian) -> Adherence:
    between = frechet_distance(reference, mismatched)
    if between <= 1e-12 * np.square(reference.root).sum():  # equal sets differ by rounding
        raise InputError(
            "reference and mismatched mixes are the same set; expected other pairs of vocals and bands: add clips"
        )
    return Adherence(frechet_distance(candidates, reference), frechet_distance(candidates, mismatched), between)
