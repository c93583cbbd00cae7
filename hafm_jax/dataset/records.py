"""Token data sets: tf.train.Example in TFRecord shards, with random access and without TensorFlow.

A data set is a folder (DESIGN.md section 6):

    hafm_tokens-SPLIT.tfrecord-00000-of-00008   the examples: id, vocal_semantic [2N], instrumental_semantic [2N],
                                                acoustic [3N, 8] flattened
    dataset_info.json, features.json            tensorflow-datasets' description: `tfds.builder_from_directory` loads it
    hafm_tokens-SPLIT.index.json                length, checksum and cells of each record of each shard: a set on a
                                                slow disk or in a bucket opens without touching its shards
    tokens.json                                 what made the tokens, what a record holds, and how much there is

tensorflow-datasets writes the two description files; reading does without it (hafm_jax.dataset.tfrecord).

Axes: N cells of one song.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes
from hafm_jax.dataset.tfrecord import Varints, example_class, frame, framed_size, unframe, walk_records
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CELLS_PER_S, STREAMS

DATASET = "hafm_tokens"
VERSION = "1.0.0"  # of the format; tensorflow-datasets wants three numbers
TOKENS_FILE = "tokens.json"


class Field(NamedTuple):
    """One array of a record: frames a cell, tokens a frame, ids below `vocabulary`."""

    frames_per_cell: int
    codebooks: int
    vocabulary: int

    @property
    def tokens_per_cell(self) -> int:
        return self.frames_per_cell * self.codebooks


FIELDS = {  # read off the token contract
    stream.field: Field(
        stream.frames_per_cell,
        ACOUSTIC_CODEBOOKS if stream.field == "acoustic" else stream.codebooks,
        stream.vocabulary,
    )
    for stream in STREAMS.values()
}


@dataclass(frozen=True)
class SplitSummary:
    """What `write_split` wrote: examples of each shard, payload bytes, cells of all songs together."""

    split: str
    shard_lengths: list[int] = field(default_factory=list)
    num_bytes: int = 0
    num_cells: int = 0

    @property
    def num_examples(self) -> int:
        return sum(self.shard_lengths)


def check_record(record: dict[str, Any], where: str) -> None:
    """Raises InputError unless the arrays are whole cells of one length with ids inside the vocabularies."""
    cells = cells_of(record)
    for name, (frames_per_cell, width, vocabulary) in FIELDS.items():
        values = record[name]
        expected = (cells * frames_per_cell,) + ((width,) if width > 1 else ())
        if values.shape != expected or cells == 0:
            raise InputError(
                f"{where}: {name} has shape {values.shape}; expected {expected}, whole cells of one length in all "
                "fields: extract the tokens again"
            )
        if values.min() < 0 or values.max() >= vocabulary:
            raise InputError(
                f"{where}: {name} ranges over {values.min()}..{values.max()}; expected ids in 0..{vocabulary - 1}: "
                "extract the tokens again"
            )


def encode_example(record: dict[str, Any]) -> bytes:
    """A record (`id` str; int arrays vocal_semantic [2N], instrumental_semantic [2N], acoustic [3N, 8]) -> Example."""
    check_record(record, f"song {record['id']}")
    example = example_class()()
    features = example.features.feature
    features["id"].bytes_list.value.append(record["id"].encode())
    for name in FIELDS:
        features[name].int64_list.value.extend(record[name].ravel().tolist())
    return example.SerializeToString(deterministic=True)


def decode_example(payload: bytes, where: str, first_cell: int = 0, num_cells: int | None = None) -> dict[str, Any]:
    """The inverse of `encode_example`, arrays int32: the whole song, or only the window of num_cells from first_cell.

    Raises InputError, `where` first, on anything else; ids outside the window are not looked at.
    """
    from google.protobuf.message import DecodeError

    try:
        features = example_class(packed=True).FromString(payload).features.feature
    except DecodeError as error:
        raise InputError(f"{where}: no tf.train.Example ({error}); expected tokens: extract them again") from error
    absent = sorted({"id", *FIELDS} - set(features))
    if absent or len(features["id"].bytes_list.value) != 1:
        raise InputError(
            f"{where}: found the features {sorted(features)}; expected id, {', '.join(FIELDS)}: extract tokens again"
        )
    record: dict[str, Any] = {"id": features["id"].bytes_list.value[0].decode(errors="replace")}
    where = f"{where}, song {record['id']}"
    try:
        numbers = {name: Varints(b"".join(features[name].int64_list.value)) for name in FIELDS}
        cells = len(numbers["vocal_semantic"]) // FIELDS["vocal_semantic"].tokens_per_cell
        for name, form in FIELDS.items():
            if not cells or len(numbers[name]) != cells * form.tokens_per_cell:
                raise InputError(
                    f"{where}: {name} has {len(numbers[name])} tokens; expected {cells * form.tokens_per_cell}, whole "
                    "cells of one length in all fields: extract the tokens again"
                )
        stop_cell = cells if num_cells is None else first_cell + num_cells
        if not 0 <= first_cell < stop_cell <= cells:
            raise IndexError(f"{where}: cells {first_cell} to {stop_cell} of {cells}")
        for name, form in FIELDS.items():
            values = numbers[name][first_cell * form.tokens_per_cell : stop_cell * form.tokens_per_cell]
            record[name] = values.reshape(-1, form.codebooks) if form.codebooks > 1 else values
    except ValueError as error:
        raise InputError(f"{where}: {error}; expected tokens: extract them again") from error
    check_record(record, where)  # before the cast: a huge id must not wrap into the vocabulary
    return {name: value if name == "id" else value.astype(np.int32) for name, value in record.items()}


def cells_of(record: Mapping[str, Any]) -> int:
    return len(record["vocal_semantic"]) // STREAMS["vocal_semantic"].frames_per_cell


def shard_name(split: str, shard: int, num_shards: int) -> str:
    return f"{DATASET}-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}"


def index_name(split: str) -> str:
    return f"{DATASET}-{split}.index.json"


class Shard(NamedTuple):
    """A file of whole records, complete but under a name that nobody reads yet: cells of each song, payload bytes."""

    path: Path
    cells: list[int]
    num_bytes: int


class ShardWriter:
    """Writes records to `path`. `close` before anybody reads it."""

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
    """Write the records of a split, dealt out to the shards in turn; fewer records than shards make fewer shards.

    Nothing has its final name before the last record is written; an exception leaves the folder as it was. Shards of
    the split from an earlier run are replaced.
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
    """Give a split's shards their final names, in order and without those that hold no record, in place of any older.

    Interrupted, it can be called again: what has its name already is left. Raises InputError where there is no record.
    """
    filled = [shard for shard in shards if shard.cells]
    if not filled:
        raise InputError(f"{directory}: no songs for the split {split}; expected at least one: check the songs' folder")
    (directory / TOKENS_FILE).unlink(missing_ok=True)  # no longer true; its absence marks an unfinished data set
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
    document = {"sha256": _index_sha256(index), "length_crc_cells": index}
    write_bytes(directory / index_name(split), (json.dumps(document, separators=(",", ":")) + "\n").encode())
    return SplitSummary(
        split,
        [len(shard.cells) for shard in filled],
        sum(shard.num_bytes for shard in filled),
        sum(n for shard in filled for n in shard.cells),
    )


