"""Grooves: what a band plays in a bar, read from the tables; and the instruments that may play them. All ours.

A groove is a header `name | style | metre | slots a beat | swing | beats a minute | drum kits` and a line a part:

    drums   kick x... x...; snare .... X...      rows by drum; o is soft, x is played, X is accented
    bass    FAMILY PATTERN                       1 is the chord's bass, 3 5 6 7 8 are degrees, a leads on to the
                                                 next chord, w walks
    comp    FAMILY PATTERN                       x X o strike the chord, d D u strum it down and up, digits pick
                                                 its tones from the lowest, b is the chord's bass
    lead    FAMILY                               may play a counter-line

Each character is a slot, blanks only part the beats, "-" holds what sounds, "." is silence. A pattern may be of several
bars. `swing` is the place of a beat's second half: 0.5 is straight, 0.67 is triplets.
"""

from __future__ import annotations

from dataclasses import dataclass

from hafm_jax.synthesis import groove_tables, groove_tables_other_metres

# General MIDI programs, from 0, that play for a family.
FAMILIES = {
    "piano": {0: "grand piano", 1: "bright piano", 2: "electric grand piano"},
    "epiano": {4: "electric piano", 5: "FM piano"},
    "keys": {0: "grand piano", 4: "electric piano", 5: "FM piano"},
    "organ": {16: "drawbar organ", 17: "percussive organ", 18: "rock organ"},
    "acoustic": {24: "nylon guitar", 25: "steel guitar"},
    "nylon": {24: "nylon guitar"},
    "electric": {26: "jazz guitar", 27: "clean guitar"},
    "overdriven": {29: "overdriven guitar", 30: "distorted guitar"},
    "strings": {48: "strings", 49: "slow strings", 50: "synth strings"},
    "pad": {89: "warm pad", 50: "synth strings", 52: "choir"},
    "brass": {61: "brass section", 57: "trombone"},
    "accordion": {21: "accordion", 23: "bandoneon"},
    "mallets": {11: "vibraphone", 12: "marimba"},
    "banjo": {105: "banjo", 25: "steel guitar"},
    "upright": {32: "upright bass"},
    "finger": {33: "fingered bass", 34: "picked bass", 35: "fretless bass"},
    "synthbass": {38: "synth bass", 39: "hard synth bass"},
    "tuba": {58: "tuba", 32: "upright bass"},
    "wind": {71: "clarinet", 73: "flute", 68: "oboe"},
    "sax": {65: "alto saxophone", 66: "tenor saxophone", 71: "clarinet"},
    "horn": {56: "trumpet", 59: "muted trumpet", 57: "trombone"},
    "bowed": {40: "violin", 42: "cello"},
    "synthlead": {80: "square lead", 81: "saw lead"},
    "harmonica": {22: "harmonica", 40: "violin"},
}
GUITARS = {"acoustic", "nylon", "electric", "overdriven", "banjo"}  # chords lie on strings
KITS = {"standard": 0, "room": 8, "power": 16, "jazz": 32, "brush": 40}
DRUM_KEYS = {  # General MIDI percussion
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "low_tom": 43,
    "hat": 42,
    "foot": 44,
    "mid_tom": 45,
    "open": 46,
    "high_tom": 48,
    "crash": 49,
    "ride": 51,
    "bell": 53,
    "cowbell": 56,
    "high_bongo": 60,
    "low_bongo": 61,
    "conga": 63,
    "low_conga": 64,
    "claves": 75,
}
UNSEEN_PROGRAMS = frozenset(
    {"electric grand piano", "rock organ", "jazz guitar", "synth strings", "vibraphone", "fretless bass", "clarinet"}
)
UNSEEN_GROOVES = frozenset(
    {
        "pop_pushed",
        "rock_halftime",
        "swing_two_feel",
        "bossa_clave",
        "reggae_steppers",
        "waltz_jazz",
        "six_folk",
        "two_samba",
    }
)
BEATS = {"4/4": 4, "3/4": 3, "6/8": 2, "2/4": 2}


@dataclass(frozen=True)
class Groove:
    """`drums` holds (drum, pattern), `comps` (family, pattern) of one to three harmony parts, `bpm` the beats a minute
    that suit it; `leads` are the families of a counter-line. Patterns have no blanks."""

    name: str
    style: str
    metre: str
    slots_per_beat: int
    swing: float
    bpm: tuple[int, int]
    kits: tuple[str, ...]
    drums: tuple[tuple[str, str], ...]
    bass: tuple[str, str]
    comps: tuple[tuple[str, str], ...]
    leads: tuple[str, ...]

    @property
    def slots_per_bar(self) -> int:
        return BEATS[self.metre] * self.slots_per_beat


def _read(table: str) -> dict[str, Groove]:
    grooves = {}
    for block in table.strip().split("\n\n"):
        header, *lines = block.strip().splitlines()
        name, style, metre, slots, swing, bpm, kits = (f.strip() for f in header.split("|"))
        drums, bass, comps, leads = (), ("", ""), [], ()
        for line in lines:
            kind, rest = line.split(maxsplit=1)
            if kind == "drums":
                rows = (row.split(maxsplit=1) for row in rest.split(";"))
                drums = tuple((drum, pattern.replace(" ", "")) for drum, pattern in rows)
            elif kind == "lead":
                leads = tuple(rest.split())
            else:
                family, pattern = rest.split(maxsplit=1)
                part = (family, pattern.replace(" ", ""))
                if kind == "bass":
                    bass = part
                else:
                    comps.append(part)
        low, high = (int(b) for b in bpm.split("-"))
        grooves[name] = Groove(
            name,
            style,
            metre,
            int(slots),
            float(swing),
            (low, high),
            tuple(kits.split()),
            drums,
            bass,
            tuple(comps),
            leads,
        )
    return grooves


GROOVES = _read(groove_tables.FOUR_FOUR) | _read(groove_tables_other_metres.OTHER_METRES)


def programs_of(family: str, split: str) -> list[tuple[int, str]]:
    """(program, name) of the family that this split may draw."""
    return [(p, n) for p, n in sorted(FAMILIES[family].items()) if split == "test" or n not in UNSEEN_PROGRAMS]


def grooves_of(metre: str, bpm: float, split: str) -> list[Groove]:
    """Grooves that this split may draw for the metre: those that suit the tempo, or the three nearest to it."""
    known = [g for g in GROOVES.values() if g.metre == metre and (split == "test" or g.name not in UNSEEN_GROOVES)]

    def misfit(groove: Groove) -> float:
        low, high = groove.bpm
        return max(low / bpm, bpm / high, 1.0)

    known.sort(key=misfit)
    return [g for i, g in enumerate(known) if i < 3 or misfit(g) == 1.0]
