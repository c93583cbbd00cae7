"""Voices that the synthesiser of the training songs did not make: does the model accompany them too?

    pip install praat-parselmouth
    python benchmarks/voices.py --songs SONGS [--model MODEL] [--clips 16]

The melodies of test songs are sung again: by Praat's KlattGrid, a formant speech synthesiser of its own; by a choir of
four of them, the melody, its octave below and two tones of the chord; whistled; and hummed, a soft tone that glides
from note to note. Each is accompanied, and so is the song's own vocal. Measured are what the evaluation measures
against the song's truth, and what shows a collapse: level, coverage, peak, and the longest loop of codes while the
voice sounds.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from report import markdown
from tqdm import tqdm

from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import resample
from hafm_jax.compiled import use_compilation_cache
from hafm_jax.errors import InputError, run_command
from hafm_jax.evaluation.clips import CLIP_S, Clip, read_clip
from hafm_jax.metrics.analysis import Analysis
from hafm_jax.metrics.coherence import Truth, measure, read_song
from hafm_jax.metrics.collapse import longest_loop_s
from hafm_jax.pretrained import DEMO
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import STREAMS, num_cells

LEVEL_DBFS = -20.0  # while it sounds, as the training songs' vocals
VOWELS_HZ = {"a": (700, 1200, 2500), "i": (300, 2300, 3000), "u": (320, 800, 2300), "e": (500, 1900, 2500)}
UPPER_HZ, BANDWIDTHS_HZ = (3400, 4200), (80, 90, 120, 180, 250)
CONTROL_RATE_HZ = 400
MEASURES = ("beat_f", "onset_f", "lag_strength", "chroma_chords", "key_score", "coverage")

Notes = list[dict[str, Any]]  # of song.json: start_s, end_s, midi


def hz(midi: float | np.ndarray) -> float | np.ndarray:
    return 440.0 * 2 ** ((midi - 69) / 12)


def klatt(notes: Notes) -> np.ndarray:
    """Sung by Praat's KlattGrid: float32 [S]."""
    import parselmouth
    from parselmouth.praat import call

    grid = call("Create KlattGrid", "voice", 0, CLIP_S, 5, 1, 1, 5, 1, 1, 0)
    call(grid, "Add voicing amplitude point", 0, 0)
    for number, note in enumerate(notes):
        start_s, end_s = note["start_s"], note["end_s"]
        for at_s in (start_s, end_s - 0.03):
            call(grid, "Add pitch point", at_s, hz(note["midi"]))
        for at_s, level_db in ((start_s - 0.02, 50), (start_s + 0.03, 90), (end_s - 0.04, 88), (end_s, 40)):
            call(grid, "Add voicing amplitude point", max(at_s, 0), level_db)
        vowel = list(VOWELS_HZ.values())[number % len(VOWELS_HZ)]
        for k, (formant_hz, bandwidth_hz) in enumerate(zip((*vowel, *UPPER_HZ), BANDWIDTHS_HZ, strict=True), 1):
            for at_s in (start_s + 0.02, end_s - 0.03):
                call(grid, "Add oral formant frequency point", k, at_s, formant_hz)
                call(grid, "Add oral formant bandwidth point", k, at_s, bandwidth_hz)
    sound: parselmouth.Sound = call(grid, "To Sound")
    return resample(sound.values[0].astype(np.float32), int(sound.sampling_frequency), RATE_HZ)


def choir(notes: Notes, chords: list[dict[str, Any]]) -> np.ndarray:
    """Four voices of `klatt`: float32 [S]."""

    def chord_tone_below(note: dict[str, Any], rank: int) -> int:
        chord = next((c for c in chords if c["start_s"] <= note["start_s"] + 0.01 < c["end_s"]), chords[-1])
        below = [m for m in range(note["midi"] - 1, 20, -1) if m % 12 in chord["pitch_classes"]]
        return below[rank]

    parts = [
        notes,
        [note | {"midi": note["midi"] - 12} for note in notes],
        *([note | {"midi": chord_tone_below(note, rank)} for note in notes] for rank in (0, 1)),
    ]
    return np.sum([klatt(part) for part in parts], axis=0)


