"""Causal attention over a whole sequence with a learned bias, in memory that grows linearly with its length.

Queries attend in blocks to the keys before their end, so no array has the size of the sequence squared; the backward
pass computes each block's scores again. Blocks run one after another in loops (side by side, the compiler would keep
all their scores at once). A loop covers a few neighbouring blocks that read the same keys, so that little is computed
that the mask hides. The scores of a stage with one condition, two blocks a loop (# read, - computed and masked):

         keys:  condition        target
              |################|##--            |  loop 2, block 0   Its Keys are two: all of the condition,
    queries   |################|####            |          block 1   and the target up to the loop's end.
    of the    |################|######--        |  loop 3, block 0
    target    |################|########        |          block 1   Loops 0 and 1 are the condition's own.

The bias does not have the size of the square either: it depends on the difference of two tokens' times (or places)
alone, and blocks are whole cells apart, so all blocks of a segment read the same rows [Q, W], shifted. Where block n of
a loop reads them:

      condition, twice its length       target, twice its length
    |......[################].........|......[######]............|
           ^ column - n * step               ^ column - n * step

There is no fused kernel: `jax.nn.dot_product_attention`, and cuDNN behind it, take a bias, and give its gradient, as an
array of the square. We have not written one that needs no such array.

Axes: B batch, H heads, Q queries of a block, T keys, E head width, W columns of the shared bias rows, N buckets,
S shards of the batch.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from hafm_jax.model import sharding
from hafm_jax.model.position import PositionBias, segments
from hafm_jax.streams import TICKS_PER_CELL, Stage

BLOCK_TOKENS = 256  # ours: queries of a block, at most
LOOP_BLOCKS = 2  # ours: blocks of a loop, at most
SAVED = ("attended", "log_normaliser")  # names for remat policies: what the backward pass needs besides q, k, v


class Keys(NamedTuple):
    """Keys start..stop of the sequence, all of one segment. For block n of the loop their biases start in column
    `column - n * step` of the rows that the blocks of the queries' segment share."""

    start: int
    stop: int
    column: int
    step: int


class Loop(NamedTuple):
    """`num_blocks` blocks of `block_tokens` queries, from token `start` of the sequence, and the keys that they read.

    Their biases are the first `block_tokens` rows of `BlockedBias.rows[rows]`.
    """

    start: int
    block_tokens: int
    num_blocks: int
    rows: int
    keys: tuple[Keys, ...]


class BlockedBias(NamedTuple):
    """The bias of a sequence: its loops, and for each query segment the rows that its blocks share, [S, H, Q, W]. There
    is a copy for each shard of the batch, so that gradients are summed over the shards once, in the tables."""

    loops: tuple[Loop, ...]
    rows: tuple[jax.Array, ...]


def einsum_float32(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """The product of two operands in the compute dtype, summed and returned in float32."""

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)

    def widened(a: jax.Array, b: jax.Array) -> jax.Array:
        return product(a.astype(jnp.float32), b.astype(jnp.float32))

    if a.dtype == jnp.float32:
        return product(a, b)
    # XLA has no bfloat16 product with a float32 result for every CPU (JAX 0.10: "Unsupported element type").
    return jax.lax.platform_dependent(a, b, cpu=widened, default=product)


