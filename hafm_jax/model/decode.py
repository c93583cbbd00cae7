"""One stage's sampler: prefill, then one compiled loop over tokens. Arrays in, arrays out.

A window has one static shape: its conditions and its target [B, F, K], of which the first `start` frames are given
and the frames up to `stop` are generated. `start` and `stop` are traced, so a stage compiles once for songs of any
length. The window is filled chunk by chunk. After each chunk progress is reported and the KV cache may grow, so that a
step reads the filled part of the cache, not the window's whole length.

Guidance adds the batch once more with NULL conditions, no-history guidance once more without a past; disabled terms
cost nothing.

Axes: B batch, R rows (B times `Rows.num`), F frames, K codebooks, T cached tokens, D model, H heads, E head
width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from hafm_jax.model import transformer
from hafm_jax.model.attention import causal_attention
from hafm_jax.model.config import StageConfig
from hafm_jax.model.sampling import Sampling, choose, combine
from hafm_jax.model.weights import Weights

CHUNK_CELLS = 25  # ours: a second of music between two reports of progress


Cache = list[tuple[jax.Array, jax.Array]]  # keys and values [R, H, T, E] of each layer, as `Weights.stored`


@partial(jax.jit, static_argnames=("config", "rows", "capacity"))
def _prefill(config, weights, conditions, given, rows, capacity):
    """Keys and values [R, H, capacity, E] of each layer, filled for the conditions and the first frames of the target,
    `given` [B, F, K]. Row by row: one row is enough work for the device, and cannot depend on the others this way."""
    batch = given.shape[0]
    nulls = transformer.null_conditions(config, conditions, jnp.ones(batch, bool))
    groups = [conditions] + [nulls] * rows.guided + [conditions] * rows.no_history
    conditions = [jnp.concatenate(stream) for stream in zip(*groups, strict=True)]
    given = jnp.tile(given, (rows.num, 1, 1))
    lacks_history = jnp.arange(rows.num * batch) >= (rows.num - rows.no_history) * batch
    embedder = transformer.embedder(config, weights.embedder)
    prefix = _prefix_tokens(config)
    tokens = prefix + given.shape[1] * given.shape[2]
    bias = embedder.blocked_bias(config, config.window_cells, tokens)
    room = ((0, 0), (0, capacity - tokens), (0, 0))

    def row(inputs):
        conditions, given, lacks_history = jax.tree.map(lambda x: x[None], inputs)
        x = embedder.embed(config, conditions, given)[:, :tokens]  # with nothing given, BOS is the first step's
        if rows.no_history:
            x = x.at[:, prefix:].set(jnp.where(lacks_history[:, None, None], embedder.embed_bos(), x[:, prefix:]))
        cache = []
        for layer in weights.blocks:
            block = transformer.block(config, layer)
            q, k, v = block.qkv(x)
            cache.append(tuple(jnp.pad(weights.stored(x[0]), room) for x in (k, v)))
            x = block.attention_out_and_ffn(x, causal_attention(q, k, v, bias))
        return cache

    return jax.lax.map(row, (conditions, given, lacks_history))


def stepper(config: StageConfig, weights: Weights, capacity: int) -> Callable:
    """One step of cached decoding: (x [R, D] the input that predicts target token `position`, cache, position)
    -> (float32 [R, V] logits of that token, cache)."""
    embedder = transformer.embedder(config, weights.embedder)
    blocks = [transformer.block(config, layer) for layer in weights.blocks]
    bias = embedder.bias(config, config.window_cells)
    own = bias.segments[-1]
    prefix = _prefix_tokens(config)
    own_prefix = own.length - config.window_cells * config.stage.target.tokens_per_cell  # its part in that segment
    own_length = capacity - sum(s.length for s in bias.segments[:-1])

    def step(x: jax.Array, cache: Cache, position: jax.Array) -> tuple[jax.Array, Cache]:
        row = bias.row(own, own_prefix + position, own_length)[:, None]
        x, updated = x[:, None], []
        for block, (keys_cache, values_cache) in zip(blocks, cache, strict=True):
            q, k, v = block.qkv(x)
            at = (0, 0, prefix + position, 0)
            keys_cache = jax.lax.dynamic_update_slice(keys_cache, weights.stored(k), at)
            values_cache = jax.lax.dynamic_update_slice(values_cache, weights.stored(v), at)
            updated.append((keys_cache, values_cache))
            attended = weights.attend(q, keys_cache, values_cache, row, prefix + position + 1)
            x = block.attention_out_and_ffn(x, attended)
        codebook = position % config.stage.target.codebooks
        return embedder.token_logits(x[:, 0], codebook), updated

    return step


@partial(jax.jit, static_argnames=("config", "rows"), donate_argnames=("cache", "target"))
def _extend(config, weights, cache, target, start, stop, keys, first_token, sampling, rows):
    """Generate frames start..stop of `target` [B, F, K]; returns it and the cache, both updated in place."""
    embedder = transformer.embedder(config, weights.embedder)
    step = stepper(config, weights, _length(cache))
    codebooks = target.shape[2]

    def embed(tokens, codebook):  # [B] -> [R, D]
        x = embedder.embed_target(tokens, codebook)
        past = [x] * (rows.num - rows.no_history)
        return jnp.concatenate(past + [jnp.broadcast_to(embedder.embed_bos(), x.shape)] * rows.no_history)

    # One loop over tokens with the codebook traced: an unrolled frame would compile each codebook by itself.
    def token(position, carry):
        x, cache, target = carry
        frame, codebook = position // codebooks, position % codebooks
        logits, cache = step(x, cache, position)
        draw = jax.vmap(jax.random.fold_in, (0, None))(keys, first_token + position)
        tokens = choose(combine(logits, rows, sampling, codebook), draw, sampling)
        return embed(tokens, codebook), cache, target.at[:, frame, codebook].set(tokens)

    before = embed(target[:, jnp.maximum(start, 1) - 1, -1], codebooks - 1)
    x = jnp.where(start > 0, before, embedder.embed_bos())
    _, cache, target = jax.lax.fori_loop(start * codebooks, stop * codebooks, token, (x, cache, target))
    return cache, target


def _prefix_tokens(config: StageConfig) -> int:
    """Tokens of a window's conditions."""
    return config.window_cells * sum(s.tokens_per_cell for s in config.stage.conditions)


