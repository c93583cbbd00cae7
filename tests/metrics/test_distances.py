"""Each distance, of `mel` embeddings, on songs whose bands were made worse in one known way: it must move with that."""

from __future__ import annotations

import numpy as np
import pytest

from hafm_jax.evaluation.distances import sounds_of
from hafm_jax.metrics.adherence import adherence
from hafm_jax.metrics.embeddings import load_embedding
from hafm_jax.metrics.frechet import frechet_distance, frechet_infinity
from hafm_jax.metrics.kernel_distance import kernel_distance
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.synthesis.song import Song, synthesize_song

SECONDS, SONGS = 3, 16
MEL = load_embedding("mel")
NOISE = np.random.default_rng(0).standard_normal(SECONDS * RATE_HZ).astype(np.float32)
DISTANCES = {
    "FAD": lambda reference, clips: frechet_distance(np.concatenate(reference), np.concatenate(clips)),
    "FAD-infinity": lambda reference, clips: frechet_infinity(reference, clips).value,
    "kernel": kernel_distance,
}


def without_end(band: np.ndarray, share: float) -> np.ndarray:
    return np.where(np.arange(band.size) < (1 - share) * band.size, band, 0).astype(np.float32)


WORSE = {  # the more, the worse; 0 is the band as it is
    "noise": (lambda band, level: band + level * NOISE, (0, 0.003, 0.01, 0.03)),
    "cut": (without_end, (0, 0.25, 0.5)),
}


@pytest.fixture(scope="module")
def songs() -> tuple[list[Song], list[Song]]:
    """For the reference, and others."""
    every = [synthesize_song(seed, SECONDS) for seed in range(2 * SONGS)]
    return every[:SONGS], every[SONGS:]


@pytest.mark.parametrize("change", WORSE)
def test_distances_grow_the_worse_the_bands_are(songs, change):
    reference, others = songs
    make, levels = WORSE[change]
    of_reference = [MEL(song.instrumental, RATE_HZ) for song in reference]
    of_others = [[MEL(make(song.instrumental, level), RATE_HZ) for song in others] for level in levels]
    for name, distance in DISTANCES.items():
        found = [distance(of_reference, clips) for clips in of_others]
        assert np.all(np.diff(found) > 0), (name, found)
        assert found[-1] > found[0] + 20, (name, found)


def test_adherence_falls_when_songs_are_swapped(songs):
    def mixes(songs: list[Song], swapped: int) -> list[np.ndarray]:
        bands = [songs[(i + 1) % SONGS if i < swapped else i].instrumental for i in range(SONGS)]
        pairs = zip(songs, bands, strict=True)
        return [MEL(sounds_of(song.vocals, band)["mix"], RATE_HZ) for song, band in pairs]

    reference, others = songs
    sets = mixes(reference, 0), mixes(reference, SONGS)
    true, half, none = (adherence(mixes(others, swapped), *sets).score for swapped in (0, SONGS // 2, SONGS))
    assert true > half + 0.02 > none + 0.04
    assert true > none + 0.1
