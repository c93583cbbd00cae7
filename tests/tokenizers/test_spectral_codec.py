"""The spectral codec's network and training: spectra against references, the quantiser, locality, a short training."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import stft
from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import codecs, spectral_codec

TINY = spectral_codec.SpectralConfig(
    window=320,
    hop=80,
    sample_rate_hz=6000,
    wide_channels=64,
    encoder_channels=24,
    encoder_blocks=1,
    decoder_channels=24,
    decoder_blocks=2,
    latent=8,
    codebooks=4,
    vocabulary=32,
)

# Compiled as the product compiles them: op by op, every test would compile hundreds of tiny programs.
encode_latents = jax.jit(spectral_codec.encode_latents, static_argnums=0)
decode_log_magnitudes = jax.jit(spectral_codec.decode_log_magnitudes, static_argnums=0)
quantize = jax.jit(spectral_codec.quantize)
spectral_distance_db = jax.jit(stft.spectral_distance_db, static_argnums=2)


def noise(seed: int, *shape: int, scale: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@functools.cache
def tiny_params() -> dict:
    return jax.jit(spectral_codec.init, static_argnums=0)(TINY, jax.random.key(0))


@functools.cache
def training():
    """The training script as a module; `tokenize` is no package, since the standard library has one of that name."""
    path = ROOT / "tokenize" / "train_codec.py"
    spec = importlib.util.spec_from_file_location("train_codec_script", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_stft_matches_scipy():
    size, hop, audio = 256, 64, noise(0, 1, 64 * 20)
    side = (size - hop) // 2
    padded = np.pad(audio[0], side)
    _, _, expected = scipy.signal.stft(
        padded, window="hann", nperseg=size, noverlap=size - hop, boundary=None, padded=False, scaling="spectrum"
    )
    found = stft.stft(jnp.asarray(audio), size, hop)[0]  # ours is one-sided in amplitude: twice scipy's
    np.testing.assert_allclose(found, 2 * expected.T, atol=2e-6)


def test_a_sine_peaks_at_its_amplitude():
    audio = 0.5 * np.sin(2 * np.pi * 1500 / 24000 * np.arange(320 * 30)).astype(np.float32)
    magnitude = np.abs(stft.stft(audio[None], 1280, 320))[0, 10:20]
    assert magnitude.argmax(axis=1).tolist() == [80] * 10
    np.testing.assert_allclose(magnitude.max(axis=1), 0.5, rtol=1e-4)


def test_no_mel_band_is_empty():
    for size, bands in stft.DISTANCE_SCALES.items():
        filters = stft.mel_filters(size, bands, 24000)
        assert filters.shape == (size // 2 + 1, bands)
        assert (filters.sum(axis=0) > 0.5).all()


def test_spectral_distance_is_the_gain_and_blind_to_polarity():
    audio = noise(2, 1, 24000)
    assert float(spectral_distance_db(audio, audio, 24000)[0]) == 0
    assert float(spectral_distance_db(-audio, audio, 24000)[0]) < 1e-4
    assert float(spectral_distance_db(audio / 2, audio, 24000)[0]) == pytest.approx(6.02, abs=0.05)


@settings(max_examples=10)
@given(seed=st.integers(0, 999), books=st.integers(1, 4))
def test_quantiser_matches_a_loop(seed, books):
    codebooks, latents = noise(seed, books, 16, 5, scale=1), noise(seed + 1, 2, 3, 5, scale=1)
    codes, chosen, residuals = quantize(codebooks, latents)
    for b in range(2):
        for f in range(3):
            left = latents[b, f].copy()
            for k in range(books):
                nearest = min(range(16), key=lambda v: np.square(left - codebooks[k, v]).sum())
                assert int(codes[b, f, k]) == nearest
                np.testing.assert_allclose(residuals[b, f, k], left, atol=1e-5)
                left -= codebooks[k, nearest]
    np.testing.assert_allclose(spectral_codec.dequantize(codebooks, codes), chosen.sum(2), atol=1e-5)


def test_default_codec_fits_its_budget_and_the_token_contract():
    config = spectral_codec.SpectralConfig()
    assert spectral_codec.num_params(config) <= 3_500_000  # 7 MB in float16
    assert (config.hop, config.frame_rate_hz, config.codebooks, config.vocabulary) == (320, 75, 8, 1024)


def test_latents_have_mean_0_and_variance_1():
    latents = encode_latents(TINY, tiny_params(), noise(3, 2, 80 * 10))
    np.testing.assert_allclose(latents.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(latents.var(-1), 1, atol=1e-2)


def test_encoder_sees_no_further_than_its_halo():
    frames, at = 30, 15
    audio = noise(4, 1, frames * 80)
    other = audio.copy()
    other[:, at * 80 : (at + 1) * 80] *= -0.5
    before, after = (encode_latents(TINY, tiny_params(), x)[0] for x in (audio, other))
    touched = np.abs(after - before).max(1) > 0
    reach = TINY.encoder_halo + 2  # and the frames whose STFT windows hold the changed samples
    assert touched[at - TINY.encoder_halo : at + TINY.encoder_halo + 1].all()
    assert not touched[: at - reach].any() and not touched[at + reach + 1 :].any()


def test_decoder_sees_no_further_than_its_halo():
    frames, at = 40, 20
    latents = noise(5, 1, frames, 8, scale=1)
    other = latents.copy()
    other[:, at] *= -0.5
    before, after = (decode_log_magnitudes(TINY, tiny_params(), x)[0] for x in (latents, other))
    touched = np.abs(after - before).max(1) > 0
    reach = slice(at - TINY.decoder_halo, at + TINY.decoder_halo + 1)
    assert touched[reach].all() and touched.sum() == reach.stop - reach.start


@settings(max_examples=10)
@given(level=st.floats(1e-4, 1.0), seed=st.integers(0, 99))
def test_magnitudes_of_their_logs(level, seed):
    audio = noise(seed, 1, 80 * 12, scale=level)
    logs = jax.jit(spectral_codec.log_magnitudes, static_argnums=0)(TINY, audio)
    expected = np.abs(stft.stft(audio, TINY.window, TINY.hop))
    np.testing.assert_allclose(spectral_codec.magnitudes_of(logs), expected, atol=1e-6, rtol=1e-3)


def test_kmeans_finds_separate_clusters():
    centres = noise(6, 8, 4, scale=10)
    points = (centres[:, None] + noise(7, 8, 50, 4, scale=0.01)).reshape(-1, 4)
    centroids, counts = training().kmeans(jnp.asarray(points), 64, 10, jax.random.key(0))
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
    moved = training().follow_latents(books, codes, residuals, jax.random.key(0), jnp.asarray(True))
    decay = training().EMA_DECAY
    count = decay * 4 + (1 - decay) * 8
    expected = (decay * np.array([4.0, 0.0]) + (1 - decay) * 8 * 3.0) / count
    np.testing.assert_allclose(moved["codebooks"][0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(moved["codebooks"][0, 1], [0, 1], atol=1e-6)  # unused: stays
    np.testing.assert_allclose(moved["codebooks"][0, 2], [3, 3], rtol=1e-6)  # dead: a residual of this batch
    assert moved["hits"][0].tolist() == [True, False, False]
    kept = training().follow_latents(books, codes, residuals, jax.random.key(0), jnp.asarray(False))
    np.testing.assert_allclose(kept["codebooks"][0, 2], [0, 0])


def test_batches_are_a_function_of_seed_and_step():
    clips = [np.round(noise(8, 5000) * 32767).astype(np.int16), np.ones(100, np.int16)]
    recipe = training().Recipe(batch_size=4)
    first, again = (training().make_batch(clips, recipe, 800, 3) for _ in range(2))
    assert first.shape == (4, 800) and first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, training().make_batch(clips, recipe, 800, 4))


@pytest.mark.slow
def test_short_training_learns_uses_codes_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(training(), "LOG_EVERY_STEPS", 20)
    monkeypatch.setattr(training(), "CHECKPOINT_EVERY_STEPS", 40)
    rng = np.random.default_rng(0)
    time_s = np.arange(6000 * 4) / 6000
    clips = []
    for _ in range(6):
        partials = [
            a * np.sin(2 * np.pi * f * time_s) for f, a in zip(rng.uniform(80, 900, 4), (1, 0.7, 0.5, 0.3), strict=True)
        ]
        clips.append(np.round(sum(partials) * 0.2 * 32767 * np.sin(np.pi * 3 * time_s) ** 2).astype(np.int16))
    recipe = training().Recipe(steps=160, batch_size=4, seconds=0.4, learning_rate=3e-3)
    params, facts = training().train(clips, TINY, recipe, tmp_path / "whole")
    assert len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()) == 8

    def distance_db(params: dict) -> float:
        audio = [clip.astype(np.float32) / 32767 for clip in clips]
        figures, _ = codecs.measure(codecs.SpectralCodec(TINY, params), audio, (TINY.codebooks,))
        return np.mean(figures[TINY.codebooks])

    assert distance_db(params) < distance_db(tiny_params()) / 2
    assert min(facts["last_logged"]["codes_in_use"]) >= 6  # of 32; six clips sound different
    assert facts["songs"] == 6
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, tiny_params())

    class Stopped(Exception):
        pass

    make_batch = training().make_batch

    def stop_at_100(clips, recipe, samples, step):
        if step == 100:
            raise Stopped
        return make_batch(clips, recipe, samples, step)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(training(), "make_batch", stop_at_100)
        training().train(clips, TINY, recipe, tmp_path / "cut")
    resumed, facts = training().train(clips, TINY, recipe, tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, params, resumed)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(20, 161, 20))
    with pytest.raises(InputError, match="unfinished run"):
        training().train(clips[:5], TINY, recipe, tmp_path / "cut")
