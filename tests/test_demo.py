"""The shipped model on songs that it was not trained on: synthesised here, of the split `test`."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import soundfile
from helpers import FULL_COMPILATION, ROOT, vocal_use

from hafm_jax import sample
from hafm_jax.audio.files import to_mono
from hafm_jax.common import cache
from hafm_jax.model.pretrained import DEMO, load_model
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ
from hafm_jax.synthesis.song import song_seed, synthesize_song
from hafm_jax.tokenizers import codecs
from hafm_jax.tokenizers.semantic import instrumental_tokens, load_semantic, vocal_tokens

NUM_SONGS = 32  # the coarse stage's margin is small: so many songs are needed to distinguish it from chance
SECONDS = 10.0  # one window of the semantic stage, five of the coarse stage
EXAMPLE = ROOT / "examples" / "vocal.wav"


@pytest.fixture(scope="module")
def songs():
    return [synthesize_song(song_seed("test", i, base_seed=0), SECONDS) for i in range(NUM_SONGS)]


@pytest.fixture(scope="module")
def codec():
    return codecs.load_codec(DEMO / "codec")


@pytest.fixture(scope="module")
def records(songs, codec):
    semantic = load_semantic(DEMO / "semantic")
    return [
        {
            "vocal_semantic": vocal_tokens(semantic, song.vocals, CODEC_SAMPLE_RATE_HZ),
            "instrumental_semantic": instrumental_tokens(semantic, song.instrumental, CODEC_SAMPLE_RATE_HZ),
            "acoustic": codec.encode(song.instrumental[None])[0],
        }
        for song in songs
    ]


def test_it_is_small_and_has_a_card():
    assert sum(f.stat().st_size for f in DEMO.rglob("*") if f.is_file()) <= 16e6
    card = (DEMO / "README.md").read_text()
    assert all(word in card for word in ("license: apache-2.0", "Trained on", "seed", "minutes", "validation loss"))


@pytest.mark.parametrize(("name", "chance_share"), [("semantic", 0.25), ("coarse", 0.5)])
def test_another_songs_vocal_makes_the_band_less_likely(records, name, chance_share, monkeypatch):
    fast = jax.jit(vocal_use._window_loss.__wrapped__, static_argnums=0, compiler_options=FULL_COMPILATION)
    monkeypatch.setattr(vocal_use, "_window_loss", fast)
    stage = load_model(str(DEMO)).stages[name]
    use = vocal_use.vocal_use(stage.config, stage.params, records)
    assert use.margin > 2 * use.standard_error > 0
    assert use.right.mean() < chance_share * np.log(stage.config.stage.target.vocabulary)


def test_the_codec_copies_songs_and_eight_books_beat_four(songs, codec):
    figures, codes_in_use = codecs.measure(codec, [song.instrumental for song in songs[:12]], (4, 8))
    assert np.mean(figures[8]) < np.mean(figures[4]) < 4  # dB; another song in its place has three times as much
    assert min(codes_in_use) > codec.vocabulary // 4


def test_the_example_gets_a_band_that_is_audible_and_does_not_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "use_compilation_cache", lambda: None)
    sample.main(["--vocal", str(EXAMPLE), "--seconds", "3", "--out", str(tmp_path / "mix.wav")])
    mix, instrumental = (soundfile.read(tmp_path / f"mix{part}.wav")[0].T for part in ("", "_instrumental"))
    assert to_mono(mix).shape == to_mono(instrumental).shape == (3 * CODEC_SAMPLE_RATE_HZ,)
    assert 10 * np.log10(np.mean(np.square(instrumental))) > -40  # dBFS; its training songs are near -20
    assert np.abs(mix).max() < 0.999
