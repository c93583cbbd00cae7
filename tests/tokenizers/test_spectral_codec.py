"""The spectral codec's network: spectra against references, the quantiser, locality."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from helpers.small_codec import TINY, noise, tiny_params
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import stft
from hafm_jax.tokenizers import spectral_codec

# Compiled as the product compiles them: op by op, every test would compile hundreds of tiny programs.
encode_latents = jax.jit(spectral_codec.encode_latents, static_argnums=0)
decode_log_magnitudes = jax.jit(spectral_codec.decode_log_magnitudes, static_argnums=0)
quantize = jax.jit(spectral_codec.quantize)
spectral_distance_db = jax.jit(stft.spectral_distance_db, static_argnums=2)


def test_stft_matches_scipy():
    size, hop, audio = 256, 64, noise(0, 1, 64 * 20)
    padded = np.pad(audio[0], (size - hop) // 2)
    options = {"nperseg": size, "noverlap": size - hop, "boundary": None, "padded": False, "scaling": "spectrum"}
    _, _, expected = scipy.signal.stft(padded, window="hann", **options)
    found = stft.stft(jnp.asarray(audio), size, hop)[0]  # ours is one-sided in amplitude: twice scipy's
    np.testing.assert_allclose(found, 2 * expected.T, atol=2e-6)


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
    assert sum(leaf.size for leaf in jax.tree.leaves(spectral_codec.shapes(config))) <= 3_500_000  # 7 MB in float16
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
