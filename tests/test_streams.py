from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax import streams
from hafm_jax.streams import STAGES, STREAMS


def test_rates_of_the_paper():
    rates_hz = {"vocal_semantic": 50, "instrumental_semantic": 50, "coarse": 75, "fine": 75}
    assert {name: s.rate_hz for name, s in STREAMS.items()} == rates_hz
    assert STAGES["coarse"].num_tokens(250) == 500 + 500 + 3000  # 10 s
    assert STAGES["semantic"].num_tokens(250) == 1000
    assert STAGES["fine"].num_tokens(250) == 6000


def test_a_cell_is_a_whole_number_of_samples_at_common_rates():
    assert streams.samples_per_cell(16_000) == 640
    assert streams.samples_per_cell(24_000) == 960
    with pytest.raises(ValueError, match="not a whole number"):
        streams.samples_per_cell(24_001)


@given(st.integers(1, 10**7))
def test_cells_cover_the_samples_and_no_more(samples):
    cells = streams.num_cells(samples, 24_000)
    assert (cells - 1) * 960 < samples <= cells * 960


@given(st.integers(0, 7), st.integers(1, 8), st.integers(0, 100))
def test_interleaving_is_frame_major_and_has_an_inverse(num_frames, codebooks, seed):
    frames = np.random.default_rng(seed).integers(0, 1024, (num_frames, codebooks))
    tokens = streams.interleave(frames)
    for position, token in enumerate(tokens):
        assert token == frames[position // codebooks, position % codebooks]


def test_tokens_start_on_the_common_clock():
    for stream in STREAMS.values():
        for token in range(2 * stream.tokens_per_cell):
            seconds = token / (stream.rate_hz * stream.codebooks)
            ticks = token * streams.ticks_per_token(stream)
            assert ticks / (streams.TICKS_PER_CELL * streams.CELLS_PER_S) == pytest.approx(seconds, rel=1e-12)


def test_coarse_and_fine_split_the_eight_codebooks():
    record = {"acoustic": np.arange(24).reshape(3, 8)}
    assert streams.tokens_of(STREAMS["coarse"], record)[0].tolist() == [0, 1, 2, 3]
    assert streams.tokens_of(STREAMS["fine"], record)[0].tolist() == [4, 5, 6, 7]