def dense_attention(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    """Attention by its definition: scaled q [B, H, Q, E], k and v [B, H, T, E], bias [H, Q, T] -> [B, H, Q, E]."""
    scores = einsum_float32("bhqe,bhte->bhqt", q, k) + bias
    return jnp.einsum("bhqt,bhte->bhqe", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)


def _loops(
    stage: Stage, num_cells: int, position: str, num_tokens: int | None = None
) -> tuple[tuple[Loop, ...], list[tuple[int, int, int]]]:
    """The loops over the first `num_tokens` (None: all) of a sequence of `num_cells`, and for each segment the rows
    that its blocks share, as arguments of PositionBias.rows.

    They are the rows of the segment's last block in a sequence of twice the length. Earlier blocks read them further
    right, past the end of the earlier segments.
    """
    parts, twice = (segments(stage, n, position) for n in (num_cells, 2 * num_cells))
    loops, spans, offset = [], [], 0
    num_tokens = sum(s.length for s in parts) if num_tokens is None else num_tokens
    for number, query in enumerate(parts):
        tokens_per_cell = TICKS_PER_CELL // query.spacing
        block = min(max(1, BLOCK_TOKENS // tokens_per_cell) * tokens_per_cell, query.length)
        most = min(LOOP_BLOCKS, query.length // block) * block  # tokens of a loop
        last = (query.length - 1) // block * block
        spans.append((last, last + block, last + most))
        length = max(0, min(query.length, num_tokens - offset))
        whole = length // block * block
        starts = [*range(0, whole, most), *([whole] if whole < length else [])]
        for start, stop in zip(starts, [*starts[1:], length], strict=False):
            tokens = min(block, stop - start)
            keys, key_start, column = [], 0, 0
            for key, wide_key in zip(parts[: number + 1], twice, strict=False):
                shift, step = ((n * query.spacing) // key.spacing for n in (last - start, block))
                key_stop = key_start + (stop if key is query else key.length)
                keys.append(Keys(key_start, key_stop, column + shift, step))
                key_start, column = key_start + key.length, column + wide_key.length
            loops.append(Loop(offset + start, tokens, (stop - start) // tokens, number, tuple(keys)))
        offset += query.length
    return tuple(loops), spans


def num_computed_pairs(stage: Stage, num_cells: int, position: str) -> int:
    """Pairs of a query and a key whose scores are computed, those that the mask hides included."""
    return sum(
        loop.num_blocks * loop.block_tokens * sum(keys.stop - keys.start for keys in loop.keys)
        for loop in _loops(stage, num_cells, position)[0]
    )


def blocked_bias(
    tables: dict[str, jax.Array], stage: Stage, num_cells: int, position: str, num_tokens: int | None = None
) -> BlockedBias:
    """The bias of the first `num_tokens` (None: all) of a sequence of `num_cells`; tables: [S, N, H]."""
    loops, spans = _loops(stage, num_cells, position, num_tokens)

    def shared_rows(tables: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
        bias = PositionBias(tables, stage, 2 * num_cells, position)
        return tuple(bias.rows(segment, *span) for segment, span in zip(bias.segments, spans, strict=True))

    return BlockedBias(loops, jax.vmap(shared_rows)(tables))


def causal_attention(q: jax.Array, k: jax.Array, v: jax.Array, bias: BlockedBias) -> jax.Array:
    """Scaled q, k, v [B, H, T, E] -> [B, H, T, E], each token reading itself and those before it.

    Under a mesh each device computes its own examples and heads; no device waits for another.
    """

    def attend(q, k, v, *rows):
        return _attention(bias.loops, q, k, v, tuple(x[0] for x in rows))

    return sharding.map_shards(attend, ("batch", "heads"), q, k, v, *bias.rows)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(loops, q, k, v, bias_rows):
    return _forward(loops, q, k, v, bias_rows)[0]


def _scores(loop, number, keys, queries, k, bias_rows) -> jax.Array:
    """The scores of block `number` of a loop for one segment's keys: float32 [B, H, Q, T]."""
    rows = bias_rows[loop.rows][:, : loop.block_tokens]
    bias = jax.lax.dynamic_slice_in_dim(rows, keys.column - number * keys.step, keys.stop - keys.start, axis=2)
    return einsum_float32("bhqe,bhte->bhqt", queries, k[:, :, keys.start : keys.stop]) + bias


def _block(loop: Loop, number: jax.Array, x: jax.Array) -> jax.Array:
    """The part of x [B, H, T, ...] that belongs to the queries of block `number` of a loop."""
    return jax.lax.dynamic_slice_in_dim(x, loop.start + number * loop.block_tokens, loop.block_tokens, axis=2)


def _with_block(loop: Loop, number: jax.Array, x: jax.Array, block: jax.Array) -> jax.Array:
    start = loop.start + number * loop.block_tokens
    return jax.lax.dynamic_update_slice_in_dim(x, block.astype(x.dtype), start, axis=2)


def _add(x: jax.Array, part: jax.Array, *start: jax.Array | int) -> jax.Array:
    """x with `part` added at `start`: an update in place, which XLA does not make of indexing (that is a scatter)."""
    before = jax.lax.dynamic_slice(x, start, part.shape)
    return jax.lax.dynamic_update_slice(x, before + part, start)


def _held_in_loop(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays for use inside a loop. Without this barrier XLA moves what is computed from them out of the loop, and
    then holds it for all blocks at once."""
    return jax.lax.optimization_barrier(arrays)


def _forward(loops, q, all_keys, all_values, bias_rows):
    attended = jnp.zeros_like(q)
    log_normaliser = jnp.zeros((*q.shape[:3], 1), jnp.float32)
    for loop in loops:

        def block(number, carry, loop=loop):
            k, v, number = _held_in_loop(all_keys, all_values, number)
            attended, log_normaliser = carry
            queries = _block(loop, number, q)
            # One segment's keys at a time: over concatenated keys XLA would add the biases one by one.
            scores = [_scores(loop, number, keys, queries, k, bias_rows) for keys in loop.keys]
            highest = jnp.max(jnp.stack([jnp.max(s, axis=-1) for s in scores]), axis=0)[..., None]
            normaliser, read = 0.0, 0.0
            for keys, segment_scores in zip(loop.keys, scores, strict=True):
                weights = jnp.exp(segment_scores - highest)
                normaliser += jnp.sum(weights, axis=-1, keepdims=True)
                read += einsum_float32("bhqt,bhte->bhqe", weights.astype(v.dtype), v[:, :, keys.start : keys.stop])
            attended = _with_block(loop, number, attended, read / normaliser)
            return attended, _with_block(loop, number, log_normaliser, highest + jnp.log(normaliser))

        attended, log_normaliser = jax.lax.fori_loop(0, loop.num_blocks, block, (attended, log_normaliser))
    attended = checkpoint_name(attended, SAVED[0])
    log_normaliser = checkpoint_name(log_normaliser, SAVED[1])
    return attended, (q, all_keys, all_values, bias_rows, attended, log_normaliser)


def _backward(loops, residuals, gradient):
    q, all_keys, all_values, bias_rows, attended, log_normaliser = residuals
    # What the normaliser subtracts from each score's gradient: the softmax's own derivative, [B, H, T, 1].
    share = jnp.sum(gradient.astype(jnp.float32) * attended, axis=-1, keepdims=True)
    # Gradients of keys and values are transposed, [B, H, E, T]: the product then transposes the narrow operand, not the
    # scores.
    narrow = jnp.zeros_like(all_keys.mT, jnp.float32)
    carry = jnp.zeros_like(q), narrow, narrow, tuple(jnp.zeros_like(rows) for rows in bias_rows)
    for loop in loops:

        def block(number, carry, loop=loop):
            k, v, number = _held_in_loop(all_keys, all_values, number)
            q_gradient, k_gradient, v_gradient, rows_gradient = carry
            queries, block_gradient, block_share, normaliser = (
                _block(loop, number, x) for x in (q, gradient, share, log_normaliser)
            )
            queries_gradient, rows = 0.0, rows_gradient[loop.rows]
            for keys in loop.keys:
                part = slice(keys.start, keys.stop)
                weights = jnp.exp(_scores(loop, number, keys, queries, k, bias_rows) - normaliser)
                weights_gradient = einsum_float32("bhqe,bhte->bhqt", block_gradient, v[:, :, part])
                scores_gradient = weights * (weights_gradient - block_share)
                rows = _add(rows, jnp.sum(scores_gradient, axis=0), 0, 0, keys.column - number * keys.step)
                weights, scores_gradient = weights.astype(v.dtype), scores_gradient.astype(q.dtype)
                queries_gradient += einsum_float32("bhqt,bhte->bhqe", scores_gradient, k[:, :, part])
                segment_gradient = einsum_float32("bhqe,bhqt->bhet", queries, scores_gradient)
                k_gradient = _add(k_gradient, segment_gradient, 0, 0, 0, keys.start)
                segment_gradient = einsum_float32("bhqe,bhqt->bhet", block_gradient, weights)
                v_gradient = _add(v_gradient, segment_gradient, 0, 0, 0, keys.start)
            rows_gradient = (*rows_gradient[: loop.rows], rows, *rows_gradient[loop.rows + 1 :])
            return _with_block(loop, number, q_gradient, queries_gradient), k_gradient, v_gradient, rows_gradient

        carry = jax.lax.fori_loop(0, loop.num_blocks, block, carry)
    q_gradient, k_gradient, v_gradient, rows_gradient = carry
    return q_gradient, k_gradient.mT.astype(q.dtype), v_gradient.mT.astype(q.dtype), rows_gradient


_attention.defvjp(_forward, _backward)
