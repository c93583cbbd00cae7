"""Relative position: a bias on attention scores that depends on how far apart two tokens are, by `index` or `clock`.

`index` is the paper's: T5 buckets over the distance in the sequence, saturating at 128 tokens.
`clock` is ours, a time-relative bias: buckets over the signed difference of the two tokens' *times*, with a table for
each pair of streams, so that a target token finds the vocal frame that sounds with it at any window length.

Both are the same mechanism. The sequence is cut into segments of evenly spaced tokens (`clock`: one for each stream;
`index`: a single one), and the bias of a query for a segment's keys is a slice of a vector over differences: row i of a
query segment with spacing a needs for a key segment with spacing b the differences a*i - b*j, which for growing j walk
down the differences of one phase (a*i mod b) in steps of b. So training gathers rows, cached decoding takes one row,
and no array has the size of the sequence squared.

Axes: H heads, T keys, N buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.streams import CELLS_PER_S, STREAMS, TICKS_PER_CELL, Stage, ticks_per_token

INDEX_BUCKETS = 32  # T5
INDEX_MAX_DISTANCE = 128  # T5
CLOCK_BUCKETS = 128  # ours: 64 a side, 32 of them exact, so that neighbouring frames differ
CLOCK_REACH_S = 30.0  # ours: time differences saturate here; longer than any window trained on

# Ours; see docs/notebook.md. Heads of `clock` start as kernels (1 + difference / frame) ** -strength, with strengths
# from 0 (a mean over all times) to this. If all heads started at 0, the token that sounds with the query would be one
# of a thousand equal ones.
CLOCK_STRENGTH = 3.0
CLOCK_FRAME_S = 1 / max(stream.rate_hz for stream in STREAMS.values())  # the shortest frame

MASKED = -1e30  # finite, so that a softmax over masked keys never meets inf - inf


@dataclass(frozen=True)
class Segment:
    """A run of evenly spaced tokens; `spacing` is in ticks of the common clock, or 1 in `index` mode."""

    name: str
    length: int
    spacing: int


def segments(stage: Stage, num_cells: int, position: str) -> tuple[Segment, ...]:
    """The segments of a sequence of `num_cells`, in sequence order. The last one ends with the target."""
    if position == "index":
        return (Segment("sequence", stage.num_tokens(num_cells), 1),)
    return tuple(Segment(s.name, num_cells * s.tokens_per_cell, ticks_per_token(s)) for s in stage.streams)


def table_names(stage: Stage, position: str) -> tuple[str, ...]:
    """Names of the bias tables [N, H]: one, or one for each pair of a query stream and a key stream it can see."""
    return tuple(_table(query, key) for query, key in _pairs(segments(stage, 1, position)))


def _pairs(parts: tuple[Segment, ...]) -> list[tuple[Segment, Segment]]:
    """Each query segment with every key segment it can see."""
    return [(query, key) for i, query in enumerate(parts) for key in parts[: i + 1]]


def num_tables(stage: Stage, position: str) -> int:
    return len(table_names(stage, position))


def table_buckets(position: str) -> int:
    return INDEX_BUCKETS if position == "index" else CLOCK_BUCKETS


def initial_tables(stage: Stage, position: str, num_heads: int) -> dict[str, np.ndarray]:
    """The initial bias tables, float32 [N, H]: 0 for `index`, falling with the time difference for `clock`."""
    if position == "index":
        return {name: np.zeros((INDEX_BUCKETS, num_heads), np.float32) for name in table_names(stage, position)}
    half = CLOCK_BUCKETS // 2
    exact = half // 2
    bucket = np.arange(half)
    strength = np.linspace(0, CLOCK_STRENGTH, num_heads)
    tables = {}
    for query, key in _pairs(segments(stage, 1, position)):
        unit_s = math.gcd(query.spacing, key.spacing) / (CELLS_PER_S * TICKS_PER_CELL)
        # The inverse of `t5_bucket`: the smallest difference in each bucket.
        growth = (CLOCK_REACH_S / unit_s / exact) ** ((bucket - exact) / (half - exact))
        difference_s = unit_s * np.where(bucket < exact, bucket, exact * growth)
        one_side = -strength * np.log1p(difference_s / CLOCK_FRAME_S)[:, None]  # [N / 2, H]
        tables[_table(query, key)] = np.concatenate([one_side, one_side]).astype(np.float32)
    return tables


def _table(query: Segment, key: Segment) -> str:
    return f"{query.name}_to_{key.name}"


def t5_bucket(distance: np.ndarray, num_buckets: int, max_distance: int) -> np.ndarray:
    """T5's causal buckets of non-negative integer distances: exact below num_buckets / 2, then logarithmic."""
    exact = num_buckets // 2
    log_ratio = np.log(np.maximum(distance, exact) / exact) / math.log(max_distance / exact)
    logarithmic = exact + (log_ratio * (num_buckets - exact)).astype(np.int64)
    return np.where(distance < exact, distance, np.minimum(logarithmic, num_buckets - 1))


