"""Bars with their dynamics, a groove's patterns over them, and the counter-line. Times are quarters of the score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hafm_jax.synthesis import voicing
from hafm_jax.synthesis.grooves import Groove
from hafm_jax.synthesis.lead_sheet import Chord, LeadSheet, Timeline

ACCENTS = {"X": 1.0, "D": 1.0, "o": 0.5, "u": 0.75}  # the others are 0.85
LEVELS = (0.72, 1.0)  # velocities of the quietest and of the loudest section
MOST_INTRO_BARS = 4
LEAD_MIDI = (62, 81)


@dataclass(frozen=True)
class Bar:
    """`kind`: "count" (sticks alone), "intro", "song" or "end" (the last chord is held). `index` counts from the first
    bar that the groove is played in; `fill` ends a section, `crash` begins one."""

    start: float
    end: float
    index: int
    kind: str
    level: float
    fill: bool = False
    crash: bool = False


@dataclass(frozen=True)
class Hit:
    """What a groove's character asks for, from `start` to `end`; `downbeat` where it begins a bar."""

    start: float
    end: float
    symbol: str
    velocity: float
    downbeat: bool


def lay_bars(
    sheet: LeadSheet, first_bar: int, num_bars: int, timeline: Timeline, beat_q: float, rng: np.random.Generator
) -> list[Bar]:
    """The window's bars with dynamics by section, after as many bars of introduction as fit before (four at most)."""
    edges = [*sheet.bars, sheet.end][first_bar : first_bar + num_bars + 1]
    sections = [(s.first - first_bar, s.last - first_bar) for s in sheet.sections]
    if not any(0 < first < num_bars for first, _ in sections):
        every = int(rng.choice((8, 8, 16)))
        sections = [(k, k + every) for k in range(0, num_bars, every)]
    phrase = int(rng.choice((4, 8)))
    ends_with_sheet = first_bar + num_bars == len(sheet.bars)
    levels = np.sort(rng.uniform(*LEVELS, len(sections)))
    # Songs grow: the last section is the loudest, those before are drawn.
    levels = np.append(rng.permutation(levels[:-1]), levels[-1:])
    bars = []
    for k in range(num_bars):
        inside = [i for i, (first, last) in enumerate(sections) if first <= k < last]
        level = float(levels[inside[-1]]) if inside else 0.85
        starts = any(k == first for first, _ in sections)
        ends = any(k == last - 1 for _, last in sections)
        last = k == num_bars - 1
        kind = "end" if last and ends_with_sheet else "song"
        fill = (ends or (k + 1) % phrase == 0) and kind == "song" and not last
        bars.append(Bar(edges[k], edges[k + 1], k, kind, level, fill, starts))
    length_q = beat_q * round((edges[1] - edges[0]) / beat_q)
    count = 0
    while count < MOST_INTRO_BARS and timeline.time_s(edges[0] - (count + 1) * length_q) >= -1e-6:
        count += 1
    counted = count == 1 and rng.random() < 0.6
    before = [
        Bar(
            edges[0] - (n + 1) * length_q, edges[0] - n * length_q, count - 1 - n, "count" if counted else "intro", 0.75
        )
        for n in reversed(range(count))
    ]
    return before + bars


def slot_times(groove: Groove, bar: Bar, beat_q: float) -> list[float]:
    """The starts of the bar's slots, swung, and its end. A bar may hold more or fewer beats than usual."""
    slots = groove.slots_per_beat
    count = max(1, int(np.ceil((bar.end - bar.start) / beat_q * slots - 1e-6)))
    times = []
    for k in range(count):
        beat, part = divmod(k, slots)
        place = part / slots
        if slots % 2 == 0:
            swing = groove.swing
            place = 2 * swing * place if place < 0.5 else swing + 2 * (1 - swing) * (place - 0.5)
        times.append(bar.start + (beat + place) * beat_q)
    return [*times, bar.end]