def tone(notes: Notes, glide_s: float, harmonics: tuple[float, ...], breath: float, octaves: int) -> np.ndarray:
    """A tone that glides from note to note and is silent between phrases: float32 [S]."""
    t_s = np.arange(int(CLIP_S * CONTROL_RATE_HZ)) / CONTROL_RATE_HZ
    midi, level = np.full(len(t_s), float(notes[0]["midi"])), np.zeros(len(t_s))
    for note in notes:
        midi[t_s >= note["start_s"] - glide_s / 2] = note["midi"]
        level[(t_s >= note["start_s"]) & (t_s < note["end_s"])] = 1

    def smooth(values: np.ndarray, seconds: float) -> np.ndarray:
        window = np.hanning(max(3, int(seconds * CONTROL_RATE_HZ)))
        half = len(window) // 2
        return np.convolve(np.pad(values, half, mode="edge"), window / window.sum(), mode="same")[
            half : half + len(t_s)
        ]

    at_s = np.arange(int(CLIP_S * RATE_HZ)) / RATE_HZ
    f_hz = np.interp(at_s, t_s, hz(smooth(midi, glide_s) + 12 * octaves))
    turns = 2 * np.pi * np.cumsum(f_hz) / RATE_HZ
    sound = sum(a * np.sin(k * turns) for k, a in enumerate(harmonics, 1))
    sound = sound + breath * np.random.default_rng(0).standard_normal(len(at_s))
    return (sound * np.interp(at_s, t_s, smooth(level, 0.06))).astype(np.float32)


VOICES: dict[str, Callable[[Notes, list[dict[str, Any]]], np.ndarray]] = {
    "Praat's formant synthesiser": lambda notes, chords: klatt(notes),
    "a choir of four of it": choir,
    "a whistle": lambda notes, chords: tone(notes, 0.05, (1.0, 0.02), 0.02, octaves=1),
    "a hum that glides": lambda notes, chords: tone(notes, 0.16, (1.0, 0.25, 0.08), 0.003, octaves=0),
}


def sing(voice: str, song: dict[str, Any]) -> np.ndarray:
    notes = [n for n in song["melody"] if n["start_s"] < CLIP_S - 0.3]
    notes = [n | {"end_s": min(n["end_s"], CLIP_S - 0.05)} for n in notes]
    sound = VOICES[voice](notes, song["chords"])[: int(CLIP_S * RATE_HZ)]
    sound = np.pad(sound, (0, int(CLIP_S * RATE_HZ) - len(sound)))
    loud = np.abs(sound) > 0.05 * np.abs(sound).max()
    return sound * np.float32(10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(sound[loud] ** 2)))


def summary(values: list[float]) -> dict[str, float]:
    return {name: float(f(values)) for name, f in (("mean", np.nanmean), ("low", np.nanmin), ("high", np.nanmax))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--songs", type=Path, required=True, help="songs folder with song.json; its split test is read")
    add("--model", default=str(DEMO), help="default: the demo model")
    add("--clips", type=int, default=16, help="songs, their first 10 s (default: 16)")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "voices.json")
    arguments = parser.parse_args()
    try:
        import parselmouth  # noqa: F401
    except ImportError as error:
        raise InputError("parselmouth is missing; expected Praat's voices: pip install praat-parselmouth") from error
    use_compilation_cache()
    accompanist = Accompanist.load(arguments.model)
    folders = sorted((arguments.songs / "test").iterdir())[: arguments.clips]
    stream = STREAMS["coarse"]
    found: dict[str, list[dict[str, float]]] = {}
    for voice in tqdm(["the songs' own singer", *VOICES], unit="voice"):
        for seed, folder in enumerate(tqdm(folders, desc=voice, unit="song", leave=False)):
            song, clip = read_song(folder), Clip(folder.name, 0)
            truth = Truth.of_clip(read_clip(arguments.songs, "test", clip, "instrumental"), song)
            own = read_clip(arguments.songs, "test", clip, "vocals")
            vocal = sing(voice, song) if voice in VOICES else own
            codes = accompanist.tokens(vocal[None], RATE_HZ, num_cells(len(vocal), RATE_HZ), seed=seed)
            band = accompanist.codec.decode(codes)[0][: len(vocal)]
            sounds = Analysis(vocal).sounds
            sounds = sounds[np.arange(codes.shape[1]) * len(sounds) // codes.shape[1]]
            measures = measure(vocal, band, truth)
            found.setdefault(voice, []).append(
                {name: measures[name] for name in MEASURES}
                | {
                    "level_dbfs": 20 * math.log10(np.sqrt(np.mean(band**2)) + 1e-9),
                    "peak": float(np.abs(band).max()),
                    "longest_loop_s": longest_loop_s(codes[0, :, : stream.codebooks], stream.rate_hz, sounds),
                }
            )
    names = [*MEASURES, "level_dbfs", "peak", "longest_loop_s"]
    results = {voice: {name: summary([row[name] for row in rows]) for name in names} for voice, rows in found.items()}
    document = {"machine": machine(), "model": arguments.model, "clips": len(folders), "voices": results}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    rows = [[voice, *(f"{result[name]['mean']:.2f}" for name in names)] for voice, result in results.items()]
    print(markdown([["", *names], *rows]))


if __name__ == "__main__":
    run_command(main)