def check_target(directory: str | os.PathLike, splits: Sequence[str]) -> None:
    """Raises InputError where `directory` holds splits that are not to be written: one tokens.json speaks for all."""
    others = splits_in(Path(directory)) - set(splits)
    if others:
        raise InputError(
            f"{directory} already holds {', '.join(sorted(others))}, not to be written now; expected all splits of a "
            "data set from one run: name them too, or choose another folder"
        )


def write_metadata(directory: str | os.PathLike, splits: Sequence[SplitSummary], made_by: dict[str, Any]) -> None:
    """Write dataset_info.json, features.json (both by tensorflow-datasets), tokens.json (fields, `made_by`, counts)."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f'writing a token data set needs tensorflow-datasets ({error}): pip install "hafm_jax[tokenize]"'
        ) from error
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
    }
    write_bytes(directory / TOKENS_FILE, (json.dumps(document, indent=2) + "\n").encode())


def read_tokens_json(directory: str | os.PathLike) -> dict[str, Any]:
    """tokens.json as it is: format_version, fields, made_by, splits. Raises InputError where there is none."""
    path = Path(directory) / TOKENS_FILE
    try:
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or not isinstance(document.get("splits"), dict):
            raise ValueError("it names no splits")
        return document
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({reason}); expected a token data set: make it with tokenize/extract_tokens.py"
        ) from error


class TokenRecords:
    """Random access to the records of a split; a Grain data source.

    `records[i]` is a dict with `id` (str), `vocal_semantic` int32 [2N], `instrumental_semantic` int32 [2N] and
    `acoustic` int32 [3N, 8]; `window` is a part of one, without the cost of decoding the rest. Where each record stands
    is read from the list beside the shards, or from the records' headers. Files are opened when first read, in each
    process anew, and read by position, so threads and forked workers never disturb others. Raises InputError, with file
    and byte offset, on a wrong checksum, a file cut short or a wrong shape.
    """

    def __init__(self, directory: str | os.PathLike, split: str) -> None:
        self.directory, self.split = Path(directory), split
        self._paths = shards(self.directory, split)
        self._files: dict[int, int] = {}  # shard -> file descriptor
        listed = self.listed_index()
        if listed is None:
            walked = [list(walk_records(path)) for path in self._paths]
            indexes = [[(length, crc, -1) for _, length, crc in rows] for rows in walked]
        else:
            indexes = listed
        self._shard = np.repeat(np.arange(len(indexes)), [len(index) for index in indexes])  # [records]
        rows = [np.array(index, np.int64).reshape(-1, 3) for index in indexes]
        self._offset = np.concatenate([_offsets(row[:, 0]) for row in rows])  # [records], of the record's header
        self._index = np.concatenate(rows)  # [records, 3]: length and CRC of the payload, cells (-1: not known)
        if not len(self._index):
            raise InputError(f"{self._paths[0]} and its fellow shards hold no records: extract the tokens again")

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.window(number)

    def window(self, number: int, first_cell: int = 0, num_cells: int | None = None) -> dict[str, Any]:
        """num_cells of the record from first_cell, all of them without; the checksum is always of the whole record."""
        number = range(len(self))[number]  # negative numbers count from the end, others raise IndexError
        shard, offset = int(self._shard[number]), int(self._offset[number])
        length, crc, _ = (int(value) for value in self._index[number])
        where = f"{self._paths[shard]} at byte {offset}"
        payload = unframe(self._read(shard, offset, framed_size(length)), length, crc, where)
        return decode_example(payload, where, first_cell, num_cells)

    def __repr__(self) -> str:  # Grain asks for one that says which data it is, and compares it on restore
        return f"TokenRecords(split={self.split!r}, fingerprint={self.fingerprint!r})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over the lengths and checksums of all records in order: equal for equal data, wherever it lies."""
        digest = hashlib.sha256(self.split.encode())
        digest.update(np.column_stack([self._shard, self._index[:, :2]]).astype("<i8").tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def num_cells(self) -> np.ndarray:
        """Cells of each record, int64 [records]: as listed beside the shards, else found by reading every record."""
        cells = self._index[:, 2]
        if (cells < 0).any():
            every = tqdm(range(len(self)), f"lengths of {self.split}", unit="song")
            cells = np.array([cells_of(self[i]) for i in every], np.int64)
        return cells

    def listed_index(self) -> list[list[list[int]]] | None:
        """What `publish_split` listed: [length, CRC, cells] of each record of each shard. None where there is no list,
        it is damaged, or of shards of another size."""
        try:
            document = json.loads((self.directory / index_name(self.split)).read_text())
            index = document["length_crc_cells"]
            fits = document["sha256"] == _index_sha256(index) and len(index) == len(self._paths)
            sizes = [sum(framed_size(length) for length, _, _ in rows) for rows in index]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return index if fits and sizes == [path.stat().st_size for path in self._paths] else None

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        descriptor = self._files.get(shard)
        if descriptor is None:
            try:
                descriptor = os.open(self._paths[shard], os.O_RDONLY)
            except OSError as error:
                raise InputError(
                    f"{self._paths[shard]} cannot be opened ({error.strerror}): check the data set"
                ) from error
            # of two threads that open a shard at once, the second's descriptor is the one to close
            kept = self._files.setdefault(shard, descriptor)
            if kept != descriptor:
                os.close(descriptor)
                descriptor = kept
        return os.pread(descriptor, length, offset)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self, close=os.close) -> None:  # bound here, since modules may be gone when a process ends
        for descriptor in self.__dict__.get("_files", {}).values():
            close(descriptor)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """Of the headers of records of these lengths, from the start of their shard."""
    sizes = lengths + framed_size(0)
    return np.cumsum(sizes) - sizes


