"""The shipped model on songs that it has never heard, synthesised here from seeds of the test split."""

from __future__ import annotations

import numpy as np
import pytest

from hafm_jax.audio.codecs import load_codec, measure
from hafm_jax.audio.files import pad_to_cells
from hafm_jax.audio.semantic import instrumental_tokens, load_semantic, vocal_tokens
from hafm_jax.audio.synthesis import song_seed, synthesize_song
from hafm_jax.metrics.vocal_use import vocal_use
from hafm_jax.pretrained import DEMO, load_model

SONGS, SECONDS, BASE_SEED, RATE_HZ = 6, 10.24, 77, 24_000  # another base seed than the recipe's and the example's


@pytest.fixture(scope="module")
def songs():
    return [synthesize_song(song_seed("test", i, BASE_SEED), SECONDS, RATE_HZ) for i in range(SONGS)]


@pytest.fixture(scope="module")
def codec():
    return load_codec(DEMO / "codec")


@pytest.fixture(scope="module")
def token_records(songs, codec):
    tokenizer = load_semantic(DEMO / "semantic")
    return [
        {
            "vocal_semantic": vocal_tokens(tokenizer, song.vocals[None], RATE_HZ, seed=i),
            "instrumental_semantic": instrumental_tokens(tokenizer, song.instrumental[None], RATE_HZ),
            "acoustic": codec.encode(pad_to_cells(song.instrumental[None], RATE_HZ))[0],
        }
        for i, song in enumerate(songs)
    ]


@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_another_songs_vocal_fits_worse(stage, token_records):
    weights = load_model(str(DEMO)).stages[stage]
    use = vocal_use(weights.config, weights.params, token_records)
    uniform = np.log(weights.config.streams.target.vocabulary)
    assert use.right.mean() < 0.8 * uniform
    assert use.margin > 3 * use.standard_error > 0


def test_more_codebooks_copy_better(songs, codec):
    clips = [song.instrumental for song in songs]
    figures, codes_in_use = measure(codec, clips, (4, 8))
    four, eight = ({name: np.mean(values) for name, values in figures[books].items()} for books in (4, 8))
    assert eight["si_sdr_db"] > four["si_sdr_db"] > 0
    assert eight["spectral_distance_db"] < four["spectral_distance_db"] < 6
    assert min(codes_in_use) > 256  # of 1024, in a minute of music