def _chunks(config: StageConfig, start: int, stop: int) -> list[tuple[int, int]]:
    """Frames start..stop in chunks of CHUNK_CELLS: the (start, stop) of each."""
    frames = CHUNK_CELLS * config.stage.target.frames_per_cell
    return [(first, min(first + frames, stop)) for first in range(start, stop, frames)]


def _given_frames(config: StageConfig, start: int) -> int:
    """The frames of a window that are prefilled where `start` are given: as many, rounded up to thirds of the window,
    so that few shapes are compiled."""
    cells = config.window_cells
    third = -(-cells // 3) * config.stage.target.frames_per_cell
    return min(-(-start // third) * third, cells * config.stage.target.frames_per_cell)


def _capacity(config: StageConfig, weights: Weights, stop: int) -> int:
    """Tokens of the cache while frames before `stop` are generated."""
    filled = _prefix_tokens(config) + stop * config.stage.target.codebooks
    return weights.capacity(filled, config.stage.num_tokens(config.window_cells))


def compile_window(
    config: StageConfig, weights: Weights, batch_size: int, sampling: Sampling, given_cells: set[int]
) -> None:
    """Compile everything that `generate_window` runs for windows of `batch_size` examples with any number of cells in
    `given_cells` given. Generates nothing."""
    shapes = [(batch_size, config.window_cells * s.frames_per_cell, s.codebooks) for s in config.stage.streams]
    *conditions, target = (jnp.zeros(shape, jnp.int32) for shape in shapes)
    keys = jax.random.split(jax.random.key(0), batch_size)
    capacities = set()
    for cells in sorted(given_cells, reverse=True):  # the shortest cache comes last and is then grown
        start = cells * config.stage.target.frames_per_cell
        given, cache = target[:, : _given_frames(config, start)], None
        chunks = _chunks(config, start, target.shape[1])
        first = _capacity(config, weights, max(chunks[0][1], given.shape[1]))
        cache = _prefill(config, weights, conditions, given, sampling.rows, first)
        capacities |= {max(first, _capacity(config, weights, stop)) for _, stop in chunks}
    for capacity in sorted(capacities):
        cache = _grown(cache, capacity)
        cache, target = _extend(config, weights, cache, target, 0, 0, keys, 0, sampling, sampling.rows)


def _length(cache: Cache) -> int:
    return cache[0][0].shape[2]


def _grown(cache: Cache, capacity: int) -> Cache:
    room = ((0, 0), (0, 0), (0, capacity - _length(cache)), (0, 0))
    return jax.tree.map(lambda x: jnp.pad(x, room), cache) if room[2][1] else cache


def generate_window(
    config: StageConfig,
    weights: Weights,
    conditions: Sequence[jax.Array],
    target: jax.Array,
    start: int,
    stop: int,
    keys: jax.Array,
    first_frame: int,
    sampling: Sampling,
    progress: Callable[[int], None] = lambda frames: None,
) -> jax.Array:
    """Fill frames start..stop of one window.

    conditions: int32 [B, F_s, K_s] a stream; target: int32 [B, F, K], known before `start`; keys: [B], one an example;
    first_frame: the window's first frame in the song (a token's randomness depends on its place in the song, not on the
    windows); progress is called with the number of frames just done.
    -> int32 [B, F, K], unchanged from frame `stop` on.
    """
    given = target[:, : _given_frames(config, start)]
    chunks = _chunks(config, start, stop)
    # Frames prefilled past `start` are overwritten step by step, but must fit.
    first = max(chunks[0][1], given.shape[1])
    cache = _prefill(config, weights, conditions, given, sampling.rows, _capacity(config, weights, first))
    target = jnp.array(target)  # a copy: `_extend` overwrites its argument
    for chunk_start, chunk_stop in chunks:
        cache = _grown(cache, max(_length(cache), _capacity(config, weights, chunk_stop)))
        cache, target = _extend(
            config,
            weights,
            cache,
            target,
            chunk_start,
            chunk_stop,
            keys,
            first_frame * target.shape[2],
            sampling,
            sampling.rows,
        )
        target.block_until_ready()
        progress(chunk_stop - chunk_start)
    return target
