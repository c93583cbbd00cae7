"""Training the spectral codec: its codebooks, its batches, and a short run that is interrupted."""

from __future__ import annotations

import json
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_codec import TINY, noise, tiny_params

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import codebooks, codec_training, codecs
from hafm_jax.training.checkpoint import Checkpoints


def train(clips: list[np.ndarray], recipe: codec_training.Recipe, workdir) -> tuple[dict, dict]:
    workdir.mkdir(exist_ok=True)
    with closing(Checkpoints(workdir, keep=1)) as checkpoints:
        return codec_training.train(clips, TINY, recipe, workdir, checkpoints)


def test_kmeans_finds_separate_clusters():
    centres = noise(6, 8, 4, scale=10)
    points = (centres[:, None] + noise(7, 8, 50, 4, scale=0.01)).reshape(-1, 4)
    centroids, counts = codebooks.kmeans(jnp.asarray(points), 64, 10, jax.random.key(0))
    nearest = np.abs(np.asarray(centroids)[None] - centres[:, None]).max(-1).min(1)
    assert nearest.max() < 0.05
    assert int(counts.sum()) == len(points)


def test_codes_follow_their_residuals_and_dead_ones_restart():
    books = {
        "codebooks": jnp.zeros((1, 3, 2)),
        "counts": jnp.asarray([[4.0, 4.0, 0.0]]),
        "sums": jnp.asarray([[[4.0, 0.0], [0.0, 4.0], [0.0, 0.0]]]),
        "hits": jnp.zeros((1, 3), bool),
    }
    codes = jnp.zeros((8, 1), jnp.int32)
    residuals = jnp.full((8, 1, 2), 3.0)
    follow_latents = jax.jit(codebooks.follow_latents)  # as in the compiled step
    moved = follow_latents(books, codes, residuals, jax.random.key(0), jnp.asarray(True))
    decay = codebooks.EMA_DECAY
    count = decay * 4 + (1 - decay) * 8
    expected = (decay * np.array([4.0, 0.0]) + (1 - decay) * 8 * 3.0) / count
    np.testing.assert_allclose(moved["codebooks"][0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(moved["codebooks"][0, 1], [0, 1], atol=1e-6)  # unused: stays
    np.testing.assert_allclose(moved["codebooks"][0, 2], [3, 3], rtol=1e-6)  # dead: a residual of this batch
    assert moved["hits"][0].tolist() == [True, False, False]
    kept = follow_latents(books, codes, residuals, jax.random.key(0), jnp.asarray(False))
    np.testing.assert_allclose(kept["codebooks"][0, 2], [0, 0])


def test_batches_are_a_function_of_seed_and_step():
    clips = [np.round(noise(8, 5000) * 32767).astype(np.int16), np.ones(100, np.int16)]
    recipe = codec_training.Recipe(batch_size=4)
    first, again, other = (codec_training.make_batch(clips, recipe, 800, step) for step in (3, 3, 4))
    assert first.shape == (4, 800) and first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_short_training_learns_uses_codes_and_resumes_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(codec_training, "LOG_EVERY_STEPS", 20)
    monkeypatch.setattr(codec_training, "CHECKPOINT_EVERY_STEPS", 40)
    rng = np.random.default_rng(0)
    time_s = np.arange(6000 * 4) / 6000
    clips = []
    for _ in range(6):
        partials = np.array([1, 0.7, 0.5, 0.3]) @ np.sin(2 * np.pi * rng.uniform(80, 900, (4, 1)) * time_s)
        clips.append(np.round(partials * 0.2 * 32767 * np.sin(np.pi * 3 * time_s) ** 2).astype(np.int16))
    recipe = codec_training.Recipe(steps=160, batch_size=4, seconds=0.4, learning_rate=3e-3)
    params, facts = train(clips, recipe, tmp_path / "whole")
    assert len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()) == 8

    def distance_db(params: dict) -> float:
        audio = [clip.astype(np.float32) / 32767 for clip in clips]
        figures, _ = codecs.measure(codecs.SpectralCodec(TINY, params), audio, (TINY.codebooks,))
        return np.mean(figures[TINY.codebooks])

    assert distance_db(params) < distance_db(tiny_params()) / 2
    assert min(facts["last_logged"]["codes_in_use"]) >= 6  # of 32; six clips sound different
    assert facts["songs"] == 6
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, tiny_params())

    make_batch = codec_training.make_batch
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):  # at step 100
        patch.setattr(codec_training, "make_batch", lambda *a: make_batch(*a) if a[-1] != 100 else 1 / 0)
        train(clips, recipe, tmp_path / "cut")
    resumed, facts = train(clips, recipe, tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, params, resumed)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(20, 161, 20))
    with pytest.raises(InputError, match="was begun with samples"):
        train(clips[:5], recipe, tmp_path / "cut")
