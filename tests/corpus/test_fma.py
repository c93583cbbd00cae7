"""The Free Music Archive's tracks, and its table with rows that somebody or something has damaged."""

from __future__ import annotations

import csv
import io
import re

import pytest
from helpers.corpora import fma_row, touch, write_fma
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import collections


def test_fma_keeps_splits_and_licences(tmp_path):
    metadata = write_fma(
        tmp_path,
        {
            2: fma_row("training", "Food", "Attribution-NonCommercial", bio='a "quoted",\n<p>long</p> text' * 20_000),
            5: fma_row("validation", "This, World"),
            1040: fma_row("test", "Naïve\nTitle", licence=""),
            1041: fma_row("", "no split"),
            99: fma_row("training", "no file"),
        },
    )
    music = tmp_path / "fma_large"
    for name in ("000/000002", "000/000005", "001/001040", "001/001041", "001/001042"):
        touch(music, f"{name}.mp3")
    touch(music, "checksums")
    touch(music, "000/readme.mp3")
    corpus = collections.find_tracks(music, "fma", metadata)
    assert [(t.id, t.split, t.licence, t.facts) for t in corpus.tracks] == [
        ("fma_000002", "train", "Attribution-NonCommercial", {"artist": "The Band", "title": "Food"}),
        ("fma_000005", "validation", "CC BY", {"artist": "The Band", "title": "This, World"}),
        ("fma_001040", "test", None, {"artist": "The Band", "title": "Naïve\nTitle"}),
    ]
    assert [r.id for r in corpus.unusable] == ["fma_001041", "fma_001042"]
    assert {(r.split, r.reason) for r in corpus.unusable} == {(None, "not in the metadata")}
    assert collections.find_tracks(music, "fma", metadata / "tracks.csv").tracks == corpus.tracks


def test_a_copy_across_splits_of_fma_is_left_out(tmp_path):
    metadata = write_fma(tmp_path, {2: fma_row("training", "a"), 3: fma_row("test", "b")})
    for number in (2, 3):
        touch(tmp_path / "fma", f"000/{number:06d}.mp3", "the same")
    corpus = collections.find_tracks(tmp_path / "fma", "fma", metadata)
    ((track,), (copy,)) = corpus.tracks, corpus.unusable
    assert track.id == "fma_000002"
    assert list(copy.facts().values()) == ["fma_000003", "test", "duplicate", "the same file as fma_000002"]


def test_a_table_of_something_else_is_refused(tmp_path):
    music = tmp_path / "fma"
    touch(music, "000/000002.mp3")
    metadata = write_fma(tmp_path, {}, [("track", "title"), ("artist", "name")])
    with pytest.raises(InputError, match="no column set split, track license"):
        collections.find_tracks(music, "fma", metadata)
    for table in (b"\xff\xfe\x00\x01", b"", b',"set\n', b"PK\x03\x04\x00" * 9):
        (metadata / "tracks.csv").write_bytes(table)
        with pytest.raises(InputError, match=r"tracks\.csv has no column .*; expected"):
            collections.find_tracks(music, "fma", metadata)


# ----------------------------------------------------------------------------------------------- rows that are damaged

DAMAGE = {  # of the row of a track, whose title is the last cell -> what its reason says
    "cut": r"\d cells; expected 6",
    "longer": r"8 cells; expected 6",
    "number": r"no row \d+",
    "nul": r"its title holds NUL bytes",
    "latin-1": r"its title holds bytes that are not UTF-8",
    "quote": r"in a record of \d+ lines|cells; expected 6",
    "twice": r"another row of track \d+, beside line \d+",
}
COLUMNS = [("set", "split"), ("artist", "bio"), ("track", "license"), ("artist", "name"), ("track", "title")]
biographies = st.sampled_from(["", "plain", 'a "quoted", bio', "of\nthree\r\nlines", "2010, a year\n7,8", "日本"])


