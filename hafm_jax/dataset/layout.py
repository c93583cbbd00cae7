"""The files of a token data set and the fields of a record.

A data set is a folder of tf.train.Example in TFRecord shards, read with random access and without TensorFlow:

    hafm_tokens-SPLIT.tfrecord-00000-of-00008   the records, one a song: `id` and, as int64 lists, the FIELDS below
    dataset_info.json, features.json            tensorflow-datasets' description: `tfds.builder_from_directory` loads it
    hafm_tokens-SPLIT.index.json                length, checksum and cells of each record of each shard: a set on a
                                                slow disk or in a bucket opens without touching its shards
    card.html                                   a page for people
    tokens.json                                 what made the tokens, what a record holds, how much there is, and the
                                                SHA-256 of the three files above and of its own contents

A record holds whole cells of 40 ms, as many in every field:

    vocal_semantic          [2N]      ids 0..499, two frames a cell
    instrumental_semantic   [2N]      ids 0..499, two frames a cell
    acoustic                [3N, 8]   ids 0..1023, three frames a cell of 8 codebooks; flattened in the file, row by row

Axes: N cells of one song.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_bounded, reading
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, STREAMS

DATASET = "hafm_tokens"
VERSION = "1.0.0"  # of the format; tensorflow-datasets wants three numbers
TOKENS_FILE = "tokens.json"
CARD = "card.html"
DESCRIPTIONS = ("dataset_info.json", "features.json", CARD)  # files whose SHA-256 tokens.json holds


class Field(NamedTuple):
    """One array of a record: frames a cell, tokens a frame, ids below `vocabulary`."""

    frames_per_cell: int
    codebooks: int
    vocabulary: int

    @property
    def tokens_per_cell(self) -> int:
        return self.frames_per_cell * self.codebooks


FIELDS = {  # from the table of streams
    stream.field: Field(
        stream.frames_per_cell,
        ACOUSTIC_CODEBOOKS if stream.field == "acoustic" else stream.codebooks,
        stream.vocabulary,
    )
    for stream in STREAMS.values()
}


def cells_of(record: Mapping[str, Any]) -> int:
    return len(record["vocal_semantic"]) // STREAMS["vocal_semantic"].frames_per_cell


def shard_name(split: str, shard: int, num_shards: int) -> str:
    return f"{DATASET}-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}"


def index_name(split: str) -> str:
    return f"{DATASET}-{split}.index.json"


def index_sha256(index: Sequence[Sequence[Sequence[int]]]) -> str:
    """Of an index of shards: [length, CRC, cells] of each record of each shard."""
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


def tokens_json(document: Mapping[str, Any]) -> bytes:
    """The bytes of tokens.json."""
    return (json.dumps(document, indent=2) + "\n").encode()


def tokens_sha256(document: Mapping[str, Any]) -> str:
    """Of the contents of tokens.json, but for its field `sha256`."""
    return hashlib.sha256(tokens_json({k: v for k, v in document.items() if k != "sha256"})).hexdigest()


def read_tokens_json(directory: str | os.PathLike) -> dict[str, Any]:
    """tokens.json as it is: format_version, fields, made_by, splits, files_sha256, sha256; the last two are not in
    sets that hafm_jax wrote before it had them. Raises InputError where there is none, or its contents were changed."""
    path = Path(directory) / TOKENS_FILE
    with reading(path, "a token data set: make it with tokenize/extract_tokens.py"):
        document = json.loads(read_bounded(path).decode())
        if not isinstance(document, dict) or not isinstance(document.get("splits"), dict):
            raise ValueError("it names no splits")
        is_signed = "sha256" in document or "files_sha256" in document
        if is_signed and document.get("sha256") != tokens_sha256(document):
            raise ValueError("its contents are not those of its sha256: copy it again, or extract the tokens again")
    return document
