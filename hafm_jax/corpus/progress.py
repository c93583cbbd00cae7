"""What is done of a run that turns tracks into songs: it goes on after a kill, in parts, and reports on all.

A songs folder is its own record:

    SPLIT/ID/song.json    a song that is done; folders that begin with a dot are not
    rejects.jsonl         a line for each track that makes none, as it came
    run.json              what the run was asked for
    report.json           counts, hours, licences and all rejects: read off the others

Of part 2 of 8, the files are rejects-2-of-8.jsonl and report-2-of-8.json.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from hafm_jax.audio.music import SONG_FILE
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_json
from hafm_jax.common.resume import end_after_whole_line, whole_lines
from hafm_jax.corpus.collections import Corpus, Track
from hafm_jax.corpus.screening import Reason, Reject

REPORT_EVERY_S = 30.0

Song = dict[str, Any]  # what song.json holds, among it id, split, seconds, licence


class Part(NamedTuple):
    """The `number`-th, from 1, of `of` parts of the work: every `of`-th track."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"part {text!r}; expected I/N with I in 1..N, as in 2/8")
        return cls(int(match[1]), int(match[2]))

    def file(self, name: str, suffix: str) -> str:
        return f"{name}{suffix}" if self.of == 1 else f"{name}-{self.number}-of-{self.of}{suffix}"

    def share(self, items: list) -> list:
        return items[self.number - 1 :: self.of]


class Ledger:
    """What is done of a part of the corpus in `out`; `todo` are the tracks that are left.

    What a killed run left of the part's unfinished songs is removed. Raises InputError where `out` holds songs that the
    corpus does not have, or what it holds cannot be read.
    """

    def __init__(self, out: Path, corpus: Corpus, part: Part = Part()) -> None:  # noqa: B008, a tuple does not change
        self._out, self._part = out, part
        tracks = part.share(corpus.tracks)
        own = {track.id for track in tracks}
        _check_no_strangers(out, corpus)
        for partial in out.glob("*/.*.partial"):
            if partial.name[1:].split(".")[0] in own:  # the others may be at work
                shutil.rmtree(partial, ignore_errors=True)
        self._songs = self._read_songs(tracks)
        self._receipts = out / part.file("rejects", ".jsonl")
        end_after_whole_line(self._receipts)
        self._rejects = {reject.id: reject for reject in part.share(corpus.rejects)}
        self.num_tracks = len(tracks) + len(self._rejects)
        for path in sorted(out.glob("rejects*.jsonl")):  # also of earlier runs, in parts of another number
            self._rejects |= {reject.id: reject for reject in _read_rejects(path) if reject.id in own}
        done = self._songs.keys() | self._rejects.keys()
        self.todo = [track for track in tracks if track.id not in done]
        self._reported_s = -math.inf

    @property
    def num_done(self) -> int:
        return len(self._songs) + len(self._rejects)

    def add(self, result: Song | Reject) -> None:
        """A song whose folder is there, or a reject, which is written down; now and then the report is written anew."""
        if isinstance(result, Reject):
            with self._receipts.open("a") as file:
                file.write(json.dumps(result._asdict()) + "\n")
            self._rejects[result.id] = result
        else:
            self._songs[result["id"]] = result
        if time.monotonic() - self._reported_s > REPORT_EVERY_S:
            self.write_report()

    def add_songs_found(self) -> None:
        """Count the songs that are there though `add` was not told: their workers ended after an interruption."""
        self._songs |= self._read_songs([track for track in self.todo if track.id not in self._rejects])

    def _read_songs(self, tracks: list[Track]) -> dict[str, Song]:
        return {
            track.id: _read_song(folder) for track in tracks if (folder := self._out / track.split / track.id).is_dir()
        }

    def write_report(self) -> dict[str, Any]:
        """Write the report of the part, and return it."""
        songs = [self._songs[name] for name in sorted(self._songs)]
        rejects = [self._rejects[name] for name in sorted(self._rejects)]
        splits = {}
        for split in sorted({song["split"] for song in songs}):
            seconds = [song["seconds"] for song in songs if song["split"] == split]
            splits[split] = {"songs": len(seconds), "hours": round(math.fsum(seconds) / 3600, 3)}
        number = Counter(reject.reason for reject in rejects)
        licences = Counter(song["licence"] or "not stated" for song in songs)
        document = {
            "tracks": self.num_tracks,
            "songs": len(songs),
            "rejected": len(rejects),
            "to_do": self.num_tracks - self.num_done,
            "splits": splits,
            "licences": dict(sorted(licences.items())),
            "rejected_by_reason": {reason.value: number[reason] for reason in Reason},
            "rejects": [reject._asdict() for reject in rejects],
        }
        write_json(self._out / self._part.file("report", ".json"), document)
        self._reported_s = time.monotonic()
        return document


def rejected_by_reason(songs: Path) -> dict[str, int]:
    """Of the report on a songs folder, the reasons for which tracks make no song; {} where there is no report, as where
    songs were synthesised."""
    try:
        numbers = json.loads((songs / Part().file("report", ".json")).read_text())["rejected_by_reason"]
        return {reason: number for reason, number in numbers.items() if number}
    except (OSError, ValueError, KeyError):
        return {}


def _check_no_strangers(out: Path, corpus: Corpus) -> None:
    known = {(track.split, track.id) for track in corpus.tracks}
    strangers = sorted(
        f"{split.name}/{song.name}"
        for split in os.scandir(out)
        if split.is_dir()
        for song in os.scandir(split)
        if song.is_dir() and not song.name.startswith(".") and (split.name, song.name) not in known
    )
    if strangers:
        raise InputError(
            f"{out} holds {strangers[0]} and {len(strangers) - 1} more songs that are not, or no longer, tracks of the "
            "collection; expected its own alone: remove them, or choose another folder"
        )


def _read_song(folder: Path) -> Song:
    path = folder / SONG_FILE
    try:
        song = json.loads(path.read_text())
        if absent := {"id", "split", "seconds", "licence"} - set(song):
            raise ValueError(f"no {', '.join(sorted(absent))}")
        return song
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected facts of a song: remove its folder, and it is made anew"
        ) from error


def _read_rejects(path: Path) -> list[Reject]:
    """Those of whole lines: another part may be writing the last one."""
    try:
        return [Reject(**json.loads(line)) for line in whole_lines(path)]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a reject a line: remove it, and they are looked at anew"
        ) from error
