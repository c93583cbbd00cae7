"""A token record <-> the bytes of a tf.train.Example.

A record is a dict: `id` str, `vocal_semantic` int [2N], `instrumental_semantic` int [2N], `acoustic` int [3N, 8].

Axes: N cells of one song.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.dataset.layout import FIELDS, cells_of
from hafm_jax.dataset.tfrecord import Varints, example_class


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
    """A record (`id` str; int arrays vocal_semantic [2N], instrumental_semantic [2N], acoustic [3N, 8]) -> Example.

    Raises InputError as `check_record`.
    """
    check_record(record, f"song {record['id']}")
    example = example_class()()
    features = example.features.feature
    features["id"].bytes_list.value.append(record["id"].encode())
    for name in FIELDS:
        features[name].int64_list.value.extend(record[name].ravel().tolist())
    return example.SerializeToString(deterministic=True)


def decode_example(payload: bytes, where: str, first_cell: int = 0, num_cells: int | None = None) -> dict[str, Any]:
    """The inverse of `encode_example`, arrays int32: the whole song, or only the window of num_cells from first_cell.

    Raises InputError, `where` first, on anything else; ids outside the window are not checked.
    """
    from google.protobuf.message import DecodeError

    try:
        features = example_class(packed=True).FromString(payload).features.feature
    except DecodeError as error:
        raise InputError(f"{where}: not a tf.train.Example ({error}); expected tokens: extract them again") from error
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
