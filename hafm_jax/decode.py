"""One stage's sampler: prefill, then one compiled loop over tokens. Arrays in, arrays out.

A window has one static shape: its conditions and its target [B, F, K], of which the first `start` frames are given
and the frames up to `stop` are generated. `start` and `stop` are traced, so a stage compiles once whatever the song's
length. The window is filled chunk by chunk, which is where progress is reported and where the KV cache grows: a step
reads the filled part of the cache, not the window's whole length.

Guidance runs a second half of the batch with NULL conditions: logits = cond + (w - 1) * (cond - uncond), so that
w = 1 is exactly "off", and then the second half does not run.

Axes: B batch, R rows (B, or 2 B under guidance), F frames, K codebooks, T cached tokens, D model, H heads, E head
width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hafm_jax import model
from hafm_jax.model import Params
from hafm_jax.sizes import StageConfig

CACHE_GROWTH_TOKENS = 1024  # ours: the cache's length is a multiple of it; smaller reads less, compiles more programs
CHUNK_CELLS = 25  # ours: a second of music between two reports of progress


class Sampling(NamedTuple):
    """How a token is drawn. Defaults: the authors' published sampler, except top-p, which is off there.

    temperature 0 is greedy; top_k 0 and top_p 1 are off; guidance_scale 1 is off.
    """

    guidance_scale: float = 3.0
    temperature: float = 0.9
    top_k: int = 250
    top_p: float = 1.0


@partial(jax.jit, static_argnums=0)
def prepare(config: StageConfig, params: Params) -> Params:
    """Parameters as the functions here want them: cast to the compute dtype, a list of layers. Do it once."""
    params = model.compute_params(config, params)
    layers = [jax.tree.map(lambda x: x[i], params["blocks"]) for i in range(config.num_layers)]  # noqa: B023
    return {"ends": params["ends"], "blocks": layers}


def _cumulate(x: jax.Array) -> jax.Array:
    """Cumulated sum of float32 [B, V] along V, in blocks: XLA's own takes seconds to compile on a CPU."""
    width = 32
    blocks = jnp.pad(x, ((0, 0), (0, -x.shape[1] % width))).reshape(x.shape[0], -1, width)
    within = blocks @ jnp.triu(jnp.ones((width, width)))
    before = jnp.triu(jnp.ones((blocks.shape[1],) * 2), k=1)  # [earlier block, block]
    return (within + jnp.einsum("be,eg->bg", within[..., -1], before)[..., None]).reshape(x.shape[0], -1)[
        :, : x.shape[1]
    ]


def choose(logits: jax.Array, keys: jax.Array, sampling: Sampling) -> jax.Array:
    """Draw one token a row: logits float32 [B, V], keys [B] -> int32 [B].

    Temperature first, then top-k, then top-p over what top-k left. Of equal logits the lower id counts as likelier.
    The draw inverts the cumulated probabilities of the sorted tokens: one random number a row, and little to compile.
    """
    vocabulary = logits.shape[-1]
    scaled = logits / jnp.where(sampling.temperature > 0, sampling.temperature, 1.0)
    falling, ids = jax.lax.top_k(scaled, vocabulary)
    k = jnp.where(sampling.top_k > 0, jnp.minimum(sampling.top_k, vocabulary), vocabulary)
    among_k = jnp.arange(vocabulary) < k
    probability = jax.nn.softmax(jnp.where(among_k, falling, -jnp.inf), axis=-1)
    cumulated = _cumulate(probability)
    likelier = cumulated - probability  # the mass of the tokens before it
    kept = among_k & ((likelier < sampling.top_p) | (sampling.top_p >= 1.0))
    last = jnp.sum(kept, axis=-1, keepdims=True) - 1  # what is kept comes first
    mass = jnp.take_along_axis(cumulated, last, axis=-1)
    uniform = jax.vmap(jax.random.uniform)(keys)[:, None]
    drawn = jnp.minimum(jnp.sum(cumulated <= uniform * mass, axis=-1, keepdims=True), last)
    place = jnp.where(sampling.temperature > 0, drawn, 0)
    return jnp.take_along_axis(ids, place, axis=-1)[:, 0].astype(jnp.int32)


def guide(logits: jax.Array, guided: bool, guidance_scale: jax.Array) -> jax.Array:
    """[R, V] logits of conditioned rows, then unconditioned ones where `guided` -> [B, V]."""
    if not guided:
        return logits
    conditioned, unconditioned = jnp.split(logits, 2)
    return conditioned + (guidance_scale - 1.0) * (conditioned - unconditioned)


