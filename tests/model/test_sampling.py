"""Drawing a token, against plain numpy in float64 that sorts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hafm_jax.model import sampling
from hafm_jax.model.sampling import Rows, Sampling, combine

VOCABULARY = 40
choose = jax.jit(sampling.choose)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def numpy_probabilities(logits: np.ndarray, how: Sampling) -> tuple[np.ndarray, float]:
    """[V] -> (the probability of each token, how far top-p was from keeping one more or one less)."""
    scaled = logits.astype(np.float64) / how.temperature
    order = np.argsort(-scaled, kind="stable")[: how.top_k or None]
    p = np.exp(scaled[order] - scaled[order[0]])
    p /= p.sum()
    margin = np.inf
    if how.top_p < 1:
        likelier = np.cumsum(p) - p
        margin = np.abs(likelier - how.top_p).min()
        count = np.sum(likelier < how.top_p)
        order, p = order[:count], p[:count] / p[:count].sum()
    probabilities = np.zeros_like(scaled)
    probabilities[order] = p
    return probabilities, margin


hows = st.builds(
    Sampling,
    guidance_scale=st.floats(0, 10),
    temperature=st.floats(0.05, 5),
    top_k=st.sampled_from([0, 1, 5, 39, 40, 1000]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
)


@settings(max_examples=60)
@given(st.integers(0, 2**31), hows, st.booleans())
@example(57590663, Sampling(0.0, 3.0, 0, 0.9), True)  # top-p ends among zeros of both signs
def test_the_token_is_the_one_that_plain_numpy_draws(seed, how, ties):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, VOCABULARY).astype(np.float32)
    if ties:
        logits = np.round(logits)
    draws = keys(200, seed)
    drawn = np.asarray(choose(jnp.tile(logits, (200, 1)), draws, how))
    # Temperatures are traced float32 numbers; equal logits are those that are equal after the division.
    scaled = logits / np.float32(how.temperature)
    probabilities, margin = numpy_probabilities(scaled, how._replace(temperature=1.0))
    cumulated = np.cumsum(probabilities)
    uniform = np.asarray(jax.vmap(jax.random.uniform)(draws), np.float64)
    expected = np.searchsorted(cumulated, uniform, side="right")
    clear = np.abs(cumulated[None] - uniform[:, None]).min(axis=1) > 1e-5  # elsewhere float32 may round across
    assume(margin > 1e-6)  # here too
    np.testing.assert_array_equal(drawn[clear], expected[clear])
    assert clear.mean() > 0.9


def test_draws_follow_the_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0], np.float32)
    n, temperature = 20_000, 0.8
    drawn = np.asarray(choose(jnp.tile(logits, (n, 1)), keys(n), Sampling(1.0, temperature, 0, 1.0)))
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / n, expected, atol=0.012)  # 3.5 standard errors


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([500, 1024]), st.sampled_from([1e-6, 1.0, 1e4, np.inf]))
def test_only_ids_of_the_vocabulary_that_are_possible_come_out(seed, vocabulary, scale):
    """Sharp, flat, and with impossible tokens at both ends."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (64, vocabulary)).astype(np.float32) * (1.0 if scale == np.inf else scale)
    if scale == np.inf:
        logits[:, :100], logits[:, -100:] = -np.inf, -np.inf
    drawn = np.asarray(choose(logits, keys(64, seed), Sampling(1.0, 1.0, 0, 1.0)))
    assert drawn.dtype == np.int32 and drawn.min() >= 0 and drawn.max() < vocabulary
    assert np.isfinite(logits[np.arange(64), drawn]).all()


def test_temperature_0_is_greedy_with_any_other_settings():
    logits = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    drawn = choose(jnp.asarray(logits), keys(50), Sampling(1.0, 0.0, 7, 0.5))
    np.testing.assert_array_equal(drawn, logits.argmax(-1))


def test_a_row_does_not_depend_on_the_rows_beside_it():
    logits = np.random.default_rng(0).normal(0, 3, (8, 1024)).astype(np.float32)
    how, draws = Sampling(top_p=0.9), keys(8)
    single = [choose(logits[i : i + 1], draws[i : i + 1], how)[0] for i in range(8)]
    np.testing.assert_array_equal(choose(logits, draws, how), single)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.floats(0, 10))
def test_guidance_extrapolates_and_one_is_off(seed, scale):
    logits = np.random.default_rng(seed).normal(0, 3, (4, 30)).astype(np.float32)
    how, rows = Sampling(guidance_scale=scale), Rows(guided=True, no_history=False)
    guided = combine(logits, rows, how, 0)
    conditioned, unconditioned = logits[:2].astype(np.float64), logits[2:].astype(np.float64)
    np.testing.assert_allclose(guided, unconditioned + scale * (conditioned - unconditioned), atol=1e-4)
    np.testing.assert_array_equal(combine(logits, rows, how._replace(guidance_scale=1.0), 0), logits[:2])


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.floats(1, 10), st.floats(0.01, 2))
def test_no_history_guidance_multiplies_the_probabilities_of_first_codebooks(seed, scale, weight):
    """The product of experts: p_guided times p_without_history ** weight, normalized."""
    logits = np.random.default_rng(seed).normal(0, 3, (6, 30)).astype(np.float32)
    how = Sampling(guidance_scale=scale, no_history_scale=weight)
    guided = combine(logits[:4], Rows(guided=True, no_history=False), how, 0)
    expected = scipy.special.softmax(guided, -1) * scipy.special.softmax(logits[4:], -1) ** weight
    rows = Rows(guided=True, no_history=True)
    found = scipy.special.softmax(combine(logits, rows, how, 0), -1)
    np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), atol=1e-4)
    np.testing.assert_array_equal(combine(logits, rows, how, 1), guided)
