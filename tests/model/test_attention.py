"""Attention in blocks against its definition: values and every gradient."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hafm_jax.model import attention, position
from hafm_jax.streams import STAGES

BATCH, HEADS, WIDTH = 2, 2, 8


def random_case(stage, mode, num_cells, dtype=np.float32, batch=BATCH, heads=HEADS):
    """(q, k, v, tables) with scores of a few units."""
    rng = np.random.default_rng(0)
    shape = (batch, heads, stage.num_tokens(num_cells), WIDTH)
    q, k, v = (jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(3))
    tables = {
        name: jnp.asarray(rng.standard_normal((position.table_buckets(mode), heads)), jnp.float32)
        for name in position.table_names(stage, mode)
    }
    return q, k, v, tables


def in_blocks(stage, mode, num_cells, q, k, v, tables):
    copies = {name: table[None] for name, table in tables.items()}  # for one shard of the batch
    return attention.causal_attention(q, k, v, attention.blocked_bias(copies, stage, num_cells, mode))


def by_definition(stage, mode, num_cells, q, k, v, tables):
    bias = position.PositionBias(tables, stage, num_cells, mode)
    rows = [bias.rows(s, 0, s.length, s.length) for s in bias.segments]
    room = [((0, 0), (0, 0), (0, q.shape[2] - r.shape[2])) for r in rows]
    square = jnp.concatenate(
        [jnp.pad(r, p, constant_values=position.MASKED) for r, p in zip(rows, room, strict=True)], 1
    )
    return attention.dense_attention(q, k, v, square)


def value_and_gradients(form, *case):
    """The result, and the gradients of a random sum of it by q, k, v and tables."""
    weights = np.random.default_rng(1).standard_normal(case[0].shape)

    def objective(*case):
        attended = form(*case)
        return jnp.sum(attended.astype(jnp.float32) * weights), attended

    (_, attended), gradients = jax.jit(jax.value_and_grad(objective, argnums=range(4), has_aux=True))(*case)
    return attended, gradients


def both_ways(stage, mode, num_cells, *case):
    return [value_and_gradients(partial(form, stage, mode, num_cells), *case) for form in (in_blocks, by_definition)]


@pytest.mark.parametrize("block_tokens", [24, 100, 1000])
@pytest.mark.parametrize("mode", ["clock", "index"])
@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda s: s.name)
def test_values_and_gradients_are_those_of_the_definition(stage, mode, block_tokens, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK_TOKENS", block_tokens)
    num_cells = 7  # not a multiple of the blocks
    case = random_case(stage, mode, num_cells)
    found, expected = both_ways(stage, mode, num_cells, *case)
    # A table's gradient sums up to T * T / 2 products of size 1.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), found, expected)
    assert all(np.abs(x).max() > 0.1 for x in jax.tree.leaves(expected))


@pytest.mark.parametrize("mode", ["clock", "index"])
def test_full_length_is_exact(mode):
    stage, num_cells = STAGES["coarse"], 250
    case = random_case(stage, mode, num_cells, batch=1, heads=1)
    assert case[0].shape[2] == 4000
    found, expected = both_ways(stage, mode, num_cells, *case)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=0), found, expected)


def test_bfloat16_differs_by_its_rounding():
    stage = STAGES["coarse"]
    exact = value_and_gradients(partial(by_definition, stage, "clock", 7), *random_case(stage, "clock", 7))
    q, k, v, tables = random_case(stage, "clock", 7, jnp.bfloat16)
    attended, gradients = value_and_gradients(partial(in_blocks, stage, "clock", 7), q, k, v, tables)
    assert attended.dtype == jnp.bfloat16 and gradients[0].dtype == jnp.bfloat16
    for found, expected in zip(jax.tree.leaves((attended, gradients)), jax.tree.leaves(exact), strict=True):
        found, expected = np.asarray(found, np.float64), np.asarray(expected)
        assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)  # a few of 2^-8
