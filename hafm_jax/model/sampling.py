"""Drawing a token from logits: guidance, no-history guidance, temperature, top-k, top-p.

Nothing is sorted, and a draw uses one random number.

Axes: B batch, R rows (B times `Rows.num`), V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hafm_jax.common.options import check_number
from hafm_jax.model import ranges

DIGIT_BITS = 4  # ours: per round of the search for the least likely token to keep; 8 rounds of 16 sums


class Rows(NamedTuple):
    """The groups of rows that a batch is run as, in this order: the batch itself; if `guided`, again without its
    condition; if `no_history`, again without a past, with BOS in all of the target's past."""

    guided: bool
    no_history: bool

    @property
    def num(self) -> int:
        """Rows of one example."""
        return 1 + self.guided + self.no_history


class Sampling(NamedTuple):
    """How a token is drawn. Defaults: the authors' published sampler, except top-p, which is off here.

    temperature 0 is greedy; top_k 0, top_p 1 and guidance_scale 1 are off. no_history_scale (ours; 0 is off) is the
    weight of the logits of the condition alone, without a past. It keeps a stage to its condition where its own past
    has gone astray, and is for stages trained with history corruption. It applies to the first codebook of a frame: the
    later ones refine the first and mean nothing without it.
    """

    guidance_scale: float = 3.0
    temperature: float = 0.9
    top_k: int = 250
    top_p: float = 1.0
    no_history_scale: float = 0.0

    @classmethod
    def checked(cls, **fields: Any) -> Sampling:
        """With these fields, the others at their defaults. Raises InputError where one is not a number in its range
        (model/ranges.py), which the constructor, as JAX calls it with traced values, does not check."""
        sampling = cls(**fields)
        for name, limits in ranges.SAMPLING.items():
            check_number(name, getattr(sampling, name), *limits)
        return sampling

    @property
    def rows(self) -> Rows:
        """The rows that these settings need."""
        return Rows(guided=self.guidance_scale != 1.0, no_history=self.no_history_scale != 0.0)


def _cumulate(x: jax.Array) -> jax.Array:
    """Cumulative sum of float32 [B, V] along V, in blocks: XLA's own takes seconds to compile on a CPU."""
    width = 32
    blocks = jnp.pad(x, ((0, 0), (0, -x.shape[1] % width))).reshape(x.shape[0], -1, width)
    within = blocks @ jnp.triu(jnp.ones((width, width)))
    before = jnp.triu(jnp.ones((blocks.shape[1],) * 2), k=1)  # [earlier block, block]
    return (within + jnp.einsum("be,eg->bg", within[..., -1], before)[..., None]).reshape(x.shape[0], -1)[
        :, : x.shape[1]
    ]


def _ordered_bits(x: jax.Array) -> jax.Array:
    """float32 -> uint32 of the same order."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0.0, 0.0, x), jnp.uint32)  # one zero; XLA drops x + 0.0
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def _likeliest(order: jax.Array, weight: jax.Array, wanted: jax.Array) -> jax.Array:
    """The fewest likeliest tokens that together weigh `wanted`: order uint32 [B, V], weight float32 [B, V], wanted [B]
    -> bool [B, V]. Their lowest order is found digit by digit, the highest digit first, without a sort.
    """
    digits = jnp.arange(1 << DIGIT_BITS, dtype=jnp.uint32)

    def find_digit(i, lowest):
        shift = (32 - DIGIT_BITS * (i + 1)).astype(jnp.uint32)
        bounds = lowest[:, None] | (digits << shift)  # [B, digits]
        above = jnp.sum(jnp.where(order[:, None] >= bounds[..., None], weight[:, None], 0.0), axis=-1)
        digit = jnp.sum(above[:, 1:] >= wanted[:, None], axis=-1)
        return lowest | (digit.astype(jnp.uint32) << shift)

    lowest = jax.lax.fori_loop(0, 32 // DIGIT_BITS, find_digit, jnp.zeros(order.shape[0], jnp.uint32))
    above = order > lowest[:, None]
    equal = order == lowest[:, None]
    before = jnp.sum(jnp.where(above, weight, 0.0), axis=-1, keepdims=True)
    tied = jnp.where(equal, weight, 0.0)
    return above | (equal & (before + _cumulate(tied) - tied < wanted[:, None]))


def choose(logits: jax.Array, keys: jax.Array, sampling: Sampling) -> jax.Array:
    """Draw one token a row: logits float32 [B, V], keys [B] -> int32 [B].

    Temperature first, then top-k, then top-p over the tokens that top-k left. Of equal logits the lower id counts as
    likelier. The draw inverts the cumulative probabilities, with one random number a row.
    """
    batch, vocabulary = logits.shape
    scaled = logits / jnp.where(sampling.temperature > 0, sampling.temperature, 1.0)
    order = _ordered_bits(scaled)
    k = jnp.where(sampling.top_k > 0, jnp.minimum(sampling.top_k, vocabulary), vocabulary)
    kept = _likeliest(order, jnp.ones_like(scaled), jnp.full(batch, k, jnp.float32))
    probability = jax.nn.softmax(jnp.where(kept, scaled, -jnp.inf), axis=-1)
    nucleus = _likeliest(order, probability, jnp.full(batch, sampling.top_p, jnp.float32))
    probability = jnp.where(nucleus | (sampling.top_p >= 1.0), probability, 0.0)
    cumulated = _cumulate(probability)
    uniform = jax.vmap(jax.random.uniform)(keys)[:, None]
    drawn = jnp.sum(cumulated <= uniform * cumulated[:, -1:], axis=-1)
    likeliest = jnp.argmax(scaled, axis=-1)
    # Rounding may carry the draw past the last token that has any probability.
    drawn = jnp.where(jnp.take_along_axis(probability, drawn[:, None], axis=-1)[:, 0] > 0, drawn, likeliest)
    return jnp.where(sampling.temperature > 0, drawn, likeliest).astype(jnp.int32)


def combine(logits: jax.Array, rows: Rows, sampling: Sampling, codebook: jax.Array | int) -> jax.Array:
    """Logits [R, V] of `rows`, group by group in their order, for a token of `codebook` -> [B, V]."""
    conditioned, *others = jnp.split(logits, rows.num)
    combined = conditioned
    if rows.guided:
        combined += (sampling.guidance_scale - 1.0) * (conditioned - others[0])
    if rows.no_history:
        combined += jnp.where(codebook == 0, sampling.no_history_scale, 0.0) * others[-1]
    return combined
