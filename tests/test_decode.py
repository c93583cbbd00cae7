from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_params, random_tokens, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax import decode, model
from hafm_jax.decode import Sampling
from hafm_jax.streams import STAGES

GREEDY = Sampling(guidance_scale=1.0, temperature=0.0)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def numpy_choices(logits, sampling):
    """The set of tokens that may be drawn, by sorting in plain numpy."""
    logits = logits.astype(np.float64) / (sampling.temperature or 1.0)
    order = np.argsort(-logits, kind="stable")
    kept = order[: sampling.top_k or len(order)]
    p = np.exp(logits[kept] - logits[kept].max())
    p /= p.sum()
    before = np.cumsum(p) - p
    return set(kept[before < sampling.top_p].tolist()) if sampling.top_p < 1 else set(kept.tolist())


choose = jax.jit(decode.choose)


@settings(max_examples=25)
@given(
    st.integers(0, 1000),
    st.sampled_from([0, 1, 5, 40, 1000]),
    st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    st.floats(0.3, 2),
)
def test_only_what_top_k_and_top_p_leave_is_drawn(seed, top_k, top_p, temperature):
    sampling = Sampling(1.0, temperature, top_k, top_p)
    logits = np.random.default_rng(seed).normal(0, 3, 40).astype(np.float32)
    drawn = np.asarray(choose(jnp.tile(logits, (500, 1)), keys(500, seed), sampling))
    allowed = numpy_choices(logits, sampling)
    assert set(drawn.tolist()) <= allowed
    likeliest = int(np.argmax(logits))
    assert likeliest in allowed and (len(allowed) > 1 or (drawn == likeliest).all())


def test_draws_follow_the_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0], np.float32)
    n, temperature = 20_000, 0.8
    drawn = np.asarray(choose(jnp.tile(logits, (n, 1)), keys(n), Sampling(1.0, temperature, 0, 1.0)))
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / n, expected, atol=0.012)  # 3.5 standard errors


def test_temperature_0_is_greedy_whatever_the_rest():
    logits = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    drawn = choose(jnp.asarray(logits), keys(50), Sampling(1.0, 0.0, 7, 0.5))
    np.testing.assert_array_equal(drawn, logits.argmax(-1))


def test_guidance_extrapolates_and_one_is_off():
    logits = np.random.default_rng(0).normal(size=(4, 30)).astype(np.float32)
    np.testing.assert_array_equal(decode.guide(jnp.asarray(logits), True, 1.0), logits[:2])
    np.testing.assert_allclose(
        decode.guide(jnp.asarray(logits), True, 3.0), logits[2:] + 3 * (logits[:2] - logits[2:]), atol=1e-5
    )


def generate(config, params, conditions, target, start, stop, sampling, seed=0, first_frame=0):
    batch = len(target)
    return np.asarray(
        decode.generate_window(
            config,
            decode.prepare(config, params),
            [jnp.asarray(c) for c in conditions],
            jnp.asarray(target),
            start,
            stop,
            keys(batch, seed),
            first_frame,
            sampling,
        )
    )


@pytest.mark.parametrize(
    ("stage", "position", "guidance"),
    [
        ("semantic", "clock", 1.0),
        ("semantic", "index", 3.0),
        ("coarse", "clock", 3.0),
        ("coarse", "index", 1.0),
        ("fine", "clock", 3.0),
    ],
)
def test_cached_greedy_decoding_is_the_argmax_of_one_full_pass(stage, position, guidance, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK_CELLS", 1)
    monkeypatch.setattr(decode, "CACHE_GROWTH_TOKENS", 16)  # the cache grows on the way
    config = tiny_config(stage, position)
    params = random_params(config)
    conditions, target = random_tokens(stage, 1, 4)
    start = STAGES[stage].target.frames_per_cell  # the first cell is given
    out = generate(config, params, conditions, target, start, target.shape[1], GREEDY._replace(guidance_scale=guidance))
    np.testing.assert_array_equal(out[:, :start], target[:, :start])
    forward = jax.jit(model.forward, static_argnums=0)
    logits = forward(config, params, conditions, out)
    if guidance != 1.0:
        nulls = model.null_conditions(config, conditions, jnp.array([True]))
        unconditioned = forward(config, params, nulls, out)
        logits = logits + (guidance - 1) * (logits - unconditioned)
    best = np.asarray(logits.max(-1))
    chosen = np.take_along_axis(np.asarray(logits), out[..., None], -1)[..., 0]
    # Equal but for rounding: where two logits lie within it, either may win.
    np.testing.assert_allclose(chosen[:, start:], best[:, start:], atol=1e-3)
    assert (out[:, start:] == np.asarray(logits).argmax(-1)[:, start:]).mean() > 0.95


def test_frames_after_stop_are_left_alone():
    config = tiny_config("semantic")
    conditions, target = random_tokens("semantic", 1, 4)
    out = generate(config, random_params(config), conditions, target, 0, 5, GREEDY)
    np.testing.assert_array_equal(out[:, 5:], target[:, 5:])


def test_the_same_key_draws_the_same_tokens_however_the_work_is_cut(monkeypatch):
    config = tiny_config("coarse")
    params = random_params(config)
    conditions, target = random_tokens("coarse", 2, 4)
    sampling = Sampling(guidance_scale=2.0, temperature=1.0)
    whole = generate(config, params, conditions, target, 0, 12, sampling)
    monkeypatch.setattr(decode, "CHUNK_CELLS", 1)
    np.testing.assert_array_equal(whole, generate(config, params, conditions, target, 0, 12, sampling))
    # in two goes: the first half given to the second
    half = generate(config, params, conditions, target, 0, 6, sampling)
    np.testing.assert_array_equal(whole, generate(config, params, conditions, half, 6, 12, sampling))
    other = generate(config, params, conditions, target, 0, 12, sampling, seed=1)
    assert (whole != other).mean() > 0.5
    assert (whole[0] != whole[1]).mean() > 0.5
