"""Drums: a groove's rows over the bars, with fills, crashes, a count-in and an ending. Fills are ours."""

from __future__ import annotations

import numpy as np

from hafm_jax.synthesis.grooves import DRUM_KEYS, Groove
from hafm_jax.synthesis.playing import ACCENTS, Bar, slot_times

FILLS = (  # over the last part of a bar, in as many steps as it has slots from there on
    ("snare", "snare", "high_tom", "high_tom", "mid_tom", "mid_tom", "low_tom", "low_tom"),
    ("snare", "snare", "snare", "snare", "snare", "snare", "snare", "snare"),
    ("high_tom", "high_tom", "snare", "mid_tom", "mid_tom", "snare", "low_tom", "low_tom"),
    ("snare", None, "snare", "high_tom", None, "mid_tom", "low_tom", None),
    (None, None, "snare", None, "snare", None, "low_tom", "low_tom"),
)
RING_S = {"crash": 2.5, "ride": 1.2, "bell": 1.2, "open": 0.5}  # others 0.4
LIGHT_KITS = {"brush", "jazz"}
QUIET_BELOW = 0.78  # sections this quiet have no open hat, bell or crash, and the rim for the snare


def ring_s(key: int) -> float:
    """How long a drum is left to sound."""
    return next((RING_S[name] for name in RING_S if DRUM_KEYS[name] == key), 0.4)


def drum_hits(
    groove: Groove, bars: list[Bar], beat_q: float, rng: np.random.Generator
) -> list[tuple[float, int, float]]:
    """(quarters, percussion key, velocity 0 to 1) of all bars."""
    hits: list[tuple[float, int, float]] = []
    for bar in bars:
        if bar.kind == "count":
            beats = max(1, round((bar.end - bar.start) / beat_q))
            step = (bar.end - bar.start) / beats
            hits += [(bar.start + b * step, DRUM_KEYS["rim"], 0.7) for b in range(beats)]
            continue
        if bar.kind == "end":
            hits += [(bar.start, DRUM_KEYS["kick"], 0.9), (bar.start, DRUM_KEYS["crash"], 0.8 * bar.level)]
            continue
        times = slot_times(groove, bar, beat_q)
        count = len(times) - 1
        quiet = bar.level < QUIET_BELOW
        fill_from = count
        if bar.fill:
            fill_from = count - max(2, int(rng.choice((count // 4, count // 2))))
        for drum, pattern in groove.drums:
            if quiet:
                drum = {"open": "hat", "bell": "ride", "crash": "ride", "snare": "rim"}.get(drum, drum)
            for k in range(count):
                symbol = pattern[(bar.index * count + k) % len(pattern)]
                if symbol not in ".-" and (k < fill_from or drum == "kick"):
                    hits.append((times[k], DRUM_KEYS[drum], 0.9 * ACCENTS.get(symbol, 0.85) * bar.level))
        if fill_from < count:
            fill = FILLS[int(rng.integers(len(FILLS)))]
            steps = count - fill_from
            for k in range(fill_from, count):
                drum = fill[(k - fill_from) * len(fill) // steps]
                if drum:
                    growing = 0.6 + 0.4 * (k - fill_from + 1) / steps
                    hits.append((times[k], DRUM_KEYS[drum], 0.85 * growing * bar.level))
        if bar.crash and not quiet and not LIGHT_KITS & set(groove.kits):
            hits.append((bar.start, DRUM_KEYS["crash"], 0.8 * bar.level))
    return hits
