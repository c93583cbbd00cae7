from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.model import position
from hafm_jax.streams import STAGES


def slow_bucket(distance: int, num_buckets: int, max_distance: float) -> int:
    exact = num_buckets // 2
    if distance < exact:
        return distance
    log = np.log(distance / exact) / np.log(max_distance / exact)
    return min(exact + int(log * (num_buckets - exact)), num_buckets - 1)


@given(st.integers(0, 10_000))
def test_t5_buckets_agree_with_the_definition(distance):
    assert position.t5_bucket(np.array(distance), 32, 128) == slow_bucket(distance, 32, 128)


# T5's own, and those of `clock` for 50 and for 300 differences a second.
@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (64, 1500), (64, 9000)])
def test_t5_buckets_agree_with_transformers_at_every_distance(num_buckets, max_distance):
    torch = pytest.importorskip("torch", reason="needs the extra hafm_jax[torch]")
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


def slow_bias(tables, stage, num_cells, mode):
    """Token by token, from each token's time in seconds (clock) or place (index)."""
    tokens = []
    for s in stage.streams:
        tokens += [(s, i) for i in range(num_cells * s.tokens_per_cell)]
    heads = next(iter(tables.values())).shape[1]
    bias = np.full((heads, len(tokens), len(tokens)), position.MASKED, np.float32)
    for q, (qs, qi) in enumerate(tokens):
        for k, (ks, ki) in enumerate(tokens[: q + 1]):
            if mode == "index":
                bias[:, q, k] = tables["sequence_to_sequence"][slow_bucket(q - k, 32, 128)]
                continue
            # In units of the pair's common spacing: 300 tokens/s acoustic, 50 semantic.
            rate = np.lcm(qs.rate_hz * qs.codebooks, ks.rate_hz * ks.codebooks)
            difference = round(qi / (qs.rate_hz * qs.codebooks) * rate - ki / (ks.rate_hz * ks.codebooks) * rate)
            bucket = slow_bucket(abs(difference), 64, 30.0 * rate)
            bias[:, q, k] = tables[f"{qs.name}_to_{ks.name}"][bucket + 64 * (difference < 0)]
    return bias


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
    expected = slow_bias(tables, stage, num_cells, mode)
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
