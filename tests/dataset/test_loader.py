from __future__ import annotations

import functools

import numpy as np
import pytest
from helpers import Songs, random_record
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.dataset import layout, loader, records, writer
from hafm_jax.streams import STAGES

RECORDS = Songs(random_record(20 + i, seed=i) for i in range(5))
SEMANTIC = STAGES["semantic"]


def find(batch, stage, i):
    """(record, first cell) of crop i of a batch, the same for all its streams."""
    for r, record in enumerate(RECORDS):
        for start in range(layout.cells_of(record) - 7):
            expected = loader.crop(record, stage, start, 8)
            if all(np.array_equal(batch[name][i], expected[name]) for name in expected):
                return r, start
    raise AssertionError("a crop of no record")


@functools.cache
def labelled(first_label: int, num_records: int) -> Songs:
    """Records that any crop identifies: all vocal tokens of one are its label. Many, where the number does not matter:
    to shuffle the index of a few records takes Grain a hundred times as long."""
    numbers = range(first_label, first_label + num_records)
    return Songs(random_record(3, seed=label) | {"vocal_semantic": np.full(6, label)} for label in numbers)


def together(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The global batch of the processes' own."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def labels(batches, steps) -> list[int]:
    return [int(row[0, 0]) for step in steps for row in batches[step]["vocal_semantic"]]


@pytest.fixture
def token_set(tmp_path):
    songs = [{"id": f"song {i}"} | record for i, record in enumerate(RECORDS)]
    writer.write_split(tmp_path, "train", songs, num_shards=2)
    return tmp_path


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda s: s.name)
def test_a_crop_is_the_same_time_of_one_song_in_every_stream(stage):
    batch = loader.train_batches([(RECORDS, 1)], stage, 8, 5, seed=0)[0]
    shapes = {s.name: (5, 8 * s.frames_per_cell, s.codebooks) for s in stage.streams}
    assert {name: b.shape for name, b in batch.items()} == shapes
    found = [find(batch, stage, i) for i in range(5)]
    assert sorted(r for r, _ in found) == [0, 1, 2, 3, 4]  # an epoch is every song once
    assert len({start for _, start in found}) > 1


def test_a_batch_is_a_function_of_seed_and_step():
    def batch(seed, step):
        return loader.train_batches([(RECORDS, 1)], SEMANTIC, 8, 4, seed)[step]["vocal_semantic"]

    np.testing.assert_array_equal(batch(0, 37), batch(0, 37))
    assert not np.array_equal(batch(0, 37), batch(0, 38))
    assert not np.array_equal(batch(0, 37), batch(1, 37))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    step=st.integers(0, 10**9),
    rows=st.integers(1, 3),
    process_count=st.sampled_from([2, 3, 8]),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=3),
)
def test_the_global_batch_is_the_same_rows_for_any_number_of_processes(seed, step, rows, process_count, weights):
    mixture = [(labelled(100 * k, 60 + k), weight) for k, weight in enumerate(weights)]
    arguments = (mixture, SEMANTIC, 2, rows * process_count, seed)
    whole = loader.train_batches(*arguments)[step]
    parts = [
        loader.train_batches(*arguments, process_index=p, process_count=process_count)[step]
        for p in range(process_count)
    ]
    np.testing.assert_equal(together(parts), whole)


def test_a_process_reads_its_own_rows_only():
    source = Songs(RECORDS)
    batches = loader.train_batches([(source, 1)], SEMANTIC, 8, 12, 0, process_index=1, process_count=4)
    assert len(batches[5]["vocal_semantic"]) == source.reads == 3


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(InputError, match="expected a multiple of the 3"):
        loader.train_batches([(RECORDS, 1)], SEMANTIC, 8, 4, 0, process_count=3)


def test_short_songs_are_left_out_and_a_set_of_them_refused():
    stage = STAGES["coarse"]
    batch = loader.train_batches([(RECORDS, 1)], stage, 22, 6, 0)[0]  # only three songs are long enough
    assert batch["coarse"].shape == (6, 66, 4)
    with pytest.raises(InputError, match="20 cells"):
        loader.train_batches([(Songs(RECORDS[:1]), 1)], stage, 21, 1, 0)


# ------------------------------------------------------------------------------------------------------------ mixture


