"""The CPU kernels against numpy in float64, and how they are built."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.model.cpu import kernels


def test_they_are_built_where_there_is_a_compiler():
    """Otherwise the tests below would all be skipped unnoticed."""
    assert kernels.load() is None or "compiler" in kernels.load()


needed = pytest.mark.skipif(kernels.load() is not None, reason=str(kernels.load()))
product = jax.jit(kernels.product, static_argnums=2)


@jax.jit
def attend(q, k, v, bias, filled):
    return kernels.attend(q, kernels.stored(k), kernels.stored(v), bias, filled)


dtypes = st.sampled_from(["float32", "bfloat16"])


def random(rng, shape, dtype="float32"):
    return jnp.asarray(rng.standard_normal(shape), dtype)


def wide(x):
    return np.asarray(x, np.float64)


@needed
@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 150), st.integers(1, 40), dtypes)
def test_product_is_numpys(seed, rows, width, outputs, dtype):
    rng = np.random.default_rng(seed)
    x, w = random(rng, (rows, width)), random(rng, (outputs, width), dtype)
    # Sums of up to 150 products of size 1, each rounded at 6e-8.
    np.testing.assert_allclose(product(x, w, 1), wide(x) @ wide(w).T, atol=3e-5)


@needed
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_product_is_shared_by_threads_and_stays_the_same(dtype):
    rng = np.random.default_rng(0)
    x, w = random(rng, (7, 512)), random(rng, (1003, 512), dtype)  # a ragged end
    together = np.asarray(product(x, w, 1))
    np.testing.assert_allclose(together, wide(x) @ wide(w).T, atol=1e-4)
    for i in range(7):  # bit for bit
        np.testing.assert_array_equal(product(x[i : i + 1], w, 1)[0], together[i])


@needed
def test_product_contracts_the_axes_that_pack_moved():
    rng = np.random.default_rng(0)
    x, w = random(rng, (2, 3, 4, 8)), random(rng, (4, 8, 5, 6))
    found = jax.jit(lambda x, w: kernels.product(x, kernels.pack(w, 2), 2))(x, w)
    np.testing.assert_allclose(found, np.tensordot(wide(x), wide(w), 2), atol=1e-5)


@needed
def test_many_rows_give_what_few_give():
    rng = np.random.default_rng(0)
    x, w = random(rng, (kernels.FEW_ROWS + 1, 64)), random(rng, (32, 64))
    np.testing.assert_allclose(product(x, w, 1)[:5], product(x[:5], w, 1), atol=1e-5)


@needed
def test_head_logits_take_the_head_of_the_codebook():
    rng = np.random.default_rng(0)
    x, heads = random(rng, (2, 32)), random(rng, (4, 50, 32))
    for codebook in range(4):
        found = jax.jit(kernels.head_logits)(x, heads, codebook)
        np.testing.assert_allclose(found, wide(x) @ wide(heads[codebook]).T, atol=1e-5)


@needed
@settings(max_examples=25)
@given(
    st.integers(0, 1000),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 70),
    st.integers(1, 140),
    dtypes,
    st.floats(0.1, 30),
)
def test_attention_reads_the_filled_part_as_numpy_does(seed, rows, heads, filled, width, dtype, sharpness):
    rng = np.random.default_rng(seed)
    capacity = filled + rng.integers(0, 5)
    q = sharpness * random(rng, (rows, heads, 1, width)) / width**0.5
    k, v = (random(rng, (rows, heads, capacity, width), dtype) for _ in range(2))
    bias = random(rng, (heads, 1, capacity))
    poisoned = [x.at[:, :, filled:].set(jnp.nan) for x in (k, v)]
    scores = np.einsum("rhqe,rhte->rhqt", wide(q), wide(k)) + wide(bias)
    weights = np.exp(scores - scores.max(-1, keepdims=True))[..., :filled]
    expected = np.einsum("rhqt,rhte->rhqe", weights / weights.sum(-1, keepdims=True), wide(v)[:, :, :filled])
    found = attend(q, *poisoned, bias, filled)
    assert found.dtype == q.dtype and found.shape == q.shape
    np.testing.assert_allclose(wide(found), expected, atol=1e-4)  # scores of size 30 are rounded at 2e-6 each


@needed
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_attends_alike_alone_and_among_others(dtype):
    rng = np.random.default_rng(0)
    q, bias = random(rng, (6, 4, 1, 64)), random(rng, (4, 1, 700))
    k, v = (random(rng, (6, 4, 700, 64), dtype) for _ in range(2))  # enough for several threads
    together = np.asarray(attend(q, k, v, bias, 650))
    for i in range(6):
        alone = attend(q[i : i + 1], k[i : i + 1], v[i : i + 1], bias, 650)
        np.testing.assert_array_equal(np.asarray(alone)[0], together[i])


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.load.cache_clear()
    yield tmp_path
    kernels.load.cache_clear()


def test_without_a_compiler_load_returns_the_reason(fresh, monkeypatch):
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in kernels.load()


def test_a_failing_compiler_is_named_with_its_message_and_leaves_nothing(fresh, monkeypatch):
    compiler = fresh / "broken-c++"
    compiler.write_text("#!/bin/sh\necho 'no such header' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert kernels.load() == f"{compiler} failed: no such header"
    assert list((fresh / "hafm_jax").iterdir()) == []


@needed
def test_what_is_built_is_kept_and_used_again(fresh, monkeypatch):
    compiler = kernels._compiler()
    built = kernels.library(compiler)
    assert [*(fresh / "hafm_jax").iterdir()] == [built]
    monkeypatch.setattr(kernels.subprocess, "run", None)  # would fail if it were called
    assert kernels.library(compiler) == built


@needed
def test_no_place_to_keep_them_is_a_reason(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    assert "cannot be kept" in kernels.load()
