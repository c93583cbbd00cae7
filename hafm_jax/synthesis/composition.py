"""Songs as scores: key, tempo, beats, chords, a melody for one singer and parts for a small band. No sound here.

A song's accompaniment can be inferred from its melody: chord tones are on the beats, first those that distinguish the
chord, with scale tones between them; all onsets are on the eighth-note grid; and the band plays the chords for which
the melody was written. What a melody does not determine (instruments, patterns, balance) is drawn at random once per
song.

Time is counted in slots (eighth notes) from the first downbeat; `Score.time_s` turns slots into seconds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from hafm_jax.audio.music import TONICS
from hafm_jax.synthesis.patterns import (
    BASS_INSTRUMENTS,
    BASS_PATTERNS,
    CHORD_INSTRUMENTS,
    CHORD_PATTERNS,
    DRUM_PATTERNS,
    FEEL_WEIGHTS,
    FEELS,
    HELD_INSTRUMENTS,
    LEAD_INSTRUMENTS,
    LEAD_ROLES,
    NUMERALS,
    PROGRESSIONS,
    QUALITIES,
    SCALES,
    Feel,
)

# Weight of a chord's root over its other tones until it is sung, and then of its third. Ours; see docs/notebook.md.
TELLING_WEIGHT = 30.0


@dataclass(frozen=True)
class Chord:
    """One chord from `start_slot` to `end_slot`; `pitch_classes` root first, 0 is C."""

    start_slot: int
    end_slot: int
    name: str
    pitch_classes: tuple[int, ...]


@dataclass(frozen=True)
class Note:
    """One note: times in seconds, pitch as MIDI number, velocity 0 to 1. `phrase` is used by the melody only."""

    start_s: float
    end_s: float
    midi: int
    velocity: float = 1.0
    phrase: int = 0


@dataclass
class Score:
    """A whole song as notes. `drums` are (start_s, drum, velocity); `parts` are notes by instrument."""

    tonic: int
    mode: str
    tempo_bpm: float
    feel: Feel
    first_downbeat_s: float
    chords: list[Chord] = field(default_factory=list)
    melody: list[Note] = field(default_factory=list)
    parts: dict[str, list[Note]] = field(default_factory=dict)
    drums: list[tuple[float, str, float]] = field(default_factory=list)
    patterns: dict[str, str] = field(default_factory=dict)

    @property
    def beat_s(self) -> float:
        return 60.0 / self.tempo_bpm

    def time_s(self, slot: float) -> float:
        """Seconds of a slot, whole or not, in this song's feel."""
        per_beat = self.feel.slots_per_beat
        beat, within = divmod(slot, per_beat)
        fraction = np.interp(within, range(per_beat + 1), (*self.feel.slot_fractions, 1.0))
        return float(self.first_downbeat_s + (beat + fraction) * self.beat_s)

    def chord_at(self, slot: float) -> Chord:
        length = self.chords[0].end_slot - self.chords[0].start_slot
        return self.chords[min(int(slot // length), len(self.chords) - 1)]


def compose(rng: np.random.Generator, seconds: float, voice_range: tuple[int, int]) -> Score:
    """Write a song of `seconds` for a singer with this range (MIDI numbers, low and high).

    A longer song from the same generator begins as the shorter one does: each part draws from its own stream.
    """
    melody_rng, band_rng = rng.spawn(2)
    feel = FEELS[str(rng.choice(list(FEEL_WEIGHTS), p=list(FEEL_WEIGHTS.values())))]
    tempo_bpm = round(float(rng.uniform(*feel.tempo_bpm)), 1)
    mode = str(rng.choice(("major", "minor", "dorian"), p=(0.55, 0.33, 0.12)))
    # An offset below one beat: otherwise bars would begin at the same time in every song, and could be counted.
    score = Score(int(rng.integers(12)), mode, tempo_bpm, feel, float(rng.uniform(0.0, 60.0 / tempo_bpm)))

    bar_s = feel.beats_per_bar * score.beat_s
    bars_per_chord = 2 if bar_s < 1.8 and rng.random() < 0.4 else 1
    chord_slots = bars_per_chord * feel.slots_per_bar
    num_sections = int(np.ceil(seconds / (4 * bars_per_chord * bar_s))) + 1
    first, second = rng.choice(len(PROGRESSIONS[mode]), 2, replace=False)
    form = ("A", "A", "B", "B")
    score.patterns["progression"] = PROGRESSIONS[mode][first]
    score.patterns["second_progression"] = PROGRESSIONS[mode][second]
    for section in range(num_sections):
        for numeral in PROGRESSIONS[mode][first if form[section % 4] == "A" else second].split():
            root, quality = NUMERALS[numeral]
            root = (score.tonic + root) % 12
            start = len(score.chords) * chord_slots
            tones = tuple((root + step) % 12 for step in QUALITIES[quality])
            score.chords.append(Chord(start, start + chord_slots, TONICS[root] + quality, tones))

    _write_melody(score, melody_rng, form, num_sections, 4 * chord_slots, voice_range)
    _write_band(score, band_rng, num_sections * 4 * bars_per_chord)
    return score


def _write_melody(
    score: Score,
    rng: np.random.Generator,
    form: tuple[str, ...],
    num_sections: int,
    section_slots: int,
    voice_range: tuple,
) -> None:
    """Fill `score.melody`: a repeated section has the same rhythm, and the same pitches except in its last phrase."""
    bar = score.feel.slots_per_bar
    low = int(rng.integers(voice_range[0], max(voice_range[0], voice_range[1] - 14) + 1))
    high = min(low + 14, voice_range[1])
    rhythms, pitches = {}, {}
    number = 0
    for section in range(num_sections):
        name, start = form[section % 4], section * section_slots
        if name not in rhythms:
            bars_per_phrase = 2 if bar * score.beat_s / score.feel.slots_per_beat < 2.6 or rng.random() < 0.4 else 1
            num_phrases = section_slots // (bars_per_phrase * bar)
            motifs = [_phrase_rhythm(rng, score.feel, bars_per_phrase * bar) for _ in range(2)]
            order = rng.choice(("aaab", "abab", "aaba", "abaa"))
            rhythms[name] = [
                [(i * bars_per_phrase * bar + slot, length) for slot, length in motifs["ab".index(order[i % 4])]]
                for i in range(num_phrases)
            ]
        phrases = rhythms[name]
        sung = [_phrase_pitches(rng, score, [(start + s, n) for s, n in phrase], low, high) for phrase in phrases]
        if name in pitches:
            sung[:-1] = pitches[name][:-1]
        pitches[name] = sung
        for phrase, midis in zip(phrases, sung, strict=True):
            level = rng.uniform(0.75, 1.0)
            for i, ((slot, length), midi) in enumerate(zip(phrase, midis, strict=True)):
                arch = 0.85 + 0.15 * np.sin(np.pi * (i + 0.5) / len(phrase))  # phrases swell and fade
                times = score.time_s(start + slot), score.time_s(start + slot + length)
                score.melody.append(Note(*times, midi, float(level * arch), number))
            number += 1


def _phrase_rhythm(rng: np.random.Generator, feel: Feel, num_slots: int) -> list[tuple[int, int]]:
    """(slot, length) of a phrase's notes. The last one is longer, and a rest of at least a beat follows it."""
    per_beat = feel.slots_per_beat
    slot = int(rng.choice((0, per_beat), p=(0.75, 0.25))) + (rng.random() < 0.1)
    end = num_slots - per_beat - int(rng.integers(0, per_beat + 1))
    notes = []
    while slot < end:
        to_beat = per_beat - slot % per_beat
        if to_beat < per_beat:
            length = to_beat + (per_beat if rng.random() < 0.12 else 0)  # sometimes tied over the beat
            length = 1 if to_beat == 2 and rng.random() < 0.5 else length
        else:
            choices = (1, 2, 3, 4) if per_beat == 2 else (1, 2, 3, 6)
            length = int(rng.choice(choices, p=(0.42, 0.38, 0.08, 0.12) if per_beat == 2 else (0.35, 0.3, 0.3, 0.05)))
        notes.append((slot, length))
        slot += length
    last, _ = notes[-1]
    return [*notes[:-1], (last, max(1, min(num_slots - per_beat, last + 2 * per_beat) - last))]


def _phrase_pitches(rng: np.random.Generator, score: Score, rhythm: list, low: int, high: int) -> list[int]:
    """MIDI numbers: chord tones on the beats and on long notes first, each chord's root and third before its other
    tones; then scale steps between them."""
    per_beat = score.feel.slots_per_beat
    scale = {(score.tonic + step) % 12 for step in SCALES[score.mode]}
    middle = (low + high) / 2
    span = np.arange(low, high + 1)
    strong = [
        slot % per_beat == 0 or length >= per_beat or i in (0, len(rhythm) - 1)
        for i, (slot, length) in enumerate(rhythm)
    ]
    midis: list[int] = [0] * len(rhythm)
    previous = middle + rng.normal(0, 3)
    previous_chord, untold = None, []
    for i, (slot, _) in enumerate(rhythm):
        if not strong[i]:
            continue
        chord = score.chord_at(slot)
        weight = np.isin(span % 12, chord.pitch_classes).astype(np.float64)
        weight *= np.exp(-np.abs(span - previous) / 3.0 - ((span - middle) / 7.0) ** 2)
        weight *= np.where(span == previous, 0.5, 1.0)
        if chord is not previous_chord:
            previous_chord, untold = chord, list(chord.pitch_classes[:2])
        if untold:
            weight *= np.where(span % 12 == untold[0], TELLING_WEIGHT, 1.0)
        previous = midis[i] = int(rng.choice(span, p=weight / weight.sum()))
        untold = [tone for tone in untold if tone != previous % 12]
    for i, (slot, _) in enumerate(rhythm):
        if strong[i]:
            continue
        tones = set(score.chord_at(slot).pitch_classes)
        clash = {
            (tone + step) % 12 for tone in tones - scale for step in (-1, 1)
        }  # e.g. the seventh against a raised one
        passing = span[np.isin(span % 12, list((scale - clash) | tones))]
        following = next(midis[j] for j in range(i + 1, len(rhythm)) if strong[j])
        aim = (midis[i - 1] + following) / 2 + (rng.choice((-2, 2)) if midis[i - 1] == following else 0)
        weight = np.exp(-np.abs(passing - aim) / 0.8)
        midis[i] = int(rng.choice(passing, p=weight / weight.sum()))
    return midis


def _write_band(score: Score, rng: np.random.Generator, num_bars: int) -> None:
    """Choose instruments and patterns, and write the parts of bass, chords and drums."""
    feel = score.feel.name
    if rng.random() < 0.93:
        _write_bass(score, str(rng.choice(BASS_INSTRUMENTS)), str(rng.choice(list(BASS_PATTERNS[feel]))), num_bars)
    instruments = rng.choice(CHORD_INSTRUMENTS, 2, replace=False)[: 1 if rng.random() < 0.6 else 2]
    for instrument in map(str, instruments):
        names = [
            n
            for n in CHORD_PATTERNS[feel]
            if instrument not in HELD_INSTRUMENTS or n in ("sustain", "halves", "dotted")
        ]
        if instrument == "marimba":  # its tones are too short for a bar
            names = [n for n in names if n not in ("sustain", "halves")]
        _write_chords(score, rng, instrument, str(rng.choice(names)), num_bars)
    if rng.random() < 0.82:
        _write_drums(score, rng, str(rng.choice(list(DRUM_PATTERNS[feel]))), num_bars)
    if rng.random() < 0.4:
        _write_lead(score, rng, str(rng.choice(LEAD_INSTRUMENTS)), str(rng.choice(LEAD_ROLES)))


def _rows(row: str, slots_per_bar: int) -> list[tuple[float, float, str]]:
    """(slot, length in slots, symbol) of a pattern's row."""
    step = slots_per_bar / len(row)
    found = []
    for i, symbol in enumerate(row):
        if symbol not in "-.":
            held = len(row[i + 1 :]) - len(row[i + 1 :].lstrip("-"))
            found.append((i * step, (1 + held) * step, symbol))
    return found


def _write_bass(score: Score, instrument: str, pattern: str, num_bars: int) -> None:
    """Bass line between E1 and E3; `a` leads to the next root by a semitone."""
    bar = score.feel.slots_per_bar
    score.patterns[instrument] = pattern
    notes = score.parts[instrument] = []
    for start in range(0, num_bars * bar, bar):
        for slot, length, symbol in _rows(BASS_PATTERNS[score.feel.name][pattern], bar):
            tones = score.chord_at(start + slot).pitch_classes
            root = 28 + (tones[0] - 28) % 12
            upcoming = 28 + (score.chord_at(start + bar).pitch_classes[0] - 28) % 12
            above = {"r": 0, "8": 12, "3": (tones[1] - tones[0]) % 12, "5": (tones[2] - tones[0]) % 12}
            midi = upcoming - 1 if symbol == "a" else root + above[symbol]
            times = score.time_s(start + slot), score.time_s(start + slot + 0.95 * length)
            notes.append(Note(*times, midi, 1.0 if slot == 0 else 0.85))


def _write_chords(score: Score, rng: np.random.Generator, instrument: str, pattern: str, num_bars: int) -> None:
    """Chords voiced close to each other around the singer's middle; guitars strum from below."""
    bar = score.feel.slots_per_bar
    score.patterns[instrument] = pattern
    notes = score.parts[instrument] = []
    guitar = instrument.endswith("guitar")
    strum_s = float(rng.uniform(0.008, 0.018)) if guitar else 0.0
    lowest = int(rng.integers(50, 58)) - (5 if guitar else 0)
    for start in range(0, num_bars * bar, bar):
        tones = score.chord_at(start).pitch_classes
        voicing = sorted(lowest + (tone - lowest) % 12 for tone in tones)
        voicing = [*voicing, voicing[0] + 12, *([voicing[1] + 12] if guitar else [])]
        for slot, length, symbol in _rows(CHORD_PATTERNS[score.feel.name][pattern], bar):
            picked = voicing if symbol == "x" else [voicing[min(int(symbol), len(voicing)) - 1]]
            accent = 1.0 if slot == 0 else 0.8 + 0.1 * (slot % score.feel.slots_per_beat == 0)
            ring = length if symbol == "x" else 2 * length  # single tones ring into each other
            for i, midi in enumerate(picked):
                times = score.time_s(start + slot) + i * strum_s, score.time_s(start + slot + 0.97 * ring)
                notes.append(Note(*times, midi, accent))


def _write_lead(score: Score, rng: np.random.Generator, instrument: str, role: str) -> None:
    """A tune between C4 and B5: the singer's own, or chord tones by steps of a slot while the singer rests."""
    score.patterns[instrument] = role
    notes = score.parts[instrument] = []
    if role == "doubles":
        octaves = 12 * max(0, -((score.melody[0].midi - 60) // 12))
        notes.extend(replace(note, midi=note.midi + octaves, velocity=0.8 * note.velocity) for note in score.melody)
        return
    slots = np.array([score.time_s(slot) for slot in range(score.chords[-1].end_slot)])
    midi = 67.0
    for sung, following in itertools.pairwise(score.melody):
        free = np.flatnonzero((slots > sung.end_s + 0.1) & (slots < following.start_s - 0.1))
        if sung.phrase == following.phrase or len(free) < 3:
            continue
        for slot in free[:-1]:
            tones = np.array([m for m in range(60, 84) if m % 12 in score.chord_at(slot).pitch_classes])
            weight = np.exp(-np.abs(tones - midi) / 3.0) * (tones != midi)
            midi = float(rng.choice(tones, p=weight / weight.sum()))
            notes.append(Note(slots[slot], slots[slot] + 0.9 * (slots[slot + 1] - slots[slot]), int(midi), 0.8))


def _write_drums(score: Score, rng: np.random.Generator, pattern: str, num_bars: int) -> None:
    """Drums, with a fill before every eighth bar and a crash after it in most songs."""
    bar = score.feel.slots_per_bar
    score.patterns["drums"] = pattern
    fills = rng.random() < 0.7
    for number in range(num_bars):
        start = number * bar
        for drum, row in DRUM_PATTERNS[score.feel.name][pattern].items():
            for slot, _, symbol in _rows(row, bar):
                score.drums.append((score.time_s(start + slot), drum, 1.0 if symbol == "x" else 0.5))
        if fills and number % 8 == 7:
            score.drums.extend((score.time_s(start + bar - 2 + s), "tom", 0.7 + 0.15 * s) for s in (0, 0.5, 1, 1.5))
        if fills and number and number % 8 == 0:
            score.drums.append((score.time_s(start), "crash", 0.8))
