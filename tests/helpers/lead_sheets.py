"""A made lead sheet: known chords in any metre."""

from hafm_jax.synthesis.lead_sheet import Chord, LeadSheet, Section, SungNote, Timeline

PITCH_CLASSES = {"C": 0, "Db": 1, "D": 2, "Eb": 3, "E": 4, "F": 5, "Gb": 6, "G": 7, "Ab": 8, "A": 9, "Bb": 10, "B": 11}
QUALITIES = {  # suffix: (reduced one, half steps above the root)
    "": ("maj", (0, 4, 7)),
    "m": ("min", (0, 3, 7)),
    "7": ("maj", (0, 4, 7, 10)),
    "maj7": ("maj", (0, 4, 7, 11)),
    "m7": ("min", (0, 3, 7, 10)),
    "dim": ("dim", (0, 3, 6)),
    "sus4": ("sus4", (0, 5, 7)),
    "9": ("maj", (0, 4, 7, 10, 2)),
}


def chord(symbol: str, start: float, end: float) -> Chord:
    upper, _, under = symbol.partition("/")
    letter = upper[:2] if upper[1:2] == "b" else upper[:1]
    root = PITCH_CLASSES[letter]
    quality, steps = QUALITIES[upper[len(letter) :]]
    bass = PITCH_CLASSES[under] if under else root
    return Chord(start, end, symbol, f"{letter}:{quality}", root, bass, tuple((root + s) % 12 for s in steps))


def lead_sheet(symbols: str, metre: tuple[int, int] = (4, 4), sections: tuple[Section, ...] = ()) -> LeadSheet:
    """A bar for each word of `symbols`; "Dm7,G7" is two chords in equal halves. A long note opens each bar."""
    bar = metre[0] * 4 / metre[1]
    chords, notes = [], []
    for k, word in enumerate(symbols.split()):
        names = word.split(",")
        share = bar / len(names)
        chords += [chord(n, k * bar + i * share, k * bar + (i + 1) * share) for i, n in enumerate(names)]
        notes.append(SungNote(k * bar, k * bar + bar / 2, 60 + chords[-1].root % 12))
    bars = tuple(k * bar for k in range(len(symbols.split())))
    return LeadSheet(
        "made", "made", "tests", "none", metre, bars, len(bars) * bar, (0, "major"), None, tuple(notes), tuple(chords),
        sections,
    )  # fmt: skip


def steady(beats_per_minute: float, beat_quarters: float = 1.0, first_s: float = 0.0) -> Timeline:
    """A constant tempo, the first bar at `first_s`."""
    return Timeline((0.0, 100.0), (first_s, first_s + 100.0 / beat_quarters * 60 / beats_per_minute))
