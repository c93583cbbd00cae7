from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from helpers import FULL_COMPILATION

from hafm_jax.accompany import Accompanist, SamplingOptions
from hafm_jax.common.errors import InputError
from hafm_jax.model import decode, memory, transformer
from hafm_jax.model.config import StageConfig
from hafm_jax.model.cpu import kernels
from hafm_jax.model.sampling import Rows, Sampling
from hafm_jax.model.weights import CACHE_GROWTH_TOKENS, Weights

KERNELS = pytest.mark.skipif(kernels.load() is not None, reason=str(kernels.load()))


@pytest.mark.parametrize(
    ("stage", "size", "batch", "rows", "packed"),
    [
        pytest.param("semantic", "base", 8, Rows(True, True), True, marks=KERNELS),
        pytest.param("coarse", "demo", 16, Rows(True, False), True, marks=KERNELS),
        pytest.param("coarse", "base", 1, Rows(True, False), True, marks=KERNELS),
        pytest.param("fine", "base", 1, Rows(True, False), True, marks=KERNELS),
        ("coarse", "base", 8, Rows(True, False), False),
        ("fine", "base", 1, Rows(False, False), False),
    ],
)
def test_the_stated_memory_is_the_compilers_plan_or_a_little_more(stage, size, batch, rows, packed):
    config = StageConfig.of_size(stage, size, num_layers=2, window_cells=250, compute_dtype="float32")
    shapes = [(batch, config.window_cells * s.frames_per_cell, s.codebooks) for s in config.stage.streams]
    *conditions, target = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes)
    weights = jax.eval_shape(
        lambda: Weights.prepare(
            config, jax.tree.map(jnp.zeros_like, transformer.init(config, jax.random.key(0))), packed
        )
    )
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    whole = config.stage.num_tokens(config.window_cells)
    prefill = decode._prefill.lower(config, weights, conditions, target, rows, whole)
    extend = decode._extend.lower(config, weights, prefill.out_info, target, 0, 1, keys, 0, Sampling(), rows)
    # Not conftest's flags: with less effort the compiler plans more memory.
    plans = [lowered.compile(compiler_options=FULL_COMPILATION).memory_analysis() for lowered in (prefill, extend)]
    planned = max(plan.output_size_in_bytes + plan.temp_size_in_bytes for plan in plans)
    if not packed:  # the cache grows: the whole of the old one is there until the whole of the new one is
        before = whole - whole % CACHE_GROWTH_TOKENS
        planned = max(planned, plans[0].output_size_in_bytes * (before + whole) // whole)
    assert planned < memory.window_bytes(config, batch * rows.num, packed) < (2 if packed else 2.5) * planned


def test_the_error_for_too_many_samples_has_the_number_that_fits(tiny_model, monkeypatch):
    accompanist = Accompanist.load(str(tiny_model))

    def check(num_samples, guidance_scale=3.0, seconds=1):
        options = SamplingOptions(num_samples, Sampling(guidance_scale))
        accompanist.check_memory(options, (1, 24_000 * seconds), 24_000)

    three = accompanist.needed_bytes(SamplingOptions(3, Sampling()), (1, 24_000), 24_000)
    monkeypatch.setattr(memory, "available_bytes", lambda: three)
    check(3)
    with pytest.raises(InputError, match=r"4 samples at once need .* 3 would fit"):
        check(4)
    check(4, guidance_scale=1.0)  # half the rows
    with pytest.raises(InputError, match="not even one fits"):
        check(4, seconds=3600)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1)
    with pytest.raises(InputError, match="not even one fits"):
        check(4)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)  # unknown
    check(4)


def test_this_machine_has_some_memory():
    available = memory.available_bytes()
    assert available is None or 1e6 < available < 1e15
