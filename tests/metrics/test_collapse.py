"""Loops that are put into random codes are found, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.metrics.collapse import LONGEST_LOOP_S, longest_loop_s

RATE_HZ = 75


def random_codes(frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (frames, 4))


@settings(max_examples=30)
@given(
    period=st.integers(1, int(LONGEST_LOOP_S * RATE_HZ)),
    times=st.integers(3, 8),
    start=st.integers(0, 100),
    seed=st.integers(0, 99),
)
def test_a_loop_is_as_long_as_it_is(period, times, start, seed):
    codes = random_codes(400, seed)
    loop = np.tile(codes[start : start + period], (times, 1))
    codes[start : start + len(loop)] = loop
    assert longest_loop_s(codes, RATE_HZ) == pytest.approx(period * times / RATE_HZ)


def test_random_codes_and_long_loops_are_none():
    codes = random_codes(300, 0)
    assert longest_loop_s(codes, RATE_HZ) == 0
    assert longest_loop_s(np.tile(codes[:40], (5, 1)), RATE_HZ) == 0


def test_one_codebook_that_moves_is_enough():
    codes = np.repeat(random_codes(1, 1), 200, axis=0)
    assert longest_loop_s(codes, RATE_HZ) == pytest.approx(200 / RATE_HZ)
    codes[:, 3] = random_codes(200, 2)[:, 3]
    assert longest_loop_s(codes, RATE_HZ) == 0


def test_loops_count_only_inside_the_mask():
    codes = np.repeat(random_codes(1, 3), 200, axis=0)
    where = np.arange(200) < 80
    assert longest_loop_s(codes, RATE_HZ, where) == pytest.approx(80 / RATE_HZ)
