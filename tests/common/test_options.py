from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.common.options import check_at_least, local, local_path, number


@given(value=st.floats(allow_nan=True, allow_infinity=True), low=st.integers(-10, 10), bounded=st.booleans())
def test_numbers_are_finite_and_in_their_bounds(value, low, bounded):
    parse = number(float, low, 20) if bounded else number(float, low)
    if math.isfinite(value) and low <= value and not (bounded and value > 20):
        assert parse(repr(value)) == value
        check_at_least(argparse.Namespace(max_seconds=value), max_seconds=low)
    else:
        with pytest.raises(argparse.ArgumentTypeError, match="expected a number from"):
            parse(repr(value))
        if not (bounded and math.isfinite(value) and value >= low):
            with pytest.raises(InputError, match=r"--max-seconds is .*; expected a number, "):
                check_at_least(argparse.Namespace(max_seconds=value), max_seconds=low)


@pytest.mark.parametrize("text", ["inf", "nan", "1.5", "", "9" * 5000, "1e3"])
def test_whole_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 0"):
        number(int, 0)(text)
    assert number(int, 0)("12") == 12


@given(scheme=st.from_regex(r"[a-zA-Z][a-zA-Z0-9+.-]{0,8}", fullmatch=True), rest=st.text())
def test_an_address_is_not_a_path(scheme, rest):
    for parse in (local, local_path):
        with pytest.raises(InputError, match="is an address; expected a file or folder of this machine"):
            parse(f"{scheme}://{rest}")


@pytest.mark.parametrize(
    "text", ["a", "a/b", "./gs:/b", "gs:/b", "/a//b", "C:\\x", "://", "2://x", "set=0.5", "a b://c"]
)
def test_paths_stay_as_they_are(text):
    assert local(text) == text and local_path(text) == Path(text)
