"""Names of keys, and song.json, the facts about a song (key, chords, beats, licence) in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from hafm_jax.common.files import read_json

SONG_FILE = "song.json"
TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


class Key(NamedTuple):
    """`tonic` as pitch class, 0 is C; `mode` is major or minor."""

    tonic: int
    mode: str

    @property
    def name(self) -> str:
        """In mir_eval's notation: "Db major"."""
        return f"{TONICS[self.tonic]} {self.mode}"

    def distance(self, other: Key) -> float:
        """Steps between the keys' signatures on the circle of fifths, 0 to 6, and half a step where the modes differ.

        A key and its relative (C major, A minor) have one signature and so are 0.5 apart.
        """
        fifths = [7 * (key.tonic + (3 if key.mode == "minor" else 0)) % 12 for key in (self, other)]
        steps = abs(fifths[0] - fifths[1])
        return min(steps, 12 - steps) + 0.5 * (self.mode != other.mode)


def read_song(folder: Path) -> dict[str, Any]:
    """The song.json of a song's folder; {} where there is none. Raises InputError where it cannot be read."""
    path = folder / SONG_FILE
    return read_json(path, "a JSON object: make the song again") if path.exists() else {}
