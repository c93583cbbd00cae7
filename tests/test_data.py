from __future__ import annotations

import numpy as np
import pytest
from conftest import random_record

from hafm_jax import data
from hafm_jax.errors import InputError
from hafm_jax.streams import STAGES

RECORDS = [random_record(20 + i, seed=i) for i in range(5)]


def find(batch, stage, i):
    """Which record, and from which cell, crop i of a batch is: all its streams must say the same."""
    for r, record in enumerate(RECORDS):
        for start in range(data.num_record_cells(record, stage) - 7):
            expected = data.crop(record, stage, start, 8)
            if all(np.array_equal(batch[name][i], expected[name]) for name in expected):
                return r, start
    raise AssertionError("a crop that stands in no record")


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda s: s.name)
def test_a_crop_is_the_same_time_of_one_song_in_every_stream(stage):
    batch = data.train_batches(RECORDS, stage, 8, 5, seed=0)[0]
    assert {name: b.shape for name, b in batch.items()} == {
        s.name: (5, 8 * s.frames_per_cell, s.codebooks) for s in stage.streams
    }
    found = [find(batch, stage, i) for i in range(5)]
    assert sorted(r for r, _ in found) == [0, 1, 2, 3, 4]  # an epoch is every song once
    assert len({start for _, start in found}) > 1


def test_a_batch_is_a_function_of_seed_and_step():
    stage = STAGES["semantic"]

    def batch(seed, step):
        return data.train_batches(RECORDS, stage, 8, 4, seed)[step]["vocal_semantic"]

    np.testing.assert_array_equal(batch(0, 37), batch(0, 37))
    assert not np.array_equal(batch(0, 37), batch(0, 38))
    assert not np.array_equal(batch(0, 37), batch(1, 37))


def test_processes_share_out_the_global_batch():
    stage = STAGES["semantic"]
    whole = data.train_batches(RECORDS, stage, 8, 4, 0)[3]["vocal_semantic"]
    parts = [
        data.train_batches(RECORDS, stage, 8, 4, 0, process_index=p, process_count=2)[3]["vocal_semantic"]
        for p in (0, 1)
    ]
    assert sorted(map(bytes, whole)) == sorted(bytes(x) for part in parts for x in part)


def test_short_songs_are_left_out_and_a_set_of_them_refused():
    stage = STAGES["coarse"]
    batch = data.train_batches(RECORDS, stage, 22, 6, 0)[0]  # only three songs are long enough
    assert batch["coarse"].shape == (6, 66, 4)
    with pytest.raises(InputError, match="20 cells"):
        data.train_batches(RECORDS[:1], stage, 21, 1, 0)
    with pytest.raises(InputError, match="no record"):
        data.train_batches([], stage, 8, 1, 0)


def test_evaluation_covers_every_window_once():
    stage = STAGES["semantic"]
    batches = list(data.eval_batches(RECORDS, stage, 8, 2, max_batches=99))
    assert len(batches) == 5 * 2 // 2 + (1 if sum((20 + i) // 8 for i in range(5)) > 11 else 0)
    found = [find(b, stage, i) for b in batches for i in range(2)]
    assert len(set(found)) == len(found)
    with pytest.raises(InputError, match="fills no batch"):
        list(data.eval_batches(RECORDS[:1], stage, 8, 64, 1))
