"""What generation takes of the device's memory, and what the device has left.

Arithmetic, so that it is known before.
"""

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
    """What a window of a stage takes at most, beside the weights (`packed` as in `decode.Weights`): the KV cache of so
    many rows, and the activations of its prefill."""
    tokens = config.stage.num_tokens(config.window_cells)
    cache = 2 * config.num_layers * rows * tokens * config.d_model * jnp.dtype(config.compute_dtype).itemsize
    # The prefill goes row by row, float32 at most: the row's cache before it goes to its place, the widest activations,
    # and of a block of queries the scores, what XLA keeps beside them, and each segment's biases in twice the length.
    row = cache // rows + 4 * tokens * (2 * config.d_model + max(3 * config.d_model, 2 * config.ffn_dim))
    block = 4 * config.num_heads * BLOCK_TOKENS * tokens * (3 + 2 * len(config.stage.streams))
    copies = 0 if packed else cache + weights_bytes(config)  # the cache grows by copies; XLA may turn the weights
    return cache + row + block + copies


def audio_bytes(vocal_shape: tuple[int, int], sample_rate_hz: int, num_samples: int) -> int:
    """What audio takes of the host's memory at most: the vocal [C, S], the instrumentals, and what mixes them."""
    channels, samples = vocal_shape
    mixed = resampled_length(samples, sample_rate_hz, CODEC_SAMPLE_RATE_HZ)
    # In float32 numbers. Resampling holds the vocal and its result twice each; tokenizing, earlier, holds less. Mixing
    # holds the vocal, the two results of the sample before, and float64 for loudness or four arrays of the mix's size.
    resampling = 2 * channels * (samples + mixed)
    mixing = (3 * channels + max(6, 4 * channels)) * mixed
    return 4 * (max(resampling, mixing) + num_samples * mixed)


def available_bytes() -> int | None:
    """Free memory of the device; None where it cannot be told."""
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
