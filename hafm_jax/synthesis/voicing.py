"""How instruments lay out chords, and how a bass walks. Pitches are MIDI numbers, tones pitch classes (0 is C)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hafm_jax.synthesis.lead_sheet import Chord

STRINGS_MIDI = (40, 45, 50, 55, 59, 64)  # a guitar's
BASS_MIDI = (28, 50)  # a bass plays in here: its lowest string to a fifth above its third one
MAX_TONES = 4  # a player leaves out the rest of a long chord, its fifth first


def played_tones(chord: Chord) -> tuple[int, ...]:
    """At most four tones, root first: without the fifth, then without what is above the seventh."""
    tones = list(dict.fromkeys(chord.tones))
    if len(tones) > MAX_TONES and (chord.root + 7) % 12 in tones[1:]:
        tones.remove((chord.root + 7) % 12)
    return tuple(tones[:MAX_TONES])


def keyboard_voicing(chord: Chord, before: Sequence[int], centre: int) -> list[int]:
    """The inversion, in close position within an octave of `centre`, whose tones move least from `before`.

    Without a chord before it is the one nearest to the centre. Rising pitches.
    """
    tones = sorted(played_tones(chord))
    best: tuple[float, list[int]] = (np.inf, [])
    for turn in range(len(tones)):
        order = tones[turn:] + [t + 12 for t in tones[:turn]]
        for octave in range(2, 8):
            pitches = [12 * octave + t for t in order]
            middle = sum(pitches) / len(pitches)
            if abs(middle - centre) > 8:
                continue
            move = sum(min(abs(p - b) for b in before) for p in pitches) if before else 0.0
            best = min(best, (move + 0.3 * abs(middle - centre), pitches))
    return best[1]


def guitar_voicing(chord: Chord, before: Sequence[int]) -> list[int]:
    """A chord on six strings, from the lowest sounding one: within four frets, bass or root at the bottom.

    The position that sounds all tones and is nearest to the chord before (or to the nut) is taken.
    """
    tones = set(played_tones(chord))
    lowest = chord.bass if chord.bass in tones else chord.root
    best: tuple[tuple[int, float], list[int]] = ((99, np.inf), [])
    for position in range(9):
        pitches: list[int] = []
        for string, open_midi in enumerate(STRINGS_MIDI):
            wanted = {lowest} if not pitches else tones
            fits = [open_midi + f for f in range(position, position + 4) if (open_midi + f) % 12 in wanted]
            if fits and (pitches or string < 3) and (not pitches or fits[0] > pitches[-1]):
                pitches.append(fits[0])
        if not pitches:
            continue
        missing = len(tones - {p % 12 for p in pitches})
        far = abs(np.mean(pitches) - np.mean(before)) if len(before) else 0.5 * position
        best = min(best, ((missing, float(far)), pitches))
    return best[1] or keyboard_voicing(chord, before, 57)


def nearest(pitch_class: int, to: float, low: int, high: int) -> int:
    """The pitch of this class within the range that is nearest to `to`."""
    pitches = [p for p in range(low, high + 1) if p % 12 == pitch_class % 12]
    return min(pitches, key=lambda p: (abs(p - to), p))


def bass_degree(symbol: str, chord: Chord, at: int) -> int:
    """The bass's note for a digit of a groove: the degree of the chord above the chord's bass tone `at`.

    A degree that the chord lacks becomes its fifth or its bass. 1 is `at` itself, 8 is an octave above, 5 the root's
    fifth that is nearest to `at`.
    """
    if symbol == "1":
        return at
    if symbol == "8":
        return at + 12 if at + 12 <= BASS_MIDI[1] + 2 else at
    intervals = {"3": (4, 3), "5": (7, 6, 8), "6": (9,), "7": (10, 11, 9)}[symbol]
    tones = {t % 12 for t in chord.tones}
    for interval in intervals:
        tone = (chord.root + interval) % 12
        if tone in tones or (symbol == "6" and (chord.root + 4) % 12 in tones and (chord.root + 7) % 12 in tones):
            return nearest(tone, at + (0 if symbol == "5" else 4), *BASS_MIDI)
    return at


def approach(to: int, before: int, key: tuple[int, str], rng: np.random.Generator) -> int:
    """A note that leads to the bass note `to` from `before`: a scale step, a half step, or its fifth."""
    scale = {(key[0] + s) % 12 for s in ((0, 2, 4, 5, 7, 9, 11) if key[1] == "major" else (0, 2, 3, 5, 7, 8, 10))}
    side = 1 if before > to else -1
    steps = [to + side * s for s in (1, 2) if (to + side * s) % 12 in scale] or [to + side]
    choices = [steps[0], steps[0], to + side, to + 7 if to + 7 <= BASS_MIDI[1] else to - 5]
    return int(np.clip(choices[int(rng.integers(len(choices)))], *BASS_MIDI))


def walk(chord: Chord, before: int, target: int, rng: np.random.Generator) -> int:
    """The next step of a walking bass from `before`: a chord tone within a fifth, mostly towards `target`."""
    tones = {t % 12 for t in chord.tones}
    pitches = [p for p in range(BASS_MIDI[0], BASS_MIDI[1] + 1) if p % 12 in tones and 1 <= abs(p - before) <= 7]
    if not pitches:
        return before
    towards = [p for p in pitches if (p - before) * (target - before) > 0]
    if towards and rng.random() < 0.7:
        pitches = towards
    return int(rng.choice(pitches))
