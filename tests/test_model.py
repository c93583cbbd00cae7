from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_params, random_tokens, tiny_config

from hafm_jax import model
from hafm_jax.position import PositionBias, table_names
from hafm_jax.sizes import SIZES, StageConfig, forward_flops, num_parameters
from hafm_jax.streams import STAGES

forward = jax.jit(model.forward, static_argnums=0)


@pytest.mark.parametrize("position", ["clock", "index"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", STAGES)
def test_analytic_parameters_are_the_real_ones(stage, size, position):
    config = StageConfig.of_size(stage, size, window_cells=10, position=position)
    shapes = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
    assert num_parameters(config) == sum(x.size for x in jax.tree.leaves(shapes))


def test_base_has_the_size_of_the_authors_checkpoints():
    total = sum(num_parameters(StageConfig.of_size(s, "base", window_cells=250)) for s in STAGES)
    assert 245e6 < total < 260e6


def test_analytic_flops_agree_with_the_compiler():
    config = tiny_config("semantic", window_cells=32)
    params = random_params(config)
    conditions, target = random_tokens("semantic", 1, 32)
    # One block of queries: the compiler then counts the whole square of attention, we the half that is used.
    compiled = jax.jit(model.forward, static_argnums=0).lower(config, params, conditions, target).compile()
    tokens = STAGES["semantic"].num_tokens(32)
    unused = 2 * config.num_layers * tokens * (tokens - 1) * config.d_model
    blocks = -(-64 // model.QUERY_BLOCK_TOKENS)
    assert blocks == 1
    counted = compiled.cost_analysis()["flops"]
    # The scan's body is counted once, so compare one layer's work; elementwise work is the compiler's surplus.
    analytic = forward_flops(config, 32)
    heads = 2 * 64 * config.d_model * 500
    one_layer = (analytic - heads) / config.num_layers + heads
    assert one_layer < counted + unused < 2.5 * one_layer + unused


def reference_logits(config: StageConfig, params, conditions, target):
    """The stage in plain numpy float64, one example, token by token embeddings and the whole square of attention."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    e = p["ends"]
    stage = config.streams

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale

    x = []
    for i, (s, tokens) in enumerate(zip(stage.conditions, conditions, strict=True)):
        for frame in tokens:
            x += [e["conditions"][s.name][k, frame[k]] + e["segments"][i] for k in range(s.codebooks)]
    x.append(e["bos"] + e["segments"][-1])
    flat = [(k, t) for frame in target for k, t in enumerate(frame)]
    x += [e["target"][k, t] + e["segments"][-1] for k, t in flat[:-1]]
    x = np.stack(x)

    tables = {n: jnp.asarray(params["ends"]["position"][n]) for n in table_names(stage, config.position)}
    bias = PositionBias(tables, stage, len(target) // stage.target.frames_per_cell, config.position)
    square = np.full((config.num_heads, len(x), len(x)), -np.inf)
    offset = 0
    for segment in bias.segments:
        stop = offset + segment.length
        square[:, offset:stop, :stop] = jax.jit(lambda s=segment: bias.rows(s, 0, s.length))()
        offset = stop

    for layer in range(config.num_layers):
        b = {k: v[layer] for k, v in p["blocks"].items()}
        y = norm(x, b["attention_norm"])
        attended = np.zeros((config.num_heads, len(x), config.head_dim))
        for h in range(config.num_heads):
            q, k, v = (y @ b["query_key_value"][:, c, h] for c in range(3))
            q, k = norm(q, b["query_norm"]), norm(k, b["key_norm"])
            scores = q @ k.T / np.sqrt(config.head_dim) + square[h]
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            attended[h] = weights / weights.sum(-1, keepdims=True) @ v
        x = x + np.einsum("hte,hed->td", attended, b["attention_out"])
        y = norm(x, b["ffn_norm"])
        gate, value = y @ b["ffn_in"][:, 0], y @ b["ffn_in"][:, 1]
        gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        x = x + (gelu * value) @ b["ffn_out"]
    x = norm(x[-len(flat) :], e["final_norm"])
    logits = np.stack([x[i] @ e["heads"][k] for i, (k, _) in enumerate(flat)])
    return logits.reshape(*target.shape, -1)


@pytest.mark.parametrize("position", ["clock", "index"])
@pytest.mark.parametrize("stage", STAGES)
def test_forward_agrees_with_a_plain_reference(stage, position, monkeypatch):
    monkeypatch.setattr(model, "QUERY_BLOCK_TOKENS", 7)  # several blocks a segment, ragged at the end
    config = tiny_config(stage, position)
    params = random_params(config)
    conditions, target = random_tokens(stage, 2, 4)
    logits = jax.jit(model.forward, static_argnums=0)(config, params, conditions, target)
    for i in range(2):
        expected = reference_logits(config, params, [c[i] for c in conditions], target[i])
        np.testing.assert_allclose(logits[i], expected, atol=2e-4)  # float32 against float64, logits of size 10


def test_remat_changes_no_gradient():
    config = tiny_config("semantic")
    params = random_params(config)
    conditions, target = random_tokens("semantic", 1, 4)

    def loss(params, remat):
        return jnp.mean(jax.nn.logsumexp(model.forward(config, params, conditions, target, remat=remat), -1))

    plain, remat = (jax.jit(jax.grad(loss), static_argnums=1)(params, r) for r in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, remat)


@pytest.mark.parametrize("stage", STAGES)
def test_a_target_sees_its_past_and_all_of_the_condition_never_its_future(stage):
    config = tiny_config(stage)
    params = random_params(config)
    conditions, target = random_tokens(stage, 1, 4)
    frame = 5
    base = forward(config, params, conditions, target)
    for other in (frame, frame + 1, target.shape[1] - 1):
        changed = target.copy()
        changed[0, other, -1] = (changed[0, other, -1] + 1) % STAGES[stage].target.vocabulary
        moved = np.abs(forward(config, params, conditions, changed) - base).max(axis=(0, 2, 3))
        assert (moved[: other + 1] == 0).all()  # the last codebook of a frame: the frame itself was predicted before it
        assert other == target.shape[1] - 1 or moved[other + 1] > 0
    for i, tokens in enumerate(conditions):
        changed = [c.copy() for c in conditions]
        changed[i][0, -1] = (tokens[0, -1] + 1) % STAGES[stage].conditions[i].vocabulary
        moved = np.abs(forward(config, params, changed, target) - base).max(axis=(0, 2, 3))
        assert (moved > 0).all()  # even the first frame looks ahead in the vocal


def test_dropped_conditions_do_not_matter():
    config = tiny_config("coarse")
    params = random_params(config)
    drop = jnp.array([True, False])
    (a, target), (b, _) = random_tokens("coarse", 2, 4, seed=0), random_tokens("coarse", 2, 4, seed=1)
    x, y = (forward(config, params, model.null_conditions(config, c, drop), target) for c in (a, b))
    np.testing.assert_array_equal(x[0], y[0])
    assert np.abs(x[1] - y[1]).max() > 0.1


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_products_are_summed_in_float32(dtype):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((3, 4, 64), (3, 5, 64)))
    found = jax.jit(lambda a, b: model.einsum_float32("hqe,hte->hqt", a, b))(a, b)
    assert found.dtype == jnp.float32
    expected = np.einsum("hqe,hte->hqt", np.asarray(a, np.float64), np.asarray(b, np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-5)  # 64 products of size 1, rounded at 1e-7