@settings(max_examples=15)
@given(
    weights=st.lists(st.floats(0.05, 20), min_size=1, max_size=4),
    batch_size=st.integers(30, 90),
    step=st.integers(0, 10**6),
)
def test_each_set_has_its_share_of_every_batch(weights, batch_size, step):
    mixture = [(labelled(100 * k, 60), weight) for k, weight in enumerate(weights)]
    found = labels(loader.train_batches(mixture, SEMANTIC, 2, batch_size, 0), [step])
    for k, weight in enumerate(weights):
        share = sum(label // 100 == k for label in found)
        assert abs(share - batch_size * weight / sum(weights)) < 3 + 0.01 * batch_size


def test_each_set_of_a_mixture_goes_through_all_its_records_every_epoch():
    sizes, weights = [7, 9], [1, 2.5]
    mixture = [(labelled(100 * k, n), w) for k, (n, w) in enumerate(zip(sizes, weights, strict=True))]
    batches = loader.train_batches(mixture, SEMANTIC, 2, 6, seed=3)
    found = labels(batches, range(30))
    for k, size in enumerate(sizes):
        of_set = [label for label in found if label // 100 == k]
        epochs = [of_set[start : start + size] for start in range(0, len(of_set) - size + 1, size)]
        assert len(epochs) > 5
        assert all(sorted(epoch) == list(range(100 * k, 100 * k + size)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) > len(epochs) // 2  # the order changes


def test_the_first_set_is_drawn_as_if_alone():
    alone = labels(loader.train_batches([(labelled(0, 9), 1)], SEMANTIC, 2, 8, 5), range(10))
    mixture = [(labelled(0, 9), 3), (labelled(100, 9), 1)]
    mixed = [n for n in labels(loader.train_batches(mixture, SEMANTIC, 2, 8, 5), range(10)) if n < 100]
    assert len(mixed) == 60 and mixed == alone[:60]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_not_a_share_is_refused(weight):
    with pytest.raises(InputError, match="weights"):
        loader.train_batches([(RECORDS, 1), (RECORDS, weight)], SEMANTIC, 8, 2, 0)


# ------------------------------------------------------------------------------------------------------- reading ahead


@pytest.mark.parametrize("first_step", [0, 5, 123_456])
def test_a_stream_is_the_batches_from_its_first_step_on(first_step):
    mixture = [(labelled(0, 60), 1), (labelled(100, 40), 2)]
    batches = loader.train_batches(mixture, SEMANTIC, 2, 8, 0, process_index=1, process_count=2)
    iterator = loader.prefetch(batches, first_step)
    for step in range(first_step, first_step + 3 * loader.AHEAD_BATCHES):
        np.testing.assert_equal(next(iterator), batches[step])
    iterator.close()


def test_damage_met_while_reading_ahead_stops_the_step_that_needs_it(token_set):
    source = records.TokenRecords(token_set, "train")
    batches = loader.train_batches([(source, 1)], SEMANTIC, 8, 1, 0)
    order = [find(batches[step], SEMANTIC, 0)[0] for step in range(5)]
    path = token_set / layout.shard_name("train", 1, 2)
    path.write_bytes(path.read_bytes()[:-10] + bytes(10))  # the end of the second shard: song 3
    iterator = loader.prefetch(batches, 0)
    for _ in range(order.index(3)):
        next(iterator)
    with pytest.raises(InputError, match=r"00001-of-00002 at byte \d+: the record's checksum"):
        next(iterator)


# ------------------------------------------------------------------------------------------------------------- lengths


def test_lengths_are_known_without_reading_songs(token_set, monkeypatch):
    source = records.TokenRecords(token_set, "train")
    with monkeypatch.context() as patch:
        patch.setattr(records.TokenRecords, "window", lambda *_: pytest.fail("a song was read"))
        batches = loader.train_batches([(source, 1)], SEMANTIC, 22, 3, 0)
    expected = {record["vocal_semantic"].tobytes() for record in RECORDS[2:]}  # those of 22 cells and more
    crops = batches[0]["vocal_semantic"]
    assert len({song for song in expected for row in crops if row.tobytes() in song}) == 3


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_covers_every_window_once():
    batches = loader.eval_batches([(RECORDS, 1)], SEMANTIC, 8, 2, max_batches=99)
    found = [find(batch, SEMANTIC, i) for batch in batches for i in range(2)]
    assert found == [(song, start) for song in range(5) for start in (0, 8)]  # the 11th, of song 4, fills no batch
    assert len(loader.eval_batches([(RECORDS, 1)], SEMANTIC, 8, 2, max_batches=3)) == 3
    with pytest.raises(InputError, match="fills no batch"):
        loader.eval_batches([(Songs(RECORDS[:1]), 1)], SEMANTIC, 8, 64, 1)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_out_the_evaluation_batches(process_count):
    mixture = [(labelled(0, 7), 1), (labelled(100, 20), 3)]
    whole = list(loader.eval_batches(mixture, SEMANTIC, 2, 4, 99))
    parts = [
        list(loader.eval_batches(mixture, SEMANTIC, 2, 4, 99, process_index=p, process_count=process_count))
        for p in range(process_count)
    ]
    assert len(whole) == 6  # 20 windows are three quarters of 26, six batches of four and a rest
    assert {len(part) for part in parts} == {6}
    np.testing.assert_equal([together(step) for step in zip(*parts, strict=True)], whole)
    assert [int(row[0, 0] >= 100) for batch in whole for row in batch["vocal_semantic"]].count(1) == 18
