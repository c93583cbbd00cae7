"""Random access to the records of a split (hafm_jax.dataset.layout).

Axes: N cells of one song.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_bounded, reading
from hafm_jax.common.system import BINARY, read_at
from hafm_jax.dataset.examples import decode_example
from hafm_jax.dataset.layout import cells_of, index_name, index_sha256, shards
from hafm_jax.dataset.tfrecord import framed_size, unframe, walk_records

MOST_INDEX_BYTES = 2**28  # ours: the list of eight million songs


class TokenRecords:
    """Random access to the records of a split; a Grain data source.

    `records[i]` is a dict with `id` (str), `vocal_semantic` int32 [2N], `instrumental_semantic` int32 [2N] and
    `acoustic` int32 [3N, 8]; `window` is a part of one, without the cost of decoding the rest. The place of each record
    is read from the list beside the shards, or from the records' headers. Each process opens a file when it first reads
    it, and reads by position, so threads and forked workers never disturb others. Raises InputError, with file and byte
    offset, on a wrong checksum, a file cut short or a wrong shape.
    """

    def __init__(self, directory: str | os.PathLike, split: str) -> None:
        self.directory, self.split = Path(directory), split
        self._paths = shards(self.directory, split)
        self._files: dict[int, int] = {}  # shard -> file descriptor
        try:
            indexes = read_index(self.directory, self.split, self._paths)
        except InputError as error:
            print(f"{error}; the shards are read instead, which takes longer", file=sys.stderr)
            indexes = [[[length, crc, -1] for _, length, crc in walk_records(path)] for path in self._paths]
        self._shard = np.repeat(np.arange(len(indexes)), [len(index) for index in indexes])  # [records]
        rows = [np.array(index, np.int64).reshape(-1, 3) for index in indexes]
        self._offset = np.concatenate([_offsets(row[:, 0]) for row in rows])  # [records], of the record's header
        self._index = np.concatenate(rows)  # [records, 3]: length and CRC of the payload, cells (-1: not known)
        if not len(self._index):
            raise InputError(
                f"{self._paths[0]} and the other shards of {split} hold no records; expected some: extract the tokens "
                "again"
            )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.window(number)

    def window(self, number: int, first_cell: int = 0, num_cells: int | None = None) -> dict[str, Any]:
        """num_cells of the record from first_cell, all cells by default; the checksum is always of the whole record."""
        number = range(len(self))[number]  # negative numbers count from the end, others raise IndexError
        shard, offset = int(self._shard[number]), int(self._offset[number])
        length, crc, _ = (int(value) for value in self._index[number])
        where = f"{self._paths[shard]} at byte {offset}"
        payload = unframe(self._read(shard, offset, framed_size(length)), length, crc, where)
        return decode_example(payload, where, first_cell, num_cells)

    def __repr__(self) -> str:  # Grain stores it with an iterator's state, and compares it on restore
        return f"TokenRecords(split={self.split!r}, fingerprint={self.fingerprint!r})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over the lengths and checksums of all records in order: equal for equal data anywhere."""
        digest = hashlib.sha256(self.split.encode())
        digest.update(np.column_stack([self._shard, self._index[:, :2]]).astype("<i8").tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def num_cells(self) -> np.ndarray:
        """Cells of each record, int64 [records]: from the list beside the shards, else by reading every record."""
        cells = self._index[:, 2]
        if (cells < 0).any():
            every = tqdm(range(len(self)), f"lengths of {self.split}", unit="song")
            cells = np.array([cells_of(self[i]) for i in every], np.int64)
        return cells

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        descriptor = self._files.get(shard)
        if descriptor is None:
            try:
                descriptor = os.open(self._paths[shard], os.O_RDONLY | BINARY)
            except OSError as error:
                raise InputError(
                    f"{self._paths[shard]} cannot be opened ({error.strerror}): check the data set"
                ) from error
            # if two threads open a shard at once, the second's descriptor is closed
            kept = self._files.setdefault(shard, descriptor)
            if kept != descriptor:
                os.close(descriptor)
                descriptor = kept
        return read_at(descriptor, length, offset)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self, close=os.close) -> None:  # bound here, since modules may be gone when a process ends
        for descriptor in self.__dict__.get("_files", {}).values():
            close(descriptor)


def read_index(directory: Path, split: str, shards: Sequence[Path]) -> list[list[list[int]]]:
    """The list beside a split's shards: [length, CRC, cells] of each record of each shard. Raises InputError where
    it is missing, damaged or of shards of another size."""
    path = directory / index_name(split)
    with reading(path, "the list of the split's records"):
        document = json.loads(read_bounded(path, MOST_INDEX_BYTES).decode())
        index = document["length_crc_cells"]
        if document["sha256"] != index_sha256(index):
            raise ValueError("its contents are not those of its sha256")
        if [sum(framed_size(length) for length, _, _ in rows) for rows in index] != [
            shard.stat().st_size for shard in shards
        ]:
            raise ValueError("it is of shards of another size")
    return index


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """Offsets of the headers of records of these lengths, from the start of their shard."""
    sizes = lengths + framed_size(0)
    return np.cumsum(sizes) - sizes
