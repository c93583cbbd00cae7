"""Voices that the synthesiser of the training songs did not make: does the model accompany them too?

    pip install praat-parselmouth
    python -m experiments.voices --songs SONGS [--model MODEL] [--clips 16] [--out experiments/results/voices.json]

First the test songs' own singers, all songs. Then the melodies of some songs are sung again: by Praat's KlattGrid, a
formant speech synthesiser; by a choir of four of them, the melody, its octave below and two tones of the chord;
whistled; and hummed, a soft tone that glides from note to note. The measures are those of the evaluation against the
song's truth, and signs of a collapse: level, coverage, peak, and the longest loop of codes while the voice sounds, with
that of the true band's own codes for comparison. Where a band has collapsed (silent, clipped or stuck), others are
drawn, three at most.

Axes: S samples, F frames, K codebooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown
from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import resample
from hafm_jax.audio.music import read_song
from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import needed_for, run_command
from hafm_jax.evaluation.clips import CLIP_S, Clip, read_clip
from hafm_jax.metrics.analysis import Analysis
from hafm_jax.metrics.coherence import Truth, measure
from hafm_jax.metrics.collapse import longest_loop_s
from hafm_jax.model.pretrained import DEMO
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import STREAMS, num_cells

LEVEL_DBFS = -20.0  # of the parts that sound, as of the training songs' vocals
VOWELS_HZ = {"a": (700, 1200, 2500), "i": (300, 2300, 3000), "u": (320, 800, 2300), "e": (500, 1900, 2500)}
UPPER_HZ, BANDWIDTHS_HZ = (3400, 4200), (80, 90, 120, 180, 250)
CONTROL_RATE_HZ = 400
MEASURES = ("beat_f", "onset_f", "lag_strength", "chroma_chords", "key_score", "coverage")

OWN = "the songs' own singer"
DRAWS = 4
STUCK_S = 1.0  # the least length of a loop, while the voice sings, that counts as stuck

Notes = list[dict[str, Any]]  # of song.json: start_s, end_s, midi


def hz(midi: float | np.ndarray) -> float | np.ndarray:
    return 440.0 * 2 ** ((midi - 69) / 12)


def klatt(notes: Notes) -> np.ndarray:
    """The notes sung by Praat's KlattGrid: float32 [S]."""
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
    """The first CLIP_S of a song's melody, float32 [S] at RATE_HZ and LEVEL_DBFS."""
    notes = [n for n in song["melody"] if n["start_s"] < CLIP_S - 0.3]
    notes = [n | {"end_s": min(n["end_s"], CLIP_S - 0.05)} for n in notes]
    sound = VOICES[voice](notes, song["chords"])[: int(CLIP_S * RATE_HZ)]
    sound = np.pad(sound, (0, int(CLIP_S * RATE_HZ) - len(sound)))
    loud = np.abs(sound) > 0.05 * np.abs(sound).max()
    return sound * np.float32(10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(sound[loud] ** 2)))


def accompany(accompanist: Accompanist, vocal: np.ndarray, truth: Truth, seed: int) -> dict[str, float]:
    """The figures of one band for a vocal float32 [S]."""
    codes = accompanist.tokens(vocal[None], RATE_HZ, num_cells(len(vocal), RATE_HZ), seed=seed)
    band = accompanist.codec.decode(codes)[0][: len(vocal)]
    measures = measure(vocal, band, truth)
    return {name: measures[name] for name in MEASURES} | {
        "level_dbfs": 20 * math.log10(np.sqrt(np.mean(band**2)) + 1e-9),
        "peak": float(np.abs(band).max()),
        "longest_loop_s": loop_s(codes[0], vocal),
    }


def loop_s(codes: np.ndarray, vocal: np.ndarray) -> float:
    """The longest loop of codes [F, K] while the vocal float32 [S] sounds."""
    sounds = Analysis(vocal).sounds
    sounds = sounds[np.arange(len(codes)) * len(sounds) // len(codes)]
    return longest_loop_s(codes[:, : STREAMS["coarse"].codebooks], STREAMS["coarse"].rate_hz, sounds)


def collapse(row: dict[str, float]) -> str | None:
    """The way in which a band has collapsed, or None."""
    if row["coverage"] < 0.5:
        return "silent"
    if row["peak"] > 1:
        return "clipped"
    return "stuck" if row["longest_loop_s"] > STUCK_S else None


def summary(values: list[float]) -> dict[str, float]:
    return {name: float(f(values)) for name, f in (("mean", np.nanmean), ("low", np.nanmin), ("high", np.nanmax))}


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--songs", type=Path, required=True, help="songs folder with song.json; its split test is read")
    add("--model", default=str(DEMO), help="default: the demo model")
    add("--clips", type=int, default=16, help="songs sung by each other voice, their first 10 s (default: 16)")
    arguments = parser.parse_args()
    with needed_for("Praat's voices need parselmouth", "pip install praat-parselmouth"):
        import parselmouth  # noqa: F401
    write = begin_result(arguments.out, "praat-parselmouth")
    use_compilation_cache()
    accompanist = Accompanist.load(arguments.model)
    songs = sorted((arguments.songs / "test").iterdir())
    results, true_loops = {}, []
    for voice in tqdm([OWN, *VOICES], unit="voice"):
        rows, first, last = [], [], []
        for number, folder in enumerate(tqdm(songs[: None if voice == OWN else arguments.clips], voice, leave=False)):
            song, clip = read_song(folder), Clip(folder.name, 0)
            reference, own = (read_clip(arguments.songs, "test", clip, stem) for stem in ("instrumental", "vocals"))
            truth = Truth.of_clip(reference, song)
            vocal = own if voice == OWN else sing(voice, song)
            draws = (accompany(accompanist, vocal, truth, DRAWS * number + draw) for draw in range(DRAWS))
            rows.append(row := next(draws))
            first.append(collapse(row))
            while collapse(row) and (another := next(draws, None)):
                row = another
            last.append(collapse(row))
            if voice == OWN:
                true_loops.append(loop_s(accompanist.codec.encode(reference[None])[0], vocal))
        results[voice] = {
            "clips": len(rows),
            "measures": {name: summary([row[name] for row in rows]) for name in rows[0]},
            "collapsed": {kind: first.count(kind) for kind in ("silent", "clipped", "stuck")},
            f"collapsed_in_all_{DRAWS}": sum(kind is not None for kind in last),
        }
    write({"model": arguments.model, "true_longest_loop_s": summary(true_loops), "voices": results})
    table = [
        [voice, str(r["clips"]), *(f"{m['mean']:.2f}" for m in r["measures"].values()), str(r["collapsed"])]
        for voice, r in results.items()
    ]
    print(markdown([["", "clips", *results[OWN]["measures"], "collapsed"], *table]))


if __name__ == "__main__":
    run_command(main)
