"""Batches of crops: a pure function of (seed, step, process).

The same arguments give the same batch on any machine, so a resumed run needs only its step. Grain does the shuffling
and the reading ahead; a crop is whole cells, so all streams of it start and stop together.

Axes: B batch, F frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from hafm_jax.errors import InputError
from hafm_jax.streams import Stage, tokens_of

Batch = dict[str, np.ndarray]  # stream name -> int32 [B, F, K]


def num_record_cells(record: Mapping[str, np.ndarray], stage: Stage) -> int:
    return len(tokens_of(stage.target, record)) // stage.target.frames_per_cell


def crop(record: Mapping[str, np.ndarray], stage: Stage, start_cell: int, num_cells: int) -> Batch:
    """The stage's streams over cells start_cell .. start_cell + num_cells: name -> int32 [F, K]."""
    return {
        s.name: tokens_of(s, record)[
            start_cell * s.frames_per_cell : (start_cell + num_cells) * s.frames_per_cell
        ].astype(np.int32)
        for s in stage.streams
    }


def _long_enough(source: Sequence[Any], stage: Stage, num_cells: int) -> list[int]:
    """Indices of the records that hold a window. Raises InputError where there is none."""
    if len(source) == 0:
        raise InputError("the token set holds no record; expected at least one: run extract_tokens.py on more songs")
    cells = [num_record_cells(source[i], stage) for i in range(len(source))]
    if max(cells) < num_cells:
        raise InputError(
            f"the longest record is {max(cells)} cells long; the {stage.name} stage trains on windows of {num_cells} "
            "cells of 40 ms: use longer songs or set --config.window_cells"
        )
    return [i for i, n in enumerate(cells) if n >= num_cells]


class _RandomCrop(grain.transforms.RandomMap):
    def __init__(self, stage: Stage, num_cells: int):
        self._stage, self._num_cells = stage, num_cells

    def random_map(self, record: Mapping[str, np.ndarray], rng: np.random.Generator) -> Batch:
        last = num_record_cells(record, self._stage) - self._num_cells
        return crop(record, self._stage, int(rng.integers(0, max(last, 0) + 1)), self._num_cells)


def train_batches(
    source: Sequence[Any],
    stage: Stage,
    num_cells: int,
    batch_size: int,
    seed: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """A random-access, endless data set: `[step]` is this process's part of the step's batch.

    batch_size is the global one. Records shorter than the window are left out; InputError where all are.
    """
    if batch_size % process_count:
        raise InputError(f"batch_size {batch_size} is no multiple of the {process_count} processes")
    long_enough = _long_enough(source, stage, num_cells)
    return (
        grain.MapDataset.range(len(long_enough))
        .seed(seed)
        .shuffle()
        .repeat()
        .map(lambda i: source[long_enough[i]])
        .random_map(_RandomCrop(stage, num_cells))
        .slice(slice(process_index, None, process_count))
        .batch(batch_size // process_count)
    )


def eval_batches(
    source: Sequence[Any], stage: Stage, num_cells: int, batch_size: int, max_batches: int
) -> Iterator[Batch]:
    """Every record once, cut into windows from its start; the same batches each time, a last part batch dropped.

    Raises InputError where there is not even one batch.
    """
    pending, made = [], 0
    for i in _long_enough(source, stage, num_cells):
        record = source[i]
        for start in range(0, num_record_cells(record, stage) - num_cells + 1, num_cells):
            pending.append(crop(record, stage, start, num_cells))
            if len(pending) == batch_size:
                yield {name: np.stack([c[name] for c in pending]) for name in pending[0]}
                pending, made = [], made + 1
                if made == max_batches:
                    return
    if not made:
        raise InputError(
            f"the validation split fills no batch of {batch_size} windows of {num_cells} cells: "
            "add songs to it or lower --config.batch_size"
        )