def damaged(kind: str, row: bytes, number: int) -> bytes:
    """The row, which ends with its title's letters and a line feed, with damage of that kind."""
    if kind == "cut":
        return row[: row.rindex(b",", 0, row.rindex(b","))] + b"\n"
    if kind == "number":
        return row.replace(b"%d" % number, b"%d?" % number, 1)
    if kind == "quote":
        place = row.index(b",") + 1
        return row[:place] + b'"' + row[place:]
    if kind == "twice":
        return row + row[:-1] + b"!\n"
    return row[:-1] + {"longer": b",a,b", "nul": b"\0", "latin-1": b"\xe9"}[kind] + b"\n"


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(biographies, st.sampled_from([None, None, *DAMAGE])), min_size=1, max_size=8))
def test_a_damaged_row_costs_that_row_alone(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("fma")
    path = write_fma(folder, {}, COLUMNS) / "tracks.csv"
    written, line_of = path.read_bytes(), {}
    for number, (bio, kind) in enumerate(rows, 100):
        row = io.StringIO()
        csv.writer(row, lineterminator="\n").writerow([number, "training", bio, "CC BY", "Band", f"t{number}"])
        line_of[number] = len(written.replace(b"\r\n", b"\n").split(b"\n"))
        row = row.getvalue().encode()
        written += damaged(kind, row, number) if kind else row
        touch(folder, f"music/000/{number:06d}.mp3")
    path.write_bytes(written)
    corpus = collections.find_tracks(folder / "music", "fma", path)
    good = [number for number, (_, kind) in enumerate(rows, 100) if kind is None]
    assert [(t.id, t.facts["title"]) for t in corpus.tracks] == [(f"fma_{n:06d}", f"t{n}") for n in good]
    left_out = {int(one.id[4:]): one for one in corpus.unusable}
    assert sorted(left_out) == [number for number, (_, kind) in enumerate(rows, 100) if kind]
    for number, one in left_out.items():
        bio, kind = rows[number - 100]
        assert re.search(DAMAGE[kind], one.detail), (kind, one)
        line = line_of[number] + (kind == "twice") * (1 + len(bio.splitlines()[1:]))
        assert any(row.startswith((f"line {line}:", f"line {line} to")) for row in corpus.bad_rows), corpus.bad_rows
        if kind != "number":
            assert one.reason == "bad row of the metadata" and one.detail.startswith(f"line {line} of the metadata")


def test_a_quote_that_no_other_closes_does_not_swallow_the_rest(tmp_path):
    path = write_fma(tmp_path, {}, COLUMNS) / "tracks.csv"
    rows = [f"{n},training,{chr(34) if n == 3 else ''}bio,CC BY,Band,t{n}\n" for n in range(1, 2000)]
    path.write_text(path.read_text() + "".join(rows))
    for number in (1, 3, 4, 1999):
        touch(tmp_path, f"music/000/{number:06d}.mp3")
    corpus = collections.find_tracks(tmp_path / "music", "fma", path)
    assert [t.id for t in corpus.tracks] == ["fma_000001", "fma_000004", "fma_001999"]
    assert corpus.bad_rows == ["line 6: unexpected end of data, in a record of 1997 lines"]


def test_files_that_are_not_the_archives_are_set_aside(tmp_path):
    metadata = write_fma(tmp_path, {2: fma_row("training", "a"), 5: fma_row("training", "b")})
    music = tmp_path / "fma"
    names = ("000/000002.mp3", "000/000005.MP3", "000/000002 (1).mp3", "000/٣.mp3", "000002.mp3", "a/b/000002.mp3")
    for name in (*names, "000/000002.flac", "README.txt"):
        touch(music, name)
    corpus = collections.find_tracks(music, "fma", metadata)
    assert [t.id for t in corpus.tracks] == ["fma_000002", "fma_000005"]
    assert corpus.found == 8 and collections.counts_of(corpus.aside) == {"not in the layout": 5, "not audio": 1}
