"""Arranges a lead sheet for a band: drums, bass, one to three harmony instruments and sometimes a counter-line.

Everything follows from the generator that is given. Times inside are quarters of the score (q), in the result seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hafm_jax.audio.songs import SPLITS
from hafm_jax.common.errors import InputError
from hafm_jax.synthesis import voicing
from hafm_jax.synthesis.drumming import drum_hits, ring_s
from hafm_jax.synthesis.grooves import GUITARS, KITS, UNSEEN_GROOVES, Groove, grooves_of, programs_of
from hafm_jax.synthesis.lead_sheet import Chord, LeadSheet, Timeline
from hafm_jax.synthesis.playing import Bar, Hit, counter_line, lay_bars, on_chords, pattern_hits

KINDS = ("drums", "bass", "harmony", "lead")
METRES = {  # written: the grooves' metre
    (4, 4): "4/4",
    (2, 2): "4/4",
    (3, 4): "3/4",
    (3, 8): "3/4",
    (3, 2): "3/4",
    (6, 8): "6/8",
    (9, 8): "6/8",
    (12, 8): "6/8",
    (2, 4): "2/4",
}
LEVELS_DB = {"drums": (-4.0, 1.0), "bass": (-5.0, -1.0), "harmony": (-4.0, 0.0), "lead": (-8.0, -3.0)}  # to the harmony
TIMING_S = {"drums": 0.004, "bass": 0.006, "harmony": 0.008, "lead": 0.010}  # deviations of players: ours
VELOCITY_JITTER = 5.0
MOST_LATE_S = 0.02  # no player is further off than this


@dataclass(frozen=True)
class Part:
    """One player's notes: seconds, MIDI pitches (of drums: General MIDI percussion keys) and velocities 1 to 127.

    `program` is a General MIDI program from 0, of drums the kit; `level_db` its loudness relative to the harmony.
    """

    name: str
    kind: str
    program: int
    level_db: float
    start_s: np.ndarray
    end_s: np.ndarray
    midi: np.ndarray
    velocity: np.ndarray


@dataclass(frozen=True)
class Arrangement:
    """`chords` are those that the band plays, an introduction's included: (start_s, end_s, chord)."""

    parts: tuple[Part, ...]
    style: str
    groove: str
    chords: tuple[tuple[float, float, Chord], ...]


def arrange(
    sheet: LeadSheet,
    first_bar: int,
    num_bars: int,
    timeline: Timeline,
    rng: np.random.Generator,
    *,
    split: str,
) -> Arrangement:
    """A band for `num_bars` bars of the sheet from `first_bar`. `timeline` maps the sheet's quarters to seconds of the
    song; whole bars that fit between 0 s and the first bar become a count-in or an introduction on the first chord.
    Where the window ends with the sheet, the last chord is held.

    Only the split "test" draws UNSEEN_GROOVES and UNSEEN_PROGRAMS. Raises InputError for a split, metre or window that
    cannot be.
    """
    if split not in SPLITS:
        raise InputError(f"the split is {split!r}, expected one of {', '.join(SPLITS)}")
    if sheet.metre not in METRES:
        known = ", ".join(f"{b}/{v}" for b, v in METRES)
        raise InputError(f"{sheet.title}: no groove is in {sheet.metre[0]}/{sheet.metre[1]}; there are some in {known}")
    if not 0 <= first_bar < first_bar + num_bars <= len(sheet.bars):
        raise InputError(
            f"{sheet.title}: bars {first_bar} to {first_bar + num_bars} are asked for, of {len(sheet.bars)} there are"
        )
    metre = METRES[sheet.metre]
    beat_q = sheet.beat_quarters if metre == "6/8" else 4 / sheet.metre[1]
    if sheet.metre == (2, 2):
        beat_q = 1.0  # written in halves, played in four
    start_q = sheet.bars[first_bar]
    end_q = sheet.bars[first_bar + num_bars] if first_bar + num_bars < len(sheet.bars) else sheet.end
    start_s, end_s = timeline.time_s(start_q), timeline.time_s(end_q)
    bpm = 60 * (end_q - start_q) / beat_q / (end_s - start_s)
    stretch = 2 if metre == "4/4" and bpm > 150 and rng.random() < 0.5 else 1  # fast music may be felt in halves
    choices = grooves_of(metre, bpm / stretch, split)
    unseen = [g for g in choices if g.name in UNSEEN_GROOVES]
    if unseen and rng.random() < 0.5:  # in the test split: enough songs of either kind to tell them apart
        choices = unseen
    if stretch == 2:
        choices = [g for g in choices if g.swing == 0.5 and g.slots_per_beat != 3] or choices
    # A style first, so that many grooves of one do not crowd out the others.
    styles = sorted({g.style for g in choices})
    style = styles[int(rng.integers(len(styles)))]
    choices = [g for g in choices if g.style == style]
    groove = choices[int(rng.integers(len(choices)))]

    bars = lay_bars(sheet, first_bar, num_bars, timeline, beat_q, rng)
    chords = _chords_of(sheet, start_q, end_q, bars)
    band = _Band(sheet, groove, beat_q * stretch, bars, chords, timeline, rng, split)
    parts = [band.drums(), band.bass(), *band.harmony()]
    if groove.leads and rng.random() < 0.45:
        parts.append(band.lead())
    heard = tuple((max(0.0, timeline.time_s(c.start)), timeline.time_s(c.end), c) for c in chords)
    return Arrangement(tuple(parts), groove.style, groove.name, heard)


