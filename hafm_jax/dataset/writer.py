"""Write a token data set (hafm_jax.dataset.layout). tensorflow-datasets writes its own two description files.

Axes: N cells of one song.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.common.errors import InputError, install, needed_for
from hafm_jax.common.files import sha256_of, write_bytes
from hafm_jax.dataset.examples import encode_example
from hafm_jax.dataset.layout import (
    DATASET,
    DESCRIPTIONS,
    FIELDS,
    TOKENS_FILE,
    VERSION,
    cells_of,
    index_name,
    index_sha256,
    shard_name,
    tokens_json,
    tokens_sha256,
)
from hafm_jax.dataset.tfrecord import frame, walk_records
from hafm_jax.streams import CELLS_PER_S


@dataclass(frozen=True)
class SplitSummary:
    """A split as written: examples of each shard, payload bytes, cells of all songs together."""

    split: str
    shard_lengths: list[int] = field(default_factory=list)
    num_bytes: int = 0
    num_cells: int = 0

    @property
    def num_examples(self) -> int:
        return sum(self.shard_lengths)


class Shard(NamedTuple):
    """A complete file of records, under a name that is not read yet: cells of each song, payload bytes."""

    path: Path
    cells: list[int]
    num_bytes: int


class ShardWriter:
    """Writes records to `path`; `close` it before the file is read."""

    def __init__(self, path: Path) -> None:
        self.shard = Shard(path, [], 0)
        self._file = path.open("wb")

    def write(self, record: dict[str, Any]) -> None:
        """Raises InputError as `encode_example`."""
        payload = encode_example(record)
        self._file.write(frame(payload))
        self.shard.cells.append(cells_of(record))
        self.shard = self.shard._replace(num_bytes=self.shard.num_bytes + len(payload))

    def close(self) -> None:
        self._file.close()


def write_split(
    directory: str | os.PathLike, split: str, records: Iterable[dict[str, Any]], num_shards: int = 8
) -> SplitSummary:
    """Write the records of a split to the shards in turn; fewer records than shards make fewer shards.

    No shard has its final name before the last record is written: an exception leaves the folder as it was. Shards of
    the split from an earlier run are replaced. Raises InputError where there is no record, or a wrong one.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    partial = [directory / f".{shard_name(split, k, num_shards)}.{mark}.tmp" for k in range(num_shards)]
    try:
        writers = [ShardWriter(path) for path in partial]
        try:
            for number, record in enumerate(records):
                writers[number % num_shards].write(record)
        finally:
            for writer in writers:
                writer.close()
        return publish_split(directory, split, [writer.shard for writer in writers])
    finally:
        for path in partial:
            path.unlink(missing_ok=True)


def publish_split(directory: Path, split: str, shards: Sequence[Shard]) -> SplitSummary:
    """Give a split's shards their final names, in order and without those that hold no record; older shards go.

    After an interruption it can be called again. Raises InputError where there is no record.
    """
    filled = [shard for shard in shards if shard.cells]
    if not filled:
        raise InputError(f"{directory}: no songs for the split {split}; expected at least one: check the songs' folder")
    # It is no longer true, and its absence marks an unfinished data set.
    (directory / TOKENS_FILE).unlink(missing_ok=True)
    final = [directory / shard_name(split, k, len(filled)) for k in range(len(filled))]
    for shard, target in zip(filled, final, strict=True):
        if shard.path.exists() or not target.exists():
            os.replace(shard.path, target)
    for stale in set(directory.glob(f"{DATASET}-{split}.tfrecord-*")) - set(final):
        stale.unlink()
    index = [
        [[length, crc, cells] for (_, length, crc), cells in zip(walk_records(path), shard.cells, strict=True)]
        for path, shard in zip(final, filled, strict=True)
    ]
    document = {"sha256": index_sha256(index), "length_crc_cells": index}
    write_bytes(directory / index_name(split), (json.dumps(document, separators=(",", ":")) + "\n").encode())
    return SplitSummary(
        split,
        [len(shard.cells) for shard in filled],
        sum(shard.num_bytes for shard in filled),
        sum(n for shard in filled for n in shard.cells),
    )


def write_metadata(directory: str | os.PathLike, splits: Sequence[SplitSummary], made_by: dict[str, Any]) -> None:
    """Write dataset_info.json and features.json (by tensorflow-datasets), and last tokens.json: fields, `made_by`,
    counts, and the SHA-256 of these two files, of the data card, where there is one, and of its own contents.

    Raises InputError where tensorflow-datasets is missing, or a file cannot be written.
    """
    with needed_for("writing a token data set needs tensorflow-datasets", install("tokenize")):
        import tensorflow_datasets as tfds
    directory = Path(directory)
    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name=DATASET, template=tfds.core.naming.DEFAULT_FILENAME_TEMPLATE
    )
    infos = [
        tfds.core.SplitInfo(
            name=summary.split,
            shard_lengths=summary.shard_lengths,
            num_bytes=summary.num_bytes,
            filename_template=template.replace(split=summary.split, filetype_suffix="tfrecord"),
        )
        for summary in splits
    ]
    shapes = {name: (None, width) if width > 1 else (None,) for name, (_, width, _) in FIELDS.items()}
    features = {name: tfds.features.Tensor(shape=shape, dtype=np.int64) for name, shape in shapes.items()}
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=tfds.features.FeaturesDict({"id": tfds.features.Text(), **features}),
        split_infos=infos,
        version=VERSION,
        check_data=False,  # this check needs TensorFlow
        description="HAFM tokens: semantic tokens of vocal and instrumental, acoustic tokens of the instrumental.",
    )
    document = {
        "format_version": VERSION,
        "fields": {name: numbers._asdict() for name, numbers in FIELDS.items()},
        "made_by": made_by,
        "splits": {
            s.split: {
                "songs": s.num_examples,
                "hours": round(s.num_cells / CELLS_PER_S / 3600, 6),
                "cells": s.num_cells,
            }
            for s in splits
        },
        "files_sha256": {name: sha256_of([directory / name]) for name in DESCRIPTIONS if (directory / name).exists()},
    }
    write_bytes(directory / TOKENS_FILE, tokens_json({**document, "sha256": tokens_sha256(document)}))
