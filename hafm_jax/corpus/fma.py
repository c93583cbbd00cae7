"""The Free Music Archive: 000/000002.mp3 and so on, with the splits and licences of fma_metadata/tracks.csv.

A row of the table that cannot be read costs that row alone: it is reported with its line, and its track is left out
with the reason. A header that is not the archive's refuses the table.
"""

from __future__ import annotations

import csv
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.listing import Aside, Why
from hafm_jax.corpus.reading import Source
from hafm_jax.corpus.screening import Reason, Unusable
from hafm_jax.corpus.tracks import Track

# Columns of tracks.csv, as its two header rows name them.
COLUMNS = {
    "split": ("set", "split"),
    "licence": ("track", "license"),
    "artist": ("artist", "name"),
    "title": ("track", "title"),
}
SPLITS = {"training": "train", "validation": "validation", "test": "test"}
INDEX = "track_id"  # the first cell of a third row of the header, whose other cells are empty
NUMBER = re.compile(r"\d{1,9}", re.ASCII)
EXPECTED = "expected the archive's fma_metadata/tracks.csv"


def tracks_csv(metadata: str | os.PathLike) -> Path:
    """FMA's table of tracks, given as itself or by its folder."""
    metadata = Path(metadata)
    return metadata / "tracks.csv" if metadata.is_dir() else metadata


# ----------------------------------------------------------------------------------------------------------- the table


class Table(NamedTuple):
    """rows: track number -> its cells by the names of COLUMNS. bad: track number -> why its row cannot be used.
    bad_rows: the same of all rows that cannot be used, also of those without a number."""

    rows: dict[int, dict[str, str]]
    bad: dict[int, str]
    bad_rows: list[str]


class _Record(NamedTuple):
    line: int  # of the file, from 1, at which the record begins
    last: int
    head: str  # the first cell, as far as it can be told
    cells: list[str]
    fault: str  # "" where there is none


def read_table(path: Path) -> Table:
    """Raises InputError where the file cannot be read, or its two header rows are not those of the archive."""
    limit = csv.field_size_limit(1 << 30)  # it holds biographies of artists, some as long as web pages
    try:
        # bytes that are not UTF-8 must not cost more than their row
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            records = _records(file)
            names = list(zip(*(next(records, _Record(1, 1, "", [], "")).cells for _ in range(2)), strict=False))
            absent = [" ".join(column) for column in COLUMNS.values() if column not in names]
            if absent:
                raise InputError(f"{path} has no column {', '.join(absent)} in its first two rows; {EXPECTED}")
            return _table(records, {name: names.index(column) for name, column in COLUMNS.items()})
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {EXPECTED}") from error
    finally:
        csv.field_size_limit(limit)


def _records(file: TextIO) -> Iterator[_Record]:
    """The records of the table. What follows the first line of a record with a fault is read again as records of its
    own: a quote that is never closed would swallow all rows up to the next quote, or to the end of the file."""
    again: deque[str] = deque()  # lines
    taken: list[str] = []

    def lines() -> Iterator[str]:
        while (line := again.popleft() if again else next(file, None)) is not None:
            taken.append(line)
            yield line

    number, width = 1, 0
    while True:
        taken.clear()
        cells, fault = [], ""
        try:
            cells = next(csv.reader(lines(), strict=True), [])
        except csv.Error as error:
            fault = f"{error}, in a record of {len(taken)} lines"
        if not taken:
            return
        width = width or len(cells)
        if not fault and cells and len(cells) != width:
            fault = f"{len(cells)} cells; expected {width}"
        if fault:
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
        last = number + len(taken) - 1
        if cells or fault:
            yield _Record(number, last, taken[0].split(",", 1)[0].strip('"\r\n'), cells, fault)
        number = last + 1


def _table(records: Iterator[_Record], places: dict[str, int]) -> Table:
    rows: dict[int, dict[str, str]] = {}
    line_of: dict[int, int] = {}
    twice: dict[int, str] = {}
    bad: dict[int, str] = {}
    bad_rows: list[tuple[int, int, str]] = []  # first line, last line, reason
    for line, last, head, cells, fault in records:
        number = int(head) if NUMBER.fullmatch(head) else None
        values = {} if fault else {name: cells[place] for name, place in places.items()}
        if not fault and head == INDEX:
            continue
        is_rest = fault and number is None and bad_rows and bad_rows[-1][1] == line - 1  # of a record of several lines
        fault = fault or _fault(head, number, values)
        if number in rows and not fault and rows[number] != values:
            fault = twice[number] = f"another row of track {number}, beside line {line_of[number]}"
        if not fault:
            rows[number] = values
            line_of.setdefault(number, line)
            continue
        if number is not None:
            bad.setdefault(number, f"line {line} of the metadata: {fault}")
        if is_rest:
            bad_rows[-1] = (bad_rows[-1][0], last, bad_rows[-1][2])
        else:
            bad_rows.append((line, last, fault))
    for number in twice:
        rows.pop(number, None)
    return Table(
        rows,
        {number: detail for number, detail in bad.items() if number not in rows},
        [f"line {first}{f' to {last}' if last > first else ''}: {fault}" for first, last, fault in bad_rows],
    )


def _fault(head: str, number: int | None, values: dict[str, str]) -> str:
    if number is None:
        return f"the track's number is {head[:40]!r}; expected digits"
    for name, value in values.items():
        if "\0" in value:
            return f"its {name} holds NUL bytes"
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return f"its {name} holds bytes that are not UTF-8"
    return ""


# ---------------------------------------------------------------------------------------------------------- the tracks


def fma_tracks(music: Path, files: Sequence[Path], table: Table) -> tuple[list[Track], list[Unusable], list[Aside]]:
    """The tracks, those that the table excludes, and the files that are none of the archive's."""
    tracks, unusable, aside = [], [], []
    for path in files:
        place = path.relative_to(music)
        if len(place.parts) != 2 or path.suffix.lower() != ".mp3" or not NUMBER.fullmatch(path.stem):
            aside.append(Aside(place.as_posix(), Why.NOT_IN_LAYOUT, "expected FOLDER/NUMBER.mp3, as in 000/000002.mp3"))
            continue
        number = int(path.stem)
        name = f"fma_{number:06d}"
        row = table.rows.get(number)
        if number in table.bad:
            unusable.append(Unusable(Reason.BAD_ROW, table.bad[number], name))
        elif row is None or row["split"] not in SPLITS:
            detail = f"no row {number}" if row is None else f"the split of row {number} is {row['split']!r}"
            unusable.append(Unusable(Reason.NOT_IN_METADATA, detail, name))
        else:
            facts = {"artist": row["artist"], "title": row["title"]}
            tracks.append(Track(name, SPLITS[row["split"]], Source(path), licence=row["licence"] or None, facts=facts))
    return tracks, unusable, aside
