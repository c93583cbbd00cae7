"""Tables of the songs: keys, scales, chords, progressions, feels, and what bass, chords and drums may play. No code.

All ours, after common practice in popular music. `composition.py` makes songs from them.
"""

from __future__ import annotations

from dataclasses import dataclass

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10)}
QUALITIES = {  # suffix of the chord's name: semitones above its root
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "dim": (0, 3, 6),
    "sus4": (0, 5, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
}
NUMERALS = {  # roman numeral: (root in semitones above the tonic, quality)
    "I": (0, ""),
    "I7": (0, "7"),
    "Imaj7": (0, "maj7"),
    "ii": (2, "m"),
    "ii7": (2, "m7"),
    "iii": (4, "m"),
    "IV": (5, ""),
    "iv": (5, "m"),
    "IV7": (5, "7"),
    "V": (7, ""),
    "V7": (7, "7"),
    "Vsus4": (7, "sus4"),
    "v": (7, "m"),
    "vi": (9, "m"),
    "vi7": (9, "m7"),
    "i": (0, "m"),
    "i7": (0, "m7"),
    "iio": (2, "dim"),
    "bIII": (3, ""),
    "bVI": (8, ""),
    "bVII": (10, ""),
}
PROGRESSIONS = {
    "major": (
        "I V vi IV",
        "I vi IV V",
        "vi IV I V",
        "I IV I V",
        "I iii IV V",
        "ii7 V7 Imaj7 vi7",
        "IV V iii vi",
        "I bVII IV I",
        "I V IV V",
        "I ii IV V7",
        "I I7 IV iv",
        "I IV Vsus4 V",
        "I V ii IV",
        "vi ii V7 I",
        "IV I V vi",
        "I vi ii7 V7",
    ),
    "minor": (
        "i bVI bIII bVII",
        "i iv bVI V",
        "i bVII bVI V",
        "i iv v i",
        "i bVI iv V7",
        "i bIII bVII bVI",
        "i iio V7 i",
        "i v bVI bVII",
        "bVI bVII i i",
    ),
    "dorian": ("i IV i IV", "i bVII IV i", "i7 IV7 i7 bVII", "i v IV i"),
}


@dataclass(frozen=True)
class Feel:
    """A metre and how its beat is divided. `slot_fractions` are the slots' places within a beat, 0 to 1."""

    name: str
    metre: str
    beats_per_bar: int
    slot_fractions: tuple[float, ...]
    tempo_bpm: tuple[int, int]

    @property
    def slots_per_beat(self) -> int:
        return len(self.slot_fractions)

    @property
    def slots_per_bar(self) -> int:
        return self.beats_per_bar * self.slots_per_beat


FEELS = {
    f.name: f
    for f in (
        Feel("straight", "4/4", 4, (0.0, 0.5), (70, 150)),
        Feel("swing", "4/4", 4, (0.0, 2 / 3), (80, 150)),
        Feel("waltz", "3/4", 3, (0.0, 0.5), (80, 150)),
        Feel("compound", "6/8", 2, (0.0, 1 / 3, 2 / 3), (70, 100)),  # the beat is the dotted quarter
    )
}
FEEL_WEIGHTS = {"straight": 0.55, "swing": 0.15, "waltz": 0.15, "compound": 0.15}

# A row is one bar. Bass: r root, 3 third, 5 fifth, 8 octave, a approach to the next root. Chords: x the whole chord,
# a digit one of its tones from below. Drums: x loud, o soft. Everywhere: - hold, . rest. A row may be finer than slots.
BASS_PATTERNS = {
    "straight": {
        "whole": "r-------",
        "halves": "r---5---",
        "eighths": "rrrrrrrr",
        "octaves": "r.8.r.8.",
        "push": "r--r--5-",
        "quarters": "r-r-r-5-",
        "bossa": "r--55--r",
        "gallop": "r.rrr.rr",
        "reggae": "..r-r35-",
    },
    "swing": {"walking": "r-3-5-a-", "two_beat": "r---5---", "bounce": "r-.rr-.5"},
    "waltz": {"one": "r-----", "one_three": "r---5-", "walk": "r-3-5-"},
    "compound": {"dotted": "r--r--", "root_fifth": "r--5--", "lilt": "r-rr-5"},
}
CHORD_PATTERNS = {
    "straight": {
        "sustain": "x-------",
        "quarters": "x-x-x-x-",
        "offbeats": ".x.x.x.x",
        "halves": "x---x---",
        "strum": "x-xx-xxx",
        "arpeggio": "12324232",
        "sixteenths": "1232423212324232",
        "charleston": "x--x----",
        "bossa": "x..x.x..",
        "tresillo": "x--x--x-",
        "broken": "1-2-3-4-",
    },
    "swing": {
        "sustain": "x-------",
        "charleston": "x--x----",
        "two_four": "..x-..x-",
        "quarters": "x.x.x.x.",
        "comp": ".x-x--.x",
    },
    "waltz": {"sustain": "x-----", "oompah": "..x-x-", "arpeggio": "123432", "quarters": "x-x-x-"},
    "compound": {"sustain": "x-----", "arpeggio": "123432", "lilt": "x-xx-x", "dotted": "x--x--"},
}
DRUM_PATTERNS = {
    "straight": {
        "rock": {"kick": "x...x...", "snare": "..x...x.", "hat": "xoxoxoxo"},
        "pop": {"kick": "x..x.x..", "snare": "..x...x.", "hat": "xoxoxoxo"},
        "four_floor": {"kick": "x.x.x.x.", "clap": "..x...x.", "open_hat": ".x.x.x.x"},
        "ballad": {"kick": "x.....o.", "rim": "....x...", "hat": "x.o.x.o."},
        "sixteenths": {"kick": "x......x..x.....", "snare": "....x.......x...", "hat": "xoooxoooxoooxooo"},
        "half_time": {"kick": "x..o....", "snare": "....x...", "ride": "x.x.x.x."},
        "shaker": {"kick": "x...x...", "rim": "..x...x.", "shaker": "xoxoxoxo"},
        "bossa": {"kick": "x..xx..x", "rim": "x..x..x.", "shaker": "xoxoxoxo"},
        "one_drop": {"kick": "....x...", "rim": "....x...", "hat": "x.xox.xo"},
        "backbeat": {"kick": "x.x.x.x.", "snare": "..x...x.", "hat": "xxxxxxxx"},
        "breakbeat": {"kick": "x...x.....x.....", "snare": "....x..o.o..x...", "hat": "x.x.x.x.x.x.x.x."},
        "train": {"kick": "x...x...", "snare": "oxoooxoo"},
    },
    "swing": {
        "ride": {"kick": "x...o...", "hat": "..x...x.", "ride": "x.xox.xo"},
        "shuffle": {"kick": "x...x...", "snare": "..x...x.", "hat": "xoxoxoxo"},
    },
    "waltz": {
        "waltz": {"kick": "x.....", "hat": "..x.x."},
        "rock_waltz": {"kick": "x.....", "snare": "..o.x.", "hat": "xoxoxo"},
        "brush": {"kick": "x.....", "shaker": "x.xox."},
    },
    "compound": {
        "six": {"kick": "x.....", "snare": "...x..", "hat": "xooxoo"},
        "slow_six": {"kick": "x....o", "rim": "...x..", "ride": "x..x.."},
    },
}
# These may play only some of the chord patterns; the others may play every pattern of the feel.
HELD_INSTRUMENTS = ("pad", "strings", "organ")
CHORD_INSTRUMENTS = (
    "piano",
    "electric_piano",
    "steel_guitar",
    "nylon_guitar",
    "synth_pluck",
    "marimba",
    *HELD_INSTRUMENTS,
)
BASS_INSTRUMENTS = ("fingered_bass", "synth_bass", "upright_bass")
LEAD_INSTRUMENTS = ("flute", "violin", "synth_lead", "brass", "music_box")
LEAD_ROLES = ("doubles", "answers")  # plays what is sung, or fills the singer's rests
