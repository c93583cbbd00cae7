"""A song as written: melody with syllables, chords, bars, key and sections; what readers of scores give to the band.

Times are in quarter notes from the first note of the score, a pickup included; a bar's first beat is where its entry in
`bars` says. `Timeline` turns them into seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SungNote:
    """A note of the melody. `syllable` is its text; "" without words, "-" where the syllable before goes on."""

    start: float
    end: float
    midi: int
    syllable: str = ""


@dataclass(frozen=True)
class Chord:
    """A chord as played from `start` to `end`. `symbol` is the full one ("F#m7b5/E"), `name` the reduced one ("F#:min":
    maj, min, dim, aug, sus2 or sus4); root and bass are pitch classes, 0 is C, and so are `tones`, root first."""

    start: float
    end: float
    symbol: str
    name: str
    root: int
    bass: int
    tones: tuple[int, ...]


@dataclass(frozen=True)
class Section:
    """Bars `first` to `last` exclusive, under the score's own name for them ("A", "chorus")."""

    first: int
    last: int
    name: str


@dataclass(frozen=True)
class LeadSheet:
    """One composition with its repeats written out.

    - composition: a name that all windows and versions of it share; splits are by it
    - metre: beats a bar and the note value that is written ((6, 8) has two beats of 1.5 quarters)
    - bars: the start of each bar; the first is after the pickup
    - key: tonic as pitch class, and mode, "major" or "minor"
    - tempo_bpm: of the beat, None where the score says nothing
    """

    composition: str
    title: str
    source: str
    licence: str
    metre: tuple[int, int]
    bars: tuple[float, ...]
    end: float
    key: tuple[int, str]
    tempo_bpm: float | None
    notes: tuple[SungNote, ...]
    chords: tuple[Chord, ...]
    sections: tuple[Section, ...] = ()
    style: str | None = field(default=None)

    @property
    def beat_quarters(self) -> float:
        """Quarters a beat: compound metres (6/8, 9/8, 12/8) beat in dotted quarters."""
        beats, value = self.metre
        return 4 / value * (3 if value == 8 and beats % 3 == 0 and beats > 3 else 1)

    @property
    def beats_per_bar(self) -> int:
        beats, value = self.metre
        return round(beats * 4 / value / self.beat_quarters)


@dataclass(frozen=True)
class Timeline:
    """Score time to seconds: piecewise linear through (quarters, seconds), for tempo changes and ritardandi."""

    quarters: Sequence[float]
    seconds: Sequence[float]

    def time_s(self, quarters: float) -> float:
        """Extrapolates at the tempo of the first and the last piece."""
        q, s = np.asarray(self.quarters, float), np.asarray(self.seconds, float)
        k = int(np.clip(np.searchsorted(q, quarters, side="right") - 1, 0, len(q) - 2))
        return float(s[k] + (quarters - q[k]) * (s[k + 1] - s[k]) / (q[k + 1] - q[k]))
