"""What users set for a run: numbers and words of every kind, token sets with weights, folders with odd names."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from configs.base import get_config
from hafm_jax.common.errors import InputError
from hafm_jax.training.settings import FIELDS, RANGES, check_config, token_sets
from hafm_jax.training.step import stage_config

keys = st.text(max_size=3).filter(lambda key: "." not in key)  # ml_collections itself refuses a dot
# What a Python file or a JSON file may hold.
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["-1", "nan"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=3,
)


def with_fields(**fields) -> ConfigDict:
    return ConfigDict(get_config().to_dict() | {"size": "16x1x1"} | fields)


@given(name=st.sampled_from(sorted(FIELDS)), value=values)
@example("beta1", math.nan)
@example("learning_rate", math.inf)
@example("z_loss", 10**400)
@example("seed", 2**31)
@example("steps", True)
@example("log_every", 2.5)
@example("mesh", {"data": 2.5, "fsdp": 1, "tensor": 1})
@example("mesh", {"data": 1})
@example("sampling", {"temperature": -1.0})
@example("window_cells", 0)
def test_a_field_is_usable_or_refused_by_name(name, value):
    config = with_fields(**{name: value})
    try:
        check_config(config)
    except InputError as error:
        assert name in str(error) and "expected" in str(error)
        return
    if name in RANGES:
        kind, low, high = RANGES[name]
        assert type(value) in (int, kind) and low <= value <= high and value < math.inf
    stage_config(config)


@given(kept=st.sets(st.sampled_from(sorted(FIELDS))))
def test_a_configuration_without_all_fields_is_refused(kept):
    assume(kept != set(FIELDS))
    config = ConfigDict({name: value for name, value in get_config().to_dict().items() if name in kept})
    with pytest.raises(InputError, match=r"expected all fields of configs/base\.py"):
        check_config(config)


def test_weights_follow_the_last_equals_sign():
    assert token_sets(["a", "b=2", "c/d=0.5"]) == [(Path("a"), 1.0), (Path("b"), 2.0), (Path("c/d"), 0.5)]
    for argument in ("a=much", "=2", "=", "a="):
        with pytest.raises(InputError, match="is not a weight"):
            token_sets([argument])


names = st.text("ab=.05", min_size=1, max_size=6).filter(lambda name: name.strip(".") and name[0] != "=")


@given(name=names, weight=st.sampled_from(["0.5", "2", "1e3"]))
def test_a_folder_is_itself_whatever_its_name(name, weight, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens") / name
    folder.mkdir()
    assert token_sets([str(folder)]) == [(folder, 1.0)]
    assert token_sets([f"{folder}={weight}"]) == [(folder, float(weight))]

    os.mkdir(both := f"{folder}={weight}")  # now there are two readings
    with pytest.raises(InputError, match="and both are there") as refused:
        token_sets([both])
    assert both in str(refused.value) and f"{folder} with the weight {weight}" in str(refused.value)
    assert token_sets([f"{both}=1"]) == [(Path(both), 1.0)]
    assert token_sets([f"{folder}/={weight}"]) == [(folder, float(weight))]


def test_names_that_no_folder_can_have_are_not_there():
    assert token_sets(["a" * 300]) == [(Path("a" * 300), 1.0)]
    with pytest.raises(InputError, match="is not a weight"):
        token_sets(["a" * 300 + "=b"])