def clock_bucket(difference: np.ndarray, max_difference: float) -> np.ndarray:
    """Signed T5 buckets of integer time differences: 0 and the past in the lower half, the future in the upper."""
    half = CLOCK_BUCKETS // 2
    bucket = t5_bucket(np.abs(difference), half, max_difference)
    return np.where(difference < 0, half + bucket, bucket)


def _bias_by_phase(table: jax.Array, query: Segment, key: Segment) -> tuple[jax.Array, int, int]:
    """([phases, H, Q + T] biases by falling difference, query step, Q); `PositionBias.row` cuts rows out of them."""
    unit = math.gcd(query.spacing, key.spacing)
    query_step, phases = query.spacing // unit, key.spacing // unit
    last = query_step * (query.length - 1) // phases  # Q: how far row slices start from the end
    difference = np.arange(phases)[:, None] + phases * (last - np.arange(last + key.length))
    if query.name == "sequence":
        bucket = t5_bucket(np.maximum(difference, 0), INDEX_BUCKETS, INDEX_MAX_DISTANCE)
    else:
        bucket = clock_bucket(difference, CLOCK_REACH_S * CELLS_PER_S * TICKS_PER_CELL / unit)
    return table[bucket].transpose(0, 2, 1), query_step, last


class PositionBias:
    """The biases of one sequence layout, row by row.

    tables: name -> float32 [N, H], as `table_names` lists them.
    """

    def __init__(self, tables: dict[str, jax.Array], stage: Stage, num_cells: int, position: str):
        self.segments = segments(stage, num_cells, position)
        self._by_phase = {
            (query.name, key.name): _bias_by_phase(tables[_table(query, key)], query, key)
            for query, key in _pairs(self.segments)
        }

    def row(self, query: Segment, i: jax.Array, own_length: int) -> jax.Array:
        """Bias of token `i` (a traced scalar) of segment `query` for all earlier segments and the first
        `own_length` tokens of its own, future tokens masked -> float32 [H, T]."""
        parts = []
        for key in self.segments:
            by_phase, step, last = self._by_phase[query.name, key.name]
            phases, heads, _ = by_phase.shape
            length = own_length if key is query else key.length
            start = (step * i % phases, 0, last - step * i // phases)
            part = jax.lax.dynamic_slice(by_phase, start, (1, heads, length))[0]
            if key is query:
                parts.append(jnp.where(jnp.arange(length) <= i, part, MASKED))
                return jnp.concatenate(parts, axis=-1)
            parts.append(part)
        raise ValueError(f"{query.name} is not a segment of this layout")

    def rows(self, query: Segment, start: int, stop: int, own_length: int) -> jax.Array:
        """`row` of tokens start..stop of segment `query` -> [H, stop - start, T]."""
        return jax.vmap(lambda i: self.row(query, i, own_length), out_axes=1)(jnp.arange(start, stop))
