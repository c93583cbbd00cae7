"""How well beats, tempo and key of a true band are heard, and what the measures say of bands whose place is known.

On synthesised songs, whose truth is known: clips of 10 s from the middle of songs of 20 s. The report is a JSON file;
its figures stand in the docstrings of hafm_jax/metrics/analysis.py and coherence.py.

    python benchmarks/coherence.py --songs 32 [--out benchmarks/results/coherence.json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import librosa
import numpy as np
from machine import machine
from tqdm import tqdm

from hafm_jax.common.errors import run_command
from hafm_jax.evaluation.baselines import click_track, silence
from hafm_jax.metrics.analysis import Analysis, Key
from hafm_jax.metrics.coherence import Truth, beat_f, key_score, measure, tempo_error_percent
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.synthesis.song import Song, song_seed, synthesize_song

SONG_S, START_S, CLIP_S = 20.0, 5.0, 10.0


def clip(audio: np.ndarray) -> np.ndarray:
    return audio[round(START_S * RATE_HZ) : round((START_S + CLIP_S) * RATE_HZ)]


def held_tonic_chord(key: Key) -> np.ndarray:
    """Sines, float32 [S]."""
    t_s = np.arange(round(CLIP_S * RATE_HZ)) / RATE_HZ
    midis = [48 + key.tonic + step for step in (0, 4 if key.mode == "major" else 3, 7)]
    return (0.05 * sum(np.sin(2 * np.pi * librosa.midi_to_hz(midi) * t_s) for midi in midis)).astype(np.float32)


def bands(song: Song, other: Song, truth: Truth, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Bands for the song's clip, by name: float32 [S] each."""
    true = clip(song.instrumental)
    noise = rng.standard_normal(true.size).astype(np.float32)
    loud_as_true = np.sqrt(np.mean(true**2)) * noise
    late = song.instrumental[round((START_S - 0.1) * RATE_HZ) :][: true.size]
    return {
        "truth": true,
        "truth, 12 dB softer": true / 4,
        "truth, 100 ms late": late,
        "truth, a tritone up": librosa.effects.pitch_shift(true, sr=RATE_HZ, n_steps=6),
        "truth, a fifth up": librosa.effects.pitch_shift(true, sr=RATE_HZ, n_steps=7),
        "truth under noise at 0 dB": true + loud_as_true,
        "truth, second half cut out": np.where(np.arange(true.size) < true.size // 2, true, 0).astype(np.float32),
        "tonic chord, held": held_tonic_chord(truth.key),
        "vocal": clip(song.vocals),
        "another song's band": clip(other.instrumental),
        "click": click_track(truth.beats_s, true.size),
        "noise": loud_as_true,
        "silence": silence(true.size),
    }


def heard(clip_audio: np.ndarray, truth: Truth) -> dict[str, float]:
    """How well the facts of the truth are heard in audio."""
    analysis = Analysis(clip_audio)
    plain_percent = 100 * abs(analysis.tempo_bpm / truth.tempo_bpm - 1)
    return {
        "beat_f": beat_f(analysis, truth),
        "tempo_within_4_percent": float(plain_percent < 4),
        "tempo_within_4_percent_octaves_forgiven": float(tempo_error_percent(analysis, truth) < 4),
        "key_right": float(analysis.key == truth.key),
        "key_score": key_score(analysis, truth),
    }


def table(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation and number over clips in which a figure is defined."""
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    found = {name: values[~np.isnan(values)] for name, values in found.items()}
    return {
        name: {"mean": float(values.mean()), "sd": float(values.std()), "clips": values.size}
        for name, values in found.items()
        if values.size
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=32, help="how many (default: 32)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coherence.json"))
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    songs = [
        synthesize_song(song_seed("test", i, 0), SONG_S)
        for i in tqdm(range(arguments.songs), desc="songs", unit="song")
    ]
    in_band, in_vocal, scores, seconds = [], [], {}, []
    for i, song in enumerate(tqdm(songs, desc="measure", unit="song")):
        truth = Truth.of_clip(clip(song.instrumental), song.info, START_S)
        in_band.append(heard(clip(song.instrumental), truth))
        in_vocal.append(heard(clip(song.vocals), truth))
        for name, band in bands(song, songs[(i + 1) % len(songs)], truth, rng).items():
            start = time.perf_counter()
            scores.setdefault(name, []).append(measure(clip(song.vocals), band, truth))
            seconds.append(time.perf_counter() - start)
    report = {
        "machine": machine("librosa", "mir_eval", "numba", "scipy"),
        "songs": arguments.songs,
        "heard_in_the_true_band": table(in_band),
        "heard_in_the_vocal": table(in_vocal),
        "measures": {name: table(rows) for name, rows in scores.items()},
        "seconds_a_measure_median": float(np.median(seconds)),
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for title in ("heard_in_the_true_band", "heard_in_the_vocal"):
        print(title, {name: round(figures["mean"], 3) for name, figures in report[title].items()})
    for name, figures in report["measures"].items():
        print(f"{name:28s}", "  ".join(f"{k} {v['mean']:.2f}±{v['sd']:.2f}" for k, v in figures.items()))
    print(f"{report['seconds_a_measure_median']:.3f} s a measure")


if __name__ == "__main__":
    run_command(main)