def _index_sha256(index: Sequence[Sequence[Sequence[int]]]) -> str:
    return hashlib.sha256(json.dumps(index).encode()).hexdigest()


def splits_in(directory: Path) -> set[str]:
    return {path.name.split("-")[1].split(".")[0] for path in directory.glob(f"{DATASET}-*.tfrecord-*")}


def shards(directory: Path, split: str) -> list[Path]:
    """All shards of a split in order. Raises InputError where there are none, or not all."""
    found = sorted(directory.glob(f"{DATASET}-{split}.tfrecord-?????-of-?????"))
    if not found:
        others = sorted(splits_in(directory))
        has = f"it has {', '.join(others)}" if others else "it has no tokens at all"
        raise InputError(
            f"{directory} has no split {split} ({has}); expected {shard_name(split, 0, 8)} or the like: "
            "check the folder, or run tokenize/extract_tokens.py"
        )
    num_shards = int(found[-1].name[-5:])
    expected = [directory / shard_name(split, k, num_shards) for k in range(num_shards)]
    if found != expected:
        odd = min(set(expected) ^ set(found))
        raise InputError(
            f"{directory} has {len(found)} shards of {split} where their names say {num_shards} ({odd.name} is "
            f"{'missing' if odd in expected else 'of another run'}): copy the data set again"
        )
    return found
