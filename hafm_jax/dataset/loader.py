"""Batches of crops: a pure function of (seed, step), the same rows in the same order however many processes share them.

A resumed run needs only its step, on any number of machines: process p of P makes rows p * B/P to (p + 1) * B/P of the
global batch and reads nothing else. Grain shuffles, mixes and reads ahead. A crop is whole cells, so all its streams
start and stop together.

Axes: B batch, F frames, K codebooks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import grain
import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.streams import Stage, tokens_of

Batch = dict[str, np.ndarray]  # stream name -> int32 [B, F, K]
Mixture = Sequence[tuple[TokenRecords, float]]  # sets with their weights; usually one set of weight 1

# Reading ahead, so that a slow read delays no step: batches that wait, and the threads that make them.
AHEAD_BATCHES = 8
AHEAD_THREADS = 4


def crop(record: Mapping[str, np.ndarray], stage: Stage, start_cell: int, num_cells: int) -> Batch:
    """The stage's streams over cells start_cell .. start_cell + num_cells: name -> int32 [F, K]."""
    return {
        s.name: tokens_of(s, record)[
            start_cell * s.frames_per_cell : (start_cell + num_cells) * s.frames_per_cell
        ].astype(np.int32)
        for s in stage.streams
    }


def _check_lengths(source: TokenRecords, stage: Stage, num_cells: int) -> None:
    """Raises InputError where no record holds a window of num_cells."""
    longest = source.num_cells.max()
    if longest < num_cells:
        raise InputError(
            f"the longest record of {source.directory} is {longest} cells long; the {stage.name} stage trains on "
            f"windows of {num_cells} cells of 40 ms: use longer songs or set --config.window_cells"
        )


def _mix(parts: Sequence[grain.MapDataset], mixture: Mixture) -> grain.MapDataset:
    """The parts in turn by weight: in any run of rows each part has its share, to a few rows and 1 % of the share."""
    weights = [weight for _, weight in mixture]
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise InputError(
            f"the token sets have the weights {weights}; expected positive numbers: leave out sets of weight 0"
        )
    return grain.MapDataset.mix(parts, weights)


def _rows_of_process(
    rows: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
    """`[step]` is the process's part of global batch `step`. Raises InputError where the batch cannot be divided."""
    if batch_size % process_count:
        raise InputError(
            f"batch_size is {batch_size}; expected a multiple of the {process_count} processes: set --config.batch_size"
        )
    parts = rows.batch(batch_size // process_count, drop_remainder=True)
    return parts[process_index::process_count]  # the parts of a global batch are consecutive


class _RandomCrop(grain.transforms.RandomMap):
    def __init__(self, source: TokenRecords, stage: Stage, num_cells: int):
        self._source, self._stage, self._num_cells = source, stage, num_cells

    def random_map(self, number: int, rng: np.random.Generator) -> Batch:
        last = int(self._source.num_cells[number]) - self._num_cells
        window = self._source.window(number, int(rng.integers(0, last + 1)), self._num_cells)
        return crop(window, self._stage, 0, self._num_cells)


def _random_crops(source: TokenRecords, stage: Stage, num_cells: int, seed: int) -> grain.MapDataset:
    """A crop of every record that holds a window, epoch after epoch, each with another order and other crops."""
    _check_lengths(source, stage, num_cells)
    long_enough = np.flatnonzero(source.num_cells >= num_cells)
    return (
        grain.MapDataset.range(len(long_enough))
        .seed(seed)
        .shuffle()
        .repeat()
        .map(lambda i: int(long_enough[i]))
        .random_map(_RandomCrop(source, stage, num_cells))
    )


def train_batches(
    mixture: Mixture,
    stage: Stage,
    num_cells: int,
    batch_size: int,
    seed: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """A random-access, endless data set: `[step]` holds this process's rows of the step's batch.

    batch_size is the global one. Each set of the mixture has its weight's share of every batch, to a few rows, and has
    its own epochs. Records shorter than the window are left out; raises InputError where a set has no others.
    """
    parts = [_random_crops(source, stage, num_cells, seed + k) for k, (source, _) in enumerate(mixture)]
    return _rows_of_process(_mix(parts, mixture), batch_size, process_index, process_count)


def _windows(source: TokenRecords, stage: Stage, num_cells: int) -> grain.MapDataset:
    """Every record once, cut into windows from its start."""
    _check_lengths(source, stage, num_cells)
    places = [(i, start) for i, n in enumerate(source.num_cells) for start in range(0, n - num_cells + 1, num_cells)]
    return grain.MapDataset.range(len(places)).map(
        lambda k: crop(source.window(*places[k], num_cells), stage, 0, num_cells)
    )


def eval_batches(
    mixture: Mixture,
    stage: Stage,
    num_cells: int,
    batch_size: int,
    max_batches: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """A random-access data set of at most max_batches: this process's rows of global batches of batch_size windows.

    Every record is cut into windows from its start. Each window occurs once; sets are mixed by weight until one has no
    more; a last incomplete batch is dropped. Raises InputError where there is not even one batch.
    """
    rows = _mix([_windows(source, stage, num_cells) for source, _ in mixture], mixture)
    num_batches = min(len(rows) // batch_size, max_batches)
    if not num_batches:
        raise InputError(
            f"the validation split fills no batch of {batch_size} windows of {num_cells} cells: "
            "add songs to it or lower --config.batch_size"
        )
    return _rows_of_process(rows[: num_batches * batch_size], batch_size, process_index, process_count)


def prefetch(batches: grain.MapDataset, first_step: int) -> grain.DatasetIterator[Batch]:
    """batches[first_step], batches[first_step + 1], ..., made ahead by threads. `close()` it to stop them early.

    An error of reading (InputError on a damaged record) is raised at the step that needs the record.
    """
    options = grain.ReadOptions(num_threads=AHEAD_THREADS, prefetch_buffer_size=AHEAD_BATCHES)
    return iter(batches[first_step:].to_iter_dataset(options))
