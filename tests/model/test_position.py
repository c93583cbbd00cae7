from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config

from hafm_jax.model import position
from hafm_jax.streams import STAGES

pytest.importorskip("torch", reason="needs the extra hafm_jax[torch]")

import torch
from helpers import stage_reference


# T5's own, and those of `clock` for 50 and for 300 differences a second.
@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (64, 1500), (64, 9000)])
def test_t5_buckets_agree_with_transformers_at_every_distance(num_buckets, max_distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5", reason="needs the extra hafm_jax[torch]")
    distance = np.arange(10_001)
    # Keys before the query have negative positions there, and buckets are found in float32. Yet none may differ: the
    # logarithm nearest to a boundary is 4e-5 of a bucket away (1e-2 for T5's own), float32 errs by some 4e-6.
    expected = t5.T5Attention._relative_position_bucket(
        -torch.from_numpy(distance), bidirectional=False, num_buckets=num_buckets, max_distance=max_distance
    )
    np.testing.assert_array_equal(position.t5_bucket(distance, num_buckets, max_distance), expected.numpy())


def test_clock_distinguishes_neighbouring_frames_and_future_from_past():
    near = position.clock_bucket(np.arange(-31, 32), 1500)
    assert len(set(near.tolist())) == 63
    far = position.clock_bucket(np.array([-1400, -700, 700, 1400]), 1500)
    assert len(set(far.tolist())) == 4 and set(far.tolist()).isdisjoint(near.tolist())


@pytest.mark.parametrize("mode", ["clock", "index"])
@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda s: s.name)
def test_rows_agree_with_a_token_by_token_reference(stage, mode):
    rng = np.random.default_rng(0)
    tables = {
        name: rng.standard_normal((position.table_buckets(mode), 2)).astype(np.float32)
        for name in position.table_names(stage, mode)
    }
    num_cells = 6
    bias = position.PositionBias({k: jnp.asarray(v) for k, v in tables.items()}, stage, num_cells, mode)
    as_torch = {name: torch.from_numpy(table) for name, table in tables.items()}
    expected = stage_reference.bias(tiny_config(stage.name, mode), as_torch, num_cells).numpy()
    expected = np.where(np.isneginf(expected), position.MASKED, expected).astype(np.float32)
    offset = 0
    for segment in bias.segments:
        rows = jax.jit(lambda s=segment: bias.rows(s, 3, s.length, s.length))()
        stop = offset + segment.length
        np.testing.assert_array_equal(rows, expected[:, offset + 3 : stop, :stop])
        row = jax.jit(lambda i, s=segment: bias.row(s, i, 8))(5)
        np.testing.assert_array_equal(row, expected[:, offset + 5, : offset + 8])
        offset = stop


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda s: s.name)
def test_clock_starts_as_power_laws_of_the_time_difference(stage):
    tables = position.initial_tables(stage, "clock", 4)
    assert tables.keys() == set(position.table_names(stage, "clock"))
    for query in stage.streams:
        for key in stage.streams[: stage.streams.index(query) + 1]:
            table = tables[f"{query.name}_to_{key.name}"]
            assert table.shape == (position.table_buckets("clock"), 4)
            rate_hz = np.lcm(query.rate_hz * query.codebooks, key.rate_hz * key.codebooks)
            frames = np.arange(32) / rate_hz * 75  # the exact buckets' differences, in frames of 75 Hz
            for head, strength in enumerate((0, 1, 2, 3)):
                np.testing.assert_allclose(np.exp(table[:32, head]), (1 + frames) ** -strength, rtol=1e-5)
            np.testing.assert_array_equal(table[:64], table[64:])  # past and future alike
            assert (np.diff(table[:64, 1:], axis=0) < 0).all()
            assert (table[63, 1:] > -np.array([1, 2, 3]) * np.log(1 + 30 * 75)).all()  # 30 s are in the last bucket


def test_index_starts_without_preference():
    assert all((table == 0).all() for table in position.initial_tables(STAGES["fine"], "index", 2).values())
