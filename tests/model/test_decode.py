from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import generate_window as generate
from helpers import random_params, random_tokens, tiny_config

from hafm_jax.model import decode, transformer, weights
from hafm_jax.model.cpu import kernels
from hafm_jax.model.sampling import Rows, Sampling
from hafm_jax.model.weights import Weights
from hafm_jax.streams import STAGES, interleave

forward = jax.jit(transformer.forward, static_argnums=0)
GREEDY = Sampling(guidance_scale=1.0, temperature=0.0)
PACKED = [False, pytest.param(True, marks=pytest.mark.skipif(kernels.load() is not None, reason=str(kernels.load())))]


def without_past(params):
    """Parameters with which every target token is embedded as BOS: no past."""
    embedder = params["embedder"]
    return params | {"embedder": embedder | {"target": jnp.broadcast_to(embedder["bos"], embedder["target"].shape)}}


def keys(n):
    return jax.random.split(jax.random.key(0), n)


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("position", ["clock", "index"])
@pytest.mark.parametrize("stage", STAGES)
def test_logits_of_every_step_are_those_of_one_full_pass(stage, position, packed):
    """For rows as they are, without a condition and without a past; from BOS on, and with a part of the target
    prefilled."""
    config = tiny_config(stage, position)
    params = random_params(config)
    conditions, target = random_tokens(stage, 2, config.window_cells)
    codebooks, vocabulary = config.stage.target.codebooks, config.stage.target.vocabulary
    rows = Rows(guided=True, no_history=True)
    tokens = interleave(np.concatenate([target] * rows.num))  # [R, T]
    lacks_history = jnp.arange(6)[:, None] >= 4
    capacity = config.stage.num_tokens(config.window_cells)
    prepared = Weights.prepare(config, params, packed)

    @jax.jit
    def stepped(prepared, cache, tokens, first):
        embedder = transformer.embedder(config, prepared.embedder)
        step = decode.stepper(config, prepared, capacity)

        def feed(position, carry):
            cache, logits = carry
            before = embedder.embed_target(tokens[:, position - 1], (position - 1) % codebooks)
            before = jnp.where(lacks_history, embedder.embed_bos(), before)
            row, cache = step(jnp.where(position > 0, before, embedder.embed_bos()), cache, position)
            return cache, logits.at[:, position].set(row)

        logits = jnp.zeros((*tokens.shape, vocabulary))
        return jax.lax.fori_loop(first, tokens.shape[1], feed, (cache, logits))[1]  # [R, T, V]

    nulls = transformer.null_conditions(config, conditions, jnp.ones(2, bool))
    groups = [
        forward(config, params, conditions, target),
        forward(config, params, nulls, target),
        forward(config, without_past(params), conditions, target),
    ]
    assert np.abs(groups[0]).max() > 1 and min(np.abs(groups[0] - other).max() for other in groups[1:]) > 1
    expected = np.concatenate(groups).reshape(*tokens.shape, vocabulary)
    for given in (0, config.stage.target.frames_per_cell):
        cache = decode._prefill(config, prepared, conditions, target[:, :given], rows, capacity)
        first = given * codebooks
        found = stepped(prepared, cache, tokens, first)
        # float32, summed in another order
        np.testing.assert_allclose(found[:, first:], expected[:, first:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize(("guidance", "no_history_scale"), [(1.0, 0.0), (3.0, 0.0), (1.0, 0.7), (3.0, 0.7)])
def test_greedy_decoding_takes_the_argmax_of_full_passes(guidance, no_history_scale, packed, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK_CELLS", 1)
    monkeypatch.setattr(weights, "CACHE_GROWTH_TOKENS", 32)  # of 64: the cache grows on the way
    config = tiny_config("coarse", num_layers=1)
    params = random_params(config)
    conditions, target = random_tokens("coarse", 1, 4)
    sampling = GREEDY._replace(guidance_scale=guidance, no_history_scale=no_history_scale)
    out = generate(config, params, conditions, target, 0, target.shape[1], sampling, packed=packed)
    logits = forward(config, params, conditions, out)
    if guidance != 1.0:
        nulls = transformer.null_conditions(config, conditions, jnp.array([True]))
        logits = logits + (guidance - 1) * (logits - forward(config, params, nulls, out))
    # Only for the frames' first codebooks.
    logits = logits.at[:, :, 0].add(no_history_scale * forward(config, without_past(params), conditions, out)[:, :, 0])
    best = np.asarray(logits.max(-1))
    chosen = np.take_along_axis(np.asarray(logits), out[..., None], -1)[..., 0]
    # Equal but for rounding: of two logits closer than that, either may win.
    np.testing.assert_allclose(chosen, best, atol=1e-3)
    assert (out == np.asarray(logits).argmax(-1)).mean() > 0.95


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize(("stage", "position"), [("semantic", "index"), ("coarse", "clock"), ("fine", "index")])
def test_a_batch_of_vocals_gets_what_each_gets_alone(stage, position, packed):
    config = tiny_config(stage, position, num_layers=1)
    params = random_params(config)
    conditions, target = random_tokens(stage, 3, 4)
    sampling = Sampling(guidance_scale=2.0, temperature=1.0, no_history_scale=0.5)
    start, stop = 3, target.shape[1]  # some frames are given
    together = generate(config, params, conditions, target, start, stop, sampling, packed=packed)
    prepared = Weights.prepare(config, params, packed)
    for i, key in enumerate(keys(3)):
        one = [jnp.asarray(c[i : i + 1]) for c in conditions]
        alone = decode.generate_window(
            config, prepared, one, jnp.asarray(target[i : i + 1]), start, stop, key[None], 0, sampling
        )
        np.testing.assert_array_equal(alone[0], together[i])


@pytest.mark.parametrize("packed", PACKED)
def test_disabled_guidance_changes_no_bit_and_its_rows_do_not_run(packed, monkeypatch):
    config = tiny_config("coarse", num_layers=1)
    conditions, target = random_tokens("coarse", 2, 4)
    prepared = Weights.prepare(config, random_params(config), packed)
    sampling = Sampling(guidance_scale=1.0, temperature=1.0)
    capacity = config.stage.num_tokens(config.window_cells)
    made = []
    for rows in (Rows(False, False), Rows(True, False), Rows(False, True), Rows(True, True)):
        cache = decode._prefill(config, prepared, conditions, target[:, :0], rows, capacity)
        made.append(decode._extend(config, prepared, cache, jnp.array(target), 0, 12, keys(2), 0, sampling, rows)[1])
        np.testing.assert_array_equal(made[0], made[-1])

    real, rows = decode._extend, set()

    def spy(config, prepared, cache, *rest):
        rows.update(x.shape[0] for x in jax.tree.leaves(cache))
        return real(config, prepared, cache, *rest)

    monkeypatch.setattr(decode, "_extend", spy)
    for guidance_scale, no_history_scale, expected_rows in ((3.0, 0.5, 6), (1.0, 0.5, 4), (3.0, 0.0, 4), (1.0, 0.0, 2)):
        rows.clear()
        how = sampling._replace(guidance_scale=guidance_scale, no_history_scale=no_history_scale)
        found = decode.generate_window(config, prepared, conditions, jnp.asarray(target), 0, 12, keys(2), 0, how)
        assert rows == {expected_rows}
    np.testing.assert_array_equal(found, made[0])


def test_frames_after_stop_are_unchanged():
    config = tiny_config("semantic", num_layers=1)
    conditions, target = random_tokens("semantic", 1, 4)
    out = generate(config, random_params(config), conditions, target, 0, 5, GREEDY)
    np.testing.assert_array_equal(out[:, 5:], target[:, 5:])


def test_the_same_key_draws_the_same_tokens_however_the_work_is_cut(monkeypatch):
    config = tiny_config("coarse", num_layers=1)
    params = random_params(config)
    conditions, target = random_tokens("coarse", 2, 4)
    sampling = Sampling(guidance_scale=2.0, temperature=1.0, no_history_scale=0.5)
    whole = generate(config, params, conditions, target, 0, 12, sampling)
    monkeypatch.setattr(decode, "CHUNK_CELLS", 1)
    np.testing.assert_array_equal(whole, generate(config, params, conditions, target, 0, 12, sampling))
    # in two parts, the first given to the second
    half = generate(config, params, conditions, target, 0, 6, sampling)
    np.testing.assert_array_equal(whole, generate(config, params, conditions, half, 6, 12, sampling))
    other = generate(config, params, conditions, target, 0, 12, sampling, seed=1)
    assert (whole != other).mean() > 0.5
    assert (whole[0] != whole[1]).mean() > 0.5