def pattern_hits(groove: Groove, pattern: str, bars: list[Bar], beat_q: float) -> list[Hit]:
    """The pattern over all bars that the band plays. In a last bar only the first slot sounds, and is held."""
    hits: list[Hit] = []
    for bar in bars:
        if bar.kind == "count":
            continue
        if bar.kind == "end":
            hits.append(Hit(bar.start, bar.end, "=", 0.9 * bar.level, True))
            continue
        times = slot_times(groove, bar, beat_q)
        per_bar = len(times) - 1
        offset = bar.index * per_bar  # of a felt-in-halves bar, half a pattern's bar
        for k in range(per_bar):
            symbol = pattern[(offset + k) % len(pattern)]
            if symbol == "-" and hits:
                hits[-1] = replace(hits[-1], end=times[k + 1])
            elif symbol not in ".-":
                velocity = ACCENTS.get(symbol, 0.85) * bar.level
                hits.append(Hit(times[k], times[k + 1], symbol, velocity, k == 0))
    return hits


def on_chords(hits: list[Hit], chords: list[Chord], bars: list[Bar], plain: str) -> list[tuple[Hit, Chord]]:
    """Each hit with its chord. What is held over a change is struck again on it as `plain`, as is a chord without a
    hit; without a chord nothing sounds."""
    first = next((b.start for b in bars if b.kind != "count"), np.inf)
    starts = {b.start for b in bars}
    pairs: list[tuple[Hit, Chord]] = []
    for chord in chords:
        inside = []
        for hit in hits:
            begin, end = max(hit.start, chord.start), min(hit.end, chord.end)
            if end - begin > 1e-6:
                struck = hit.start >= chord.start - 1e-6 and hit.symbol != "="
                symbol = hit.symbol if struck else plain
                inside.append(replace(hit, start=begin, end=end, symbol=symbol, downbeat=begin in starts))
        # A bass states each chord as it begins; the others do where it would be missed.
        stated = inside and (plain != "1" or inside[0].start < chord.start + 1e-6)
        if chord.start >= first - 1e-6 and not stated:
            end = inside[0].start if inside else chord.end
            level = next((b.level for b in bars if b.start <= chord.start < b.end), 0.85)
            inside.insert(0, Hit(chord.start, end, plain, 0.8 * level, chord.start in starts))
        pairs += [(hit, chord) for hit in inside]
    return pairs


def counter_line(
    sheet: LeadSheet, bars: list[Bar], chords: list[Chord], beat_q: float, rng: np.random.Generator
) -> list[tuple[Hit, int]]:
    """Chord tones in the melody's rests of a beat and more, from two to a beat; and one long tone under each other
    chord where the line is of the singing kind."""
    low, high = LEAD_MIDI
    holds = rng.random() < 0.5
    last = int(rng.integers(67, 75))
    line: list[tuple[Hit, int]] = []
    sung = [(n.start, n.end) for n in sheet.notes]
    for bar in bars:
        if bar.kind in ("count", "end"):
            continue
        within = [c for c in chords if c.start < bar.end - 1e-6 and c.end > bar.start + 1e-6]
        for chord in within:
            begin, end = max(chord.start, bar.start), min(chord.end, bar.end)
            tones = voicing.played_tones(chord)
            step = beat_q / 2
            times = [t for t in np.arange(begin, end - step + 1e-6, step)]
            free = [t for t in times if not any(s < t + beat_q - 1e-6 and e > t - 0.25 * beat_q for s, e in sung)]
            if free:
                for t in free:
                    if t != free[0] and rng.random() < 0.25:
                        continue
                    pitches = [p for p in range(low, high + 1) if p % 12 in tones and 0 < abs(p - last) <= 7]
                    last = int(rng.choice(pitches)) if pitches else voicing.nearest(tones[0], last, low, high)
                    line.append((Hit(float(t), float(t + step), "x", bar.level, False), last))
            elif holds:
                guide = tones[1 + int(rng.integers(max(1, len(tones) - 1)))] if len(tones) > 1 else tones[0]
                last = voicing.nearest(guide, last, low, high)
                line.append((Hit(begin, end, "x", 0.8 * bar.level, False), last))
    return line
