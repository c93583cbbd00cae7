"""The stage model against a second one in PyTorch float64, which shares no arithmetic with it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from helpers import random_params, random_tokens, tiny_config

from hafm_jax.model import attention, position, transformer
from hafm_jax.streams import STAGES

pytest.importorskip("torch", reason="needs the extra hafm_jax[torch]")

import torch
from helpers import stage_reference

torch.set_num_threads(1)

# Float32 rounds by 6e-8 of a number's size, which is 5 for logits, some dozens of times before a logit. A bucket that
# ends one token too late moves logits by 0.6, RMSNorm with 1e-5 for 1e-6 by 1e-4.
TOLERANCE = 3e-5


def assert_forward_agrees(config, num_cells, batch):
    params = random_params(config)
    params["embedder"]["heads"] *= 0.5  # logits of size 5, see TOLERANCE
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        assert x.std() > 0.1, path  # a norm of ones or a table of zeros would hide an error
    conditions, target = random_tokens(config.stage_name, batch, num_cells)
    # A new function: jax.jit would reuse its trace of transformer.forward itself, made with other constants.
    forward = jax.jit(lambda *inputs: transformer.forward(config, *inputs))
    with jax.default_matmul_precision("float32"):  # as a CPU does anyway; a GPU would use fewer bits
        found = forward(params, conditions, target)
    assert found.dtype == np.float32
    expected = np.stack(
        [stage_reference.logits(config, params, [c[i] for c in conditions], target[i]) for i in range(batch)]
    )
    assert 1 < np.abs(expected).max() < 10
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["clock", "index"])
@pytest.mark.parametrize("stage", STAGES)
def test_forward_agrees_with_the_reference(stage, mode, monkeypatch):
    # The target's five cells are two whole blocks and a ragged one.
    monkeypatch.setattr(attention, "BLOCK_TOKENS", 2 * STAGES[stage].target.tokens_per_cell)
    assert_forward_agrees(tiny_config(stage, mode), num_cells=5, batch=2)


CELLS = 20  # 320 tokens of the coarse stage, 0.8 s
LAST_INDEX = 31  # of 32 buckets
EXACT_CLOCK, LAST_CLOCK, SIDE_CLOCK = 32, 63, 64  # a side has 64 buckets, the lower 32 of them exact


@pytest.mark.parametrize("mode, reach_s", [("index", 30.0), ("clock", 30.0), ("clock", 0.7)])
def test_forward_agrees_with_the_reference_where_differences_are_large(mode, reach_s, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK_TOKENS", 100)
    monkeypatch.setattr(position, "CLOCK_REACH_S", reach_s)  # 0.7 s: differences saturate inside the window
    used = {}
    for _, _, table, bucket in stage_reference.pairs(mode, STAGES["coarse"], CELLS, position.CLOCK_REACH_S):
        used.setdefault(table, set()).add(bucket)
    # The window does reach the buckets that this test is about.
    if mode == "index":
        assert used == {"sequence_to_sequence": set(range(LAST_INDEX + 1))}
    else:
        assert len(used) == 6  # three streams, each with itself and those before it
        for table, buckets in used.items():
            past, future = ({b % SIDE_CLOCK for b in buckets if b // SIDE_CLOCK == side} for side in (0, 1))
            query, key = table.split("_to_")
            assert future or query == key  # in its own stream a token sees only its past
            for side in filter(None, (past, future)):
                assert max(side) > EXACT_CLOCK
                assert (max(side) == LAST_CLOCK) == (reach_s < 1)
    assert_forward_agrees(tiny_config("coarse", mode, window_cells=CELLS), num_cells=CELLS, batch=1)
