"""A spectral codec that trains in seconds, with random weights."""

from __future__ import annotations

import functools

import jax
import numpy as np

from hafm_jax.tokenizers import spectral_codec

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


def noise(seed: int, *shape: int, scale: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@functools.cache
def tiny_params() -> dict:
    return jax.jit(spectral_codec.init, static_argnums=0)(TINY, jax.random.key(0))
