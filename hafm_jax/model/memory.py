"""The memory that generation needs, by arithmetic, so that it can be checked before the work; and the memory left."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from hafm_jax.audio.files import resampled_length
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
    """The most host memory that audio needs: the vocal [C, S], the instrumentals, and the arrays of mixing them."""
    channels, samples = vocal_shape
    mixed = resampled_length(samples, sample_rate_hz, CODEC_SAMPLE_RATE_HZ)
    # In float32 numbers. Resampling holds the vocal and its result twice each; tokenizing, before it, holds less.
    # Mixing holds the vocal, with and without its DC, both results of the sample before, and both of this one. Bands
    # for a voice in another tuning are resampled one by one.
    resampling = 2 * channels * (samples + mixed)
    mixing = 6 * channels * mixed
    retuning = (num_samples + 4) * mixed
    return 4 * (max(resampling, mixing, retuning) + num_samples * mixed)


def available_bytes() -> int | None:
    """Free memory of the device; None where it is unknown."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    found = []
    info = Path("/proc/meminfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        found.append(int(text) - int(used.read_text()))
    return min(found, default=None)
