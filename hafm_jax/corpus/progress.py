"""Progress of a run that turns tracks into songs: it resumes after a kill, can be cut into parts, and has one report.

The songs folder itself is the record:

    SPLIT/ID/song.json    a song that is done; folders whose names begin with a dot are not
    rejects.jsonl         a line for each track that makes no song, in the order of the work
    run.json              what the run was asked for (hafm_jax.common.resume)
    report.json           counts, hours, licences, all tracks left out and all files of no track: made from the files
                          above and the listing of the collection

Of part 2/8, the files are rejects-2-of-8.jsonl and report-2-of-8.json.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

from hafm_jax.audio.music import SONG_FILE
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import reading, write_json
from hafm_jax.common.resume import end_after_whole_line, whole_lines
from hafm_jax.common.system import lock
from hafm_jax.corpus.choices import Part
from hafm_jax.corpus.collections import counts_of
from hafm_jax.corpus.screening import Reason, Unusable
from hafm_jax.corpus.tracks import Corpus, Track

REPORT_EVERY_S = 30.0
AT_WORK = ".at_work"

Song = dict[str, Any]  # what song.json holds, among it id, split, seconds, licence


class Progress:
    """The state of a part of the corpus in the songs folder `out`; `todo` are the tracks that are left.

    What a killed run left of the part's unfinished songs is removed, unless another process is at work in `out`.
    Raises InputError where `out` holds songs that the corpus does not have, or where a file in it cannot be read.
    """

    def __init__(self, out: Path, corpus: Corpus, part: Part = Part()) -> None:  # noqa: B008, a tuple does not change
        self._out, self._part, self._corpus = out, part, corpus
        tracks = part.share(corpus.tracks)
        own = {track.id for track in tracks}
        _check_no_strangers(out, corpus)
        self._at_work, is_alone = _at_work(out)
        for partial in out.glob("*/.*.partial") if is_alone else ():
            label = partial.name[1:].split(".")[0]  # an id, or how it begins
            if any(name.startswith(label) for name in own):  # those of other parts may be at work on other machines
                shutil.rmtree(partial, ignore_errors=True)
        self._songs = self._read_songs(tracks)
        self._log = out / part.file("rejects", ".jsonl")
        if is_alone:
            end_after_whole_line(self._log)
        self._unusable = {unusable.id: unusable for unusable in part.share(corpus.unusable)}
        self.num_tracks = len(tracks) + len(self._unusable)
        for path in sorted(out.glob("rejects*.jsonl")):  # also of earlier runs with another number of parts
            self._unusable |= {unusable.id: unusable for unusable in _read_log(path) if unusable.id in own}
        done = self._songs.keys() | self._unusable.keys()
        self.todo = [track for track in tracks if track.id not in done]
        self._reported_s = -math.inf

    @property
    def num_done(self) -> int:
        return len(self._songs) + len(self._unusable)

    def add(self, result: Song | Unusable) -> None:
        """Count a song whose folder is there, or write down a track that makes none; renew the report now and then."""
        if isinstance(result, Unusable):
            with self._log.open("a") as file:
                file.write(json.dumps(result.facts()) + "\n")
            self._unusable[result.id] = result
        else:
            self._songs[result["id"]] = result
        if time.monotonic() - self._reported_s > REPORT_EVERY_S:
            self.write_report()

    def add_songs_found(self) -> None:
        """Count the songs that are there but were not added: their workers finished them after an interruption."""
        self._songs |= self._read_songs([track for track in self.todo if track.id not in self._unusable])

    def _read_songs(self, tracks: list[Track]) -> dict[str, Song]:
        return {
            track.id: _read_song(folder) for track in tracks if (folder := self._out / track.split / track.id).is_dir()
        }

    def write_report(self) -> dict[str, Any]:
        """Write the report of the part, and return it."""
        songs = [self._songs[name] for name in sorted(self._songs)]
        unusable = [self._unusable[name] for name in sorted(self._unusable)]
        splits = {}
        for split in sorted({song["split"] for song in songs}):
            seconds = [song["seconds"] for song in songs if song["split"] == split]
            splits[split] = {"songs": len(seconds), "hours": round(math.fsum(seconds) / 3600, 3)}
        number = Counter(one.reason for one in unusable)
        licences = Counter(song["licence"] or "not stated" for song in songs)
        document = {
            "tracks": self.num_tracks,
            "songs": len(songs),
            "rejected": len(unusable),
            "to_do": self.num_tracks - self.num_done,
            "splits": splits,
            "licences": dict(sorted(licences.items())),
            "rejected_by_reason": {reason.value: number[reason] for reason in Reason},
            "rejects": [one.facts() for one in unusable],
            "files": {
                "found": self._corpus.found,
                "of_tracks": self._corpus.found - len(self._corpus.aside),
                "aside_by_reason": counts_of(self._corpus.aside),
                "aside": [one._asdict() for one in self._corpus.aside],
            },
            "metadata_rows_left_out": list(self._corpus.bad_rows),
        }
        write_json(self._out / self._part.file("report", ".json"), document)
        self._reported_s = time.monotonic()
        return document


def rejected_by_reason(songs: Path) -> dict[str, int]:
    """Reason -> number of tracks that made no song, from the report of a songs folder; {} where there is no report, as
    where songs were synthesised."""
    path = songs / Part().file("report", ".json")
    if not path.exists():
        return {}
    with reading(path, "the report of tokenize/separate_stems.py: run it again, or remove the file"):
        numbers = json.loads(path.read_bytes())["rejected_by_reason"]
        return {reason: number for reason, number in numbers.items() if number}


def _at_work(out: Path) -> tuple[IO[str] | None, bool]:
    """(a lock that this process shares with all others at work in `out`, as long as the file is open; whether there is
    no other)."""
    try:
        file = (out / AT_WORK).open("a")
        is_alone = lock(file)
        lock(file, wait=True, shared=True)
    except OSError:  # a file system without locks, or Windows
        return None, True
    return file, is_alone


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
            "collection; expected only songs of its tracks: remove the others, or choose another folder"
        )


def _read_song(folder: Path) -> Song:
    path = folder / SONG_FILE
    with reading(path, "facts of a song: remove its folder, and it is made again"):
        song = json.loads(path.read_bytes())
        if absent := {"id", "split", "seconds", "licence"} - set(song):
            raise ValueError(f"no {', '.join(sorted(absent))}")
    return song


def _read_log(path: Path) -> list[Unusable]:
    """Those of whole lines: another part may be writing the last one."""
    with reading(path, "a track that makes no song on each line: remove it, and its tracks are processed again"):
        return [Unusable(**json.loads(line)) for line in whole_lines(path)]
