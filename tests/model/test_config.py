"""The numbers and words of a stage's configuration, of whatever type they are where a file of strangers has them."""

from __future__ import annotations

from dataclasses import fields

import jax
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hafm_jax.accompany import SamplingOptions
from hafm_jax.common.errors import InputError
from hafm_jax.common.options import from_fields
from hafm_jax.model import ranges, transformer
from hafm_jax.model.config import StageConfig, find_size, num_parameters
from hafm_jax.model.sampling import Sampling

GOOD = {"stage_name": "coarse", "d_model": 16, "num_layers": 1, "num_heads": 2, "window_cells": 4}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.integers(1, 64),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
numbers = st.integers(-2, 2**40) | st.floats() | values


def test_every_number_has_a_range():
    assert [f.name for f in fields(StageConfig) if f.type == "int"] == list(ranges.STAGE)
    assert set(Sampling._fields) == set(ranges.SAMPLING)
    Sampling.checked()


@given(st.dictionaries(st.sampled_from([f.name for f in fields(StageConfig)]), numbers, max_size=3) | values)
@example({"num_layers": 0})
@example({"num_layers": -1})
@example({"num_heads": 0})
@example({"d_model": 0})
@example({"d_model": 10**30})
@example({"window_cells": 2.5})
@example({"window_cells": True})
@example({"colour": 1})
def test_a_stage_is_a_model_or_is_refused_by_name(found):
    try:
        config = from_fields(StageConfig, GOOD | found if isinstance(found, dict) else found, "m/config.json")
    except InputError as error:
        assert str(error).startswith("m/config.json: ")
        return
    shapes = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
    assert num_parameters(config) == sum(x.size for x in jax.tree.leaves(shapes)) > 0


@given(st.dictionaries(st.sampled_from(Sampling._fields), numbers, max_size=3) | values)
@example({"temperature": -1})
@example({"temperature": float("nan")})
@example({"top_p": 7})
@example({"top_p": 0})
@example({"top_k": -5})
@example({"top_k": 2.0})
@example({"guidance_scale": float("inf")})
@example({"guidance_scale": None})
@example({"no_history_scale": "x"})
@example({"temperature": True})
def test_sampling_is_numbers_in_their_ranges_or_is_refused_by_name(found):
    try:
        sampling = from_fields(Sampling.checked, found, "m/config.json")
    except InputError as error:
        assert str(error).startswith("m/config.json: ")
        if isinstance(found, dict) and found.keys() <= set(Sampling._fields):
            assert any(name in str(error) for name in found)
            with pytest.raises(InputError, match="the fine sampling: "):  # from Python too
                SamplingOptions(sampling={"coarse": Sampling(), "fine": Sampling(**found)})
            with pytest.raises(InputError, match="the sampling: "):
                SamplingOptions(sampling=Sampling(**found))
        return
    SamplingOptions(sampling=sampling)
    for name, (kind, low, high) in ranges.SAMPLING.items():
        assert type(getattr(sampling, name)) in (int, kind) and low <= getattr(sampling, name) <= high


@given(values)
@example("0x1x1")
@example("9" * 5000 + "x1x1")
@example("٣x1x1")
def test_a_size_is_known_or_refused(name):
    with pytest.raises(InputError, match="WIDTHxLAYERSxHEADS"):
        find_size(name)


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True, "2", None])
def test_a_number_of_samples_is_a_whole_one(num_samples):
    with pytest.raises(InputError, match="num_samples is"):
        SamplingOptions(num_samples=num_samples)
