"""The memory that generation needs, by arithmetic, so that it can be checked before the work; and the memory left."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hafm_jax.audio.files import resampled_length
from hafm_jax.common.free_memory import host_free_bytes
from hafm_jax.model.attention import BLOCK_TOKENS
from hafm_jax.model.config import StageConfig, num_parameters
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ


def weights_bytes(config: StageConfig) -> int:
    return num_parameters(config) * jnp.dtype(config.compute_dtype).itemsize


def window_bytes(config: StageConfig, rows: int, packed: bool) -> int:
    """The most memory that a window of a stage needs besides the weights (`packed` as in `Weights`): the KV cache of
    `rows`, and the activations of its prefill."""
    tokens = config.stage.num_tokens(config.window_cells)
    cache = 2 * config.num_layers * rows * tokens * config.d_model * jnp.dtype(config.compute_dtype).itemsize
    # The prefill computes row by row, in float32 at most: the row's cache before it is copied to its place, the widest
    # activations, and for a block of queries the scores, XLA's copies of them, and each segment's biases in twice the
    # length.
    row = cache // rows + 4 * tokens * (2 * config.d_model + max(3 * config.d_model, 2 * config.ffn_dim))
    block = 4 * config.num_heads * BLOCK_TOKENS * tokens * (3 + 2 * len(config.stage.streams))
    copies = 0 if packed else cache + weights_bytes(config)  # the cache grows by copies; XLA may turn the weights
    return cache + row + block + copies


def audio_bytes(vocal_shape: tuple[int, int], sample_rate_hz: int, num_samples: int) -> int:
    """The most host memory that audio needs: the vocal [C, S], the instrumentals, and the arrays of mixing
    them at the vocal's rate."""
    channels, samples = vocal_shape
    mixed = resampled_length(samples, sample_rate_hz, CODEC_SAMPLE_RATE_HZ)
    # In float32 numbers. The vocal stays. Mixing, at its rate, holds the stem and the mix in its channels, beside the
    # vocal without its DC offset or, for a lossy format's rate, one of them resampled, twice; and the band, resampled
    # and padded. Bands for a voice in another tuning are resampled one by one.
    mixing = 4 * channels * samples + 2 * samples
    retuning = 4 * mixed
    return 4 * (channels * samples + max(mixing, retuning) + num_samples * mixed)


def available_bytes() -> int | None:
    """Free memory of the device; None where it is unknown."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return host_free_bytes()
