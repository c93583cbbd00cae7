"""Read every byte of a token data set and report all damage at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import sha256_of
from hafm_jax.dataset.examples import decode_example
from hafm_jax.dataset.layout import (
    TOKENS_FILE,
    cells_of,
    index_name,
    read_tokens_json,
    shards,
    splits_in,
    tokens_json,
)
from hafm_jax.dataset.records import read_index
from hafm_jax.dataset.tfrecord import HEADER, check_payload, framed_size, walk_records
from hafm_jax.dataset.writer import SplitSummary

THREADS = 8  # reads that wait for the disk at the same time
SHOWN = 10  # damaged places that the error names; it counts the rest


def verify_tokens(directory: str | os.PathLike, splits: Sequence[str] = ()) -> list[SplitSummary]:
    """Read all records of the splits (all splits if none is named); check framing, checksums, contents and counts, and
    the files that describe them.

    Returns a summary of each split. Raises one InputError that lists the damaged places: file, byte offset and what is
    wrong. A damaged record does not hide the records behind it; a broken frame does, to the end of its shard.
    """
    directory = Path(directory)
    wrong: list[str] = []
    written = {}
    try:
        document = read_tokens_json(directory)
        written = document["splits"]
        wrong += _verify_descriptions(directory, document)
    except InputError as error:
        wrong.append(str(error))
    summaries = []
    for split in splits or sorted(splits_in(directory) | set(written)):
        summary, found = _verify_split(directory, split)
        wrong += found or _differences(directory, summary, written)
        summaries.append(summary)
    if wrong:
        more = f"\n  and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InputError(
            f"{directory} has {len(wrong)} damaged places; expected none: copy these files again, or extract the "
            "tokens again" + "".join(f"\n  {place}" for place in wrong[:SHOWN]) + more
        )
    return summaries


def _verify_descriptions(directory: Path, document: dict) -> list[str]:
    """What is wrong with tokens.json, whose contents are `document`, and with the files whose SHA-256 it holds."""
    path = directory / TOKENS_FILE
    if "sha256" not in document:
        print(
            f"{path} is of an earlier hafm_jax and has no checksums: it and the other descriptions are not checked",
            file=sys.stderr,
        )
        return []
    wrong = [] if path.read_bytes() == tokens_json(document) else [f"{path} is not as it was written"]
    for name, sha256 in document["files_sha256"].items():
        try:
            if sha256_of([directory / name]) != sha256:
                wrong.append(f"{directory / name} is not as it was written: its SHA-256 is not that of {TOKENS_FILE}")
        except OSError as error:
            wrong.append(f"{directory / name} cannot be read ({error.strerror})")
    return wrong


def _verify_split(directory: Path, split: str) -> tuple[SplitSummary, list[str]]:
    """(summary of the undamaged records, what is wrong in the split)."""
    try:
        paths = shards(directory, split)
    except InputError as error:
        return SplitSummary(split), [str(error)]
    lengths, num_bytes, num_cells = [], 0, 0
    wrong: list[str] = []
    size = sum(path.stat().st_size for path in paths)
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=size, desc=f"verify {split}", unit="B", unit_scale=True) as bar,
    ):
        try:
            for path in paths:
                rows, broken = _frames(path)
                good = 0
                for (_, length, _), found in zip(rows, pool.map(partial(_verify_record, path), rows), strict=True):
                    bar.update(framed_size(length))
                    if isinstance(found, str):
                        wrong.append(found)
                    else:
                        good += 1
                        num_bytes += length
                        num_cells += found
                lengths.append(good)
                wrong += broken
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, do not read the rest
    return SplitSummary(split, lengths, num_bytes, num_cells), wrong


def _frames(path: Path) -> tuple[list[tuple[int, int, int]], list[str]]:
    """(offset, length, checksum) of a shard's records as far as the framing is whole, and what is wrong after them."""
    rows = []
    try:
        for row in walk_records(path):
            rows.append(row)
    except InputError as error:
        return rows, [f"{error}; nothing behind it in this shard can be read"]
    return rows, []


def _verify_record(path: Path, row: tuple[int, int, int]) -> int | str:
    """Cells of the record at (offset, length, checksum) of the shard, or what is wrong with it."""
    offset, length, crc = row
    where = f"{path} at byte {offset}"
    try:
        with path.open("rb") as file:
            file.seek(offset + HEADER.size)
            payload = file.read(length)
        check_payload(payload, length, crc, where)
        return cells_of(decode_example(payload, where))
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{where}: it cannot be read ({error.strerror}): check the disk"


def _differences(directory: Path, summary: SplitSummary, written: dict) -> list[str]:
    """Where shards of undamaged records differ from tokens.json or from the list of lengths."""
    found = {"songs": summary.num_examples, "cells": summary.num_cells}
    expected = {name: written.get(summary.split, {}).get(name) for name in found}
    if written and found != expected:
        return [f"{directory}: {summary.split} has {found}; {TOKENS_FILE} states {expected}: a shard is not whole"]
    path = directory / index_name(summary.split)
    if not summary.num_examples or not path.exists():
        return []  # without the list, the shards are read
    paths = shards(directory, summary.split)
    try:
        listed = read_index(directory, summary.split, paths)
    except InputError as error:
        return [f"{error}: delete it, it only saves time"]
    frames = [[[length, crc] for _, length, crc in walk_records(shard)] for shard in paths]
    cells = sum(cells for rows in listed for _, _, cells in rows)
    if [[row[:2] for row in rows] for rows in listed] != frames or cells != summary.num_cells:
        return [f"{path} is not of these shards: delete it, it only saves time"]
    return []