@partial(jax.jit, static_argnames=("config", "guided"))
def _prefill(config: StageConfig, params: Params, conditions: Sequence[jax.Array], target: jax.Array, guided: bool):
    """Keys and values [R, H, T, E] of each layer for the whole window; what lies past `start` is overwritten later."""
    if guided:
        nulls = model.null_conditions(config, conditions, jnp.ones(target.shape[0], bool))
        conditions = [jnp.concatenate(pair) for pair in zip(conditions, nulls, strict=True)]
        target = jnp.concatenate([target, target])
    ends = model.ends(config, params)
    blocks = model.query_blocks(ends.bias(config, target.shape[1] // config.streams.target.frames_per_cell))
    x = ends.embed(config, conditions, target)
    cache = []
    for layer in params["blocks"]:
        block = model.block(config, layer)
        q, k, v = block.project(x)
        cache.append((k, v))
        x = block.finish(x, model.causal_attention(q, k, v, blocks))
    return cache


@partial(jax.jit, static_argnames=("config", "guided"), donate_argnames=("cache", "target"))
def _extend(config, params, cache, target, start, stop, keys, first_token, sampling, guided):
    """Generate frames start..stop of `target` [B, F, K]; returns it and the cache, both updated in place."""
    ends = model.ends(config, params)
    blocks = [model.block(config, layer) for layer in params["blocks"]]
    num_frames, codebooks = target.shape[1:]
    num_cells = num_frames // config.streams.target.frames_per_cell
    bias = ends.bias(config, num_cells)
    own = bias.segments[-1]
    cached = cache[0][0].shape[2]
    prefix = config.streams.num_tokens(num_cells) - num_frames * codebooks  # tokens of the conditions
    own_prefix = own.length - num_frames * codebooks  # the part of them in the target's own segment
    own_length = cached - sum(s.length for s in bias.segments[:-1])

    def step(x, cache, position):  # x [R, D] is the input that predicts target token `position`
        row = bias.row(own, own_prefix + position, own_length)[:, None]
        x, updated = x[:, None], []
        for block, (keys_cache, values_cache) in zip(blocks, cache, strict=True):
            q, k, v = block.project(x)
            at = (0, 0, prefix + position, 0)
            keys_cache = jax.lax.dynamic_update_slice(keys_cache, k, at)
            values_cache = jax.lax.dynamic_update_slice(values_cache, v, at)
            updated.append((keys_cache, values_cache))
            x = block.finish(x, model.attend(q, keys_cache, values_cache, row))
        return x[:, 0], updated

    def embed(tokens, codebook):  # [B] -> [R, D]
        x = ends.embed_target(tokens, codebook)
        return jnp.concatenate([x, x]) if guided else x

    # One loop over tokens with the codebook traced: unrolling a frame's codebooks compiles each of them anew.
    def token(position, carry):
        x, cache, target = carry
        frame, codebook = position // codebooks, position % codebooks
        x, cache = step(x, cache, position)
        draw = jax.vmap(jax.random.fold_in, (0, None))(keys, first_token + position)
        tokens = choose(guide(ends.token_logits(x, codebook), guided, sampling.guidance_scale), draw, sampling)
        return embed(tokens, codebook), cache, target.at[:, frame, codebook].set(tokens)

    before = embed(target[:, jnp.maximum(start, 1) - 1, -1], codebooks - 1)
    x = jnp.where(start > 0, before, ends.embed_bos())
    _, cache, target = jax.lax.fori_loop(start * codebooks, stop * codebooks, token, (x, cache, target))
    return cache, target


def _chunks(config: StageConfig, start: int, stop: int) -> list[tuple[int, int]]:
    """Frames start..stop in chunks of CHUNK_CELLS: the (start, stop) of each."""
    frames = CHUNK_CELLS * config.streams.target.frames_per_cell
    return [(first, min(first + frames, stop)) for first in range(start, stop, frames)]


def _cached_tokens(config: StageConfig, stop: int) -> int:
    """How long the cache is while frames before `stop` are generated: the filled part, rounded up."""
    cells, target = config.window_cells, config.streams.target
    total = config.streams.num_tokens(cells)
    filled = total - (cells * target.frames_per_cell - stop) * target.codebooks
    return min(total, -(-filled // CACHE_GROWTH_TOKENS) * CACHE_GROWTH_TOKENS)


def compile_window(config: StageConfig, params: Params, batch_size: int, sampling: Sampling) -> None:
    """Compile what `generate_window` runs for whole windows of `batch_size` examples, generating nothing."""
    guided = sampling.guidance_scale != 1.0
    shapes = [(batch_size, config.window_cells * s.frames_per_cell, s.codebooks) for s in config.streams.streams]
    *conditions, target = (jnp.zeros(shape, jnp.int32) for shape in shapes)
    cache = _prefill(config, params, conditions, target, guided)
    keys = jax.random.split(jax.random.key(0), batch_size)
    lengths = {_cached_tokens(config, stop) for _, stop in _chunks(config, 0, target.shape[1])}
    for cached in sorted(lengths, reverse=True):
        cache = jax.tree.map(lambda x: x[:, :, :cached], cache)  # noqa: B023
        cache, target = _extend(config, params, cache, target, 0, 0, keys, 0, sampling, guided)


def generate_window(
    config: StageConfig,
    params: Params,
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

    params: from `prepare`; conditions: int32 [B, F_s, K_s] a stream; target: int32 [B, F, K], known before `start`;
    keys: [B], one an example; first_frame: the window's first frame in the song (a token's randomness depends on its
    place in the song, not on the windows); progress is called with the number of frames just done.
    -> int32 [B, F, K], the frames from `stop` on as they were.
    """
    guided = sampling.guidance_scale != 1.0
    codebooks = target.shape[2]

    full = _prefill(config, params, conditions, target, guided)
    cache, cached = None, 0
    target = jnp.array(target)  # a copy: `_extend` overwrites its argument
    for chunk_start, chunk_stop in _chunks(config, start, stop):
        needed = _cached_tokens(config, chunk_stop)
        if cache is None:
            cache = jax.tree.map(lambda x: x[:, :, :needed], full)  # noqa: B023
            del full
        elif needed > cached:
            grow = ((0, 0), (0, 0), (0, needed - cached), (0, 0))
            cache = jax.tree.map(lambda x: jnp.pad(x, grow), cache)  # noqa: B023
        cached = needed
        cache, target = _extend(
            config, params, cache, target, chunk_start, chunk_stop, keys, first_frame * codebooks, sampling, guided
        )
        target.block_until_ready()
        progress(chunk_stop - chunk_start)
    return target
