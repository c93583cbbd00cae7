from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import progress
from hafm_jax.corpus.listing import Aside, Why
from hafm_jax.corpus.progress import Part, Progress, rejected_by_reason
from hafm_jax.corpus.reading import Source
from hafm_jax.corpus.screening import Reason, Unusable
from hafm_jax.corpus.tracks import Corpus, Track


def corpus_of(number: int) -> Corpus:
    tracks = [Track(f"t{k}", "train", Source(f"t{k}.wav")) for k in range(number)]
    unusable = [Unusable(Reason.DUPLICATE, "the same file as t0", "u0")]
    return Corpus(tracks, unusable, number + 2, [Aside(".t", Why.HIDDEN, "a dot")], ["line 3: cut"])


def add_song(out, track_id: str, licence: str | None = None, seconds: float = 1800) -> dict:
    song = {"id": track_id, "split": "train", "seconds": seconds, "licence": licence}
    (out / "train" / track_id).mkdir(parents=True)
    (out / "train" / track_id / "song.json").write_text(json.dumps(song))
    return song


@given(number=st.integers(0, 50), of=st.integers(1, 12))
def test_parts_share_all_the_work_evenly(number, of):
    items = list(range(number))
    shares = [Part.parse(f"{k + 1}/{of}").share(items) for k in range(of)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "-1/3", "1/3/5", "1/0", "a/b"])
def test_a_text_that_is_not_a_part_is_refused(text):
    with pytest.raises(InputError, match="expected I/N"):
        Part.parse(text)


def test_added_songs_and_rejects_are_found_the_next_time(tmp_path):
    corpus = corpus_of(4)
    first = Progress(tmp_path, corpus)
    assert [track.id for track in first.todo] == ["t0", "t1", "t2", "t3"]
    first.add(add_song(tmp_path, "t1", "CC BY"))
    first.add(Unusable(Reason.TOO_SHORT, "1 s", "t2", "train"))
    second = Progress(tmp_path, corpus)
    assert [track.id for track in second.todo] == ["t0", "t3"] and second.num_done == 3
    assert second.write_report() == first.write_report()
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "tracks": 5,
        "songs": 1,
        "rejected": 2,
        "to_do": 2,
        "splits": {"train": {"songs": 1, "hours": 0.5}},
        "licences": {"CC BY": 1},
        "rejected_by_reason": dict.fromkeys(Reason, 0) | {"too short": 1, "duplicate": 1},
        "rejects": [
            {"id": "t2", "split": "train", "reason": "too short", "detail": "1 s"},
            {"id": "u0", "split": None, "reason": "duplicate", "detail": "the same file as t0"},
        ],
        "files": {
            "found": 6,
            "of_tracks": 5,
            "aside_by_reason": {"hidden": 1},
            "aside": [{"file": ".t", "reason": "hidden", "detail": "a dot"}],
        },
        "metadata_rows_left_out": ["line 3: cut"],
    }


def test_the_report_can_be_read_during_the_run(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    running = Progress(tmp_path, corpus_of(9))
    seen = []
    for k in range(6):
        running.add(Unusable(Reason.SILENT, "", f"t{k}", "train"))
        seen.append(json.loads((tmp_path / "report.json").read_text())["rejected"] - 1)
    assert seen[0] == 1 and seen == sorted(seen) and 1 < len(set(seen)) < 6


def test_a_torn_line_is_cut_off_and_anothers_left_alone(tmp_path):
    other = tmp_path / "rejects-2-of-2.jsonl"
    line = json.dumps(Unusable(Reason.SILENT, "", "t1", "train").facts()) + "\n"
    other.write_text(line + '{"id": "t3')
    mine = tmp_path / "rejects.jsonl"
    mine.write_text('{"id": "t0')
    running = Progress(tmp_path, corpus_of(4))
    assert [track.id for track in running.todo] == ["t0", "t2", "t3"]
    assert mine.read_text() == "" and other.read_text() == line + '{"id": "t3'
    running.add(Unusable(Reason.SILENT, "", "t0", "train"))
    assert [track.id for track in Progress(tmp_path, corpus_of(4)).todo] == ["t2", "t3"]


def test_unfinished_songs_of_other_parts_stay(tmp_path):
    for name in ("t0", "t1"):
        (tmp_path / "train" / f".{name}.0123abcd.partial").mkdir(parents=True)
    Progress(tmp_path, corpus_of(4), Part(1, 2))
    assert [path.name for path in (tmp_path / "train").iterdir()] == [".t1.0123abcd.partial"]


def test_unfinished_songs_of_another_process_stay_until_it_ends(tmp_path):
    other = Progress(tmp_path, corpus_of(4))
    (tmp_path / "train" / ".t0.0123abcd.partial").mkdir(parents=True)
    (tmp_path / "rejects.jsonl").write_text('{"id": "t0')  # as far as it has been written
    second = Progress(tmp_path, corpus_of(4))
    assert (tmp_path / "rejects.jsonl").read_text() and list(tmp_path.glob("*/.*"))
    del other, second
    Progress(tmp_path, corpus_of(4))
    assert not (tmp_path / "rejects.jsonl").read_text() and not list(tmp_path.glob("*/.*"))


def test_a_song_in_another_split_is_refused(tmp_path):
    song = add_song(tmp_path, "t0")
    (tmp_path / "train").rename(tmp_path / "test")
    with pytest.raises(InputError, match=f"test/{song['id']} and 0 more"):
        Progress(tmp_path, corpus_of(2))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"rejected_by_reason": 3}'])
def test_a_damaged_report_is_not_taken_for_none(tmp_path, text):
    assert rejected_by_reason(tmp_path) == {}
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=r"report\.json cannot be read"):
        rejected_by_reason(tmp_path)