def _chords_of(sheet: LeadSheet, start_q: float, end_q: float, bars: list[Bar]) -> list[Chord]:
    """The window's chords, cut to it, with the introduction's before them."""
    chords = [
        replace(c, start=max(c.start, start_q), end=min(c.end, end_q))
        for c in sheet.chords
        if c.end > start_q + 1e-6 and c.start < end_q - 1e-6
    ]
    introduced = [b for b in bars if b.kind == "intro"]
    if introduced and chords:
        chords.insert(0, replace(chords[0], start=introduced[0].start, end=introduced[-1].end))
    return chords


class _Band:
    """The players of one arrangement; each draws from the generator in turn."""

    def __init__(self, sheet, groove: Groove, beat_q: float, bars, chords, timeline: Timeline, rng, split: str):
        self.sheet, self.groove, self.beat_q, self.bars, self.chords = sheet, groove, beat_q, bars, chords
        self.timeline, self.rng, self.split = timeline, rng, split
        self.first_s = max(0.0, timeline.time_s(bars[0].start))
        self.last_s = timeline.time_s(bars[-1].end)

    def _program(self, family: str) -> tuple[int, str]:
        programs = programs_of(family, self.split)
        return programs[int(self.rng.integers(len(programs)))]

    def _part(self, kind: str, name: str, program: int, notes: list[tuple[float, float, int, float]]) -> Part:
        """Notes (start and end in seconds, pitch, velocity 0 to 1) with a player's deviations, none out of the song."""
        rng, jitter = self.rng, TIMING_S[kind]
        low, high = LEVELS_DB[kind]
        level_db = float(rng.uniform(low, high))
        late = np.clip(rng.normal(0, jitter, len(notes)), -MOST_LATE_S, MOST_LATE_S)
        hard = rng.normal(0, VELOCITY_JITTER, len(notes))
        kept = []
        for (start, end, midi, velocity), by, more in zip(notes, late, hard, strict=True):
            start = min(max(start + by, self.first_s), self.last_s)
            end = min(end, self.last_s)
            if end - start >= 0.02:
                kept.append((start, end, midi, int(np.clip(round(105 * velocity + more), 1, 127))))
        kept.sort()
        columns = list(zip(*kept, strict=True)) or [(), (), (), ()]
        return Part(
            name,
            kind,
            program,
            level_db,
            np.array(columns[0], np.float64),
            np.array(columns[1], np.float64),
            np.array(columns[2], np.int64),
            np.array(columns[3], np.int64),
        )

    def _seconds(self, hit: Hit, gate: float = 0.96) -> tuple[float, float]:
        start, end = self.timeline.time_s(hit.start), self.timeline.time_s(hit.end)
        return start, start + gate * (end - start)

    def drums(self) -> Part:
        kit = self.groove.kits[int(self.rng.integers(len(self.groove.kits)))]
        hits = drum_hits(self.groove, self.bars, self.beat_q, self.rng)
        notes = [(s := self.timeline.time_s(q), s + ring_s(key), key, velocity) for q, key, velocity in hits]
        return self._part("drums", f"{kit} kit", KITS[kit], _let_go(notes))

    def bass(self) -> Part:
        family, pattern = self.groove.bass
        program, name = self._program(family)
        hits = on_chords(pattern_hits(self.groove, pattern, self.bars, self.beat_q), self.chords, self.bars, "1")
        notes: list[tuple[float, float, int, float]] = []
        low, high = voicing.BASS_MIDI
        last = root = voicing.nearest(self.chords[0].bass, 36, low, high) if self.chords else 36
        for i, (hit, chord) in enumerate(hits):
            following = hits[i + 1] if i + 1 < len(hits) else None
            if i == 0 or hits[i - 1][1] is not chord:
                last = root = voicing.nearest(chord.bass, (root + 37) / 2, low, high)
            elif hit.symbol in "aw":
                changes = following is not None and following[1] is not chord
                on = following[1] if changes else chord
                target = voicing.nearest(on.bass, last, low, high)
                if hit.symbol == "a" or changes:
                    last = voicing.approach(target, last, self.sheet.key, self.rng)
                elif hit.downbeat:
                    last = root
                else:
                    last = voicing.walk(chord, last, target, self.rng)
            else:
                last = root if hit.downbeat else voicing.bass_degree(hit.symbol, chord, root)
            notes.append((*self._seconds(hit, 0.92), last, 0.75 * hit.velocity))
        return self._part("bass", name, program, notes)

    def harmony(self) -> list[Part]:
        """The groove's harmony parts; of two or more, the last may be left out."""
        comps = self.groove.comps
        if len(comps) > 1 and self.rng.random() < 0.25:
            comps = comps[:-1]
        return [self._comp(family, pattern) for family, pattern in comps]

    def _comp(self, family: str, pattern: str) -> Part:
        program, name = self._program(family)
        guitar = family in GUITARS
        centre = int(self.rng.integers(59, 66)) if family != "brass" else 62
        strum_s = float(self.rng.uniform(0.008, 0.020))  # from string to string
        hits = on_chords(pattern_hits(self.groove, pattern, self.bars, self.beat_q), self.chords, self.bars, "x")
        notes: list[tuple[float, float, int, float]] = []
        pitches: list[int] = []
        laid: Chord | None = None
        for hit, chord in hits:
            if chord is not laid:
                if guitar:
                    pitches = voicing.guitar_voicing(chord, pitches)
                else:
                    pitches = voicing.keyboard_voicing(chord, pitches, centre)
                laid = chord
            start, end = self._seconds(hit)
            if hit.symbol.isdigit():
                octaves, place = divmod(int(hit.symbol) - 1, len(pitches))
                notes.append((start, end + 0.5 * (end - start), pitches[place] + 12 * octaves, 0.7 * hit.velocity))
            elif hit.symbol == "b":
                low = pitches[0] if guitar else voicing.nearest(chord.bass, pitches[0] - 8, 40, 60)
                notes.append((start, end, low, 0.75 * hit.velocity))
            elif hit.symbol in "dDu" or guitar:
                upwards = hit.symbol == "u"
                order = pitches[::-1][:4] if upwards else pitches
                slow = strum_s * (0.6 if upwards else 1.0)
                for string, midi in enumerate(order):
                    at = start + string * min(slow, 0.5 * (end - start) / len(order))
                    notes.append((at, max(end, at + 0.05), midi, (0.6 if upwards else 0.7) * hit.velocity))
            else:
                notes += [(start, end, midi, 0.68 * hit.velocity) for midi in pitches]
        return self._part("harmony", name, program, _let_go(notes))

    def lead(self) -> Part:
        program, name = self._program(self.groove.leads[int(self.rng.integers(len(self.groove.leads)))])
        line = counter_line(self.sheet, self.bars, self.chords, self.beat_q, self.rng)
        return self._part(
            "lead", name, program, [(*self._seconds(hit), midi, 0.7 * hit.velocity) for hit, midi in line]
        )


def _let_go(notes: list[tuple[float, float, int, float]]) -> list[tuple[float, float, int, float]]:
    """A string or key that is struck again stops sounding first."""
    following: dict[int, float] = {}
    kept = []
    for start, end, midi, velocity in sorted(notes, reverse=True):
        end = min(end, following.get(midi, np.inf) - 0.005)
        if end > start:
            kept.append((start, end, midi, velocity))
            following[midi] = start
    return kept[::-1]
