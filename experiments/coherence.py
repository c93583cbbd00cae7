"""How well does the analysis find the beats, tempo and key of a true band, and how do the measures rank bands whose
rank is known?

    python -m experiments.coherence [--songs 32] [--out experiments/results/coherence.json]

On clips of 10 s from the middle of synthesised songs of 20 s, whose truth is known. The docstrings of
hafm_jax/metrics/analysis.py and coherence.py quote the results.
"""

from __future__ import annotations

import time

import librosa
import numpy as np
from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown
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
    """Name -> a band for the song's clip, float32 [S]."""
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


def detected(clip_audio: np.ndarray, truth: Truth) -> dict[str, float]:
    """How well the analysis finds the truth in audio float32 [S]."""
    analysis = Analysis(clip_audio)
    plain_percent = 100 * abs(analysis.tempo_bpm / truth.tempo_bpm - 1)
    return {
        "beat_f": beat_f(analysis, truth),
        "tempo_within_4_percent": float(plain_percent < 4),
        "tempo_within_4_percent_octaves_forgiven": float(tempo_error_percent(analysis, truth) < 4),
        "key_right": float(analysis.key == truth.key),
        "key_score": key_score(analysis, truth),
    }


def summarize(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each figure over the clips in which it is defined, and their number."""
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    found = {name: values[~np.isnan(values)] for name, values in found.items()}
    return {
        name: {"mean": float(values.mean()), "sd": float(values.std()), "clips": values.size}
        for name, values in found.items()
        if values.size
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--songs", type=int, default=32, help="how many (default: 32)")
    arguments = parser.parse_args()

    write = begin_result(arguments.out, "librosa", "mir_eval", "numba", "scipy")
    rng = np.random.default_rng(0)
    songs = [
        synthesize_song(song_seed("test", i, 0), SONG_S)
        for i in tqdm(range(arguments.songs), desc="songs", unit="song")
    ]
    in_band, in_vocal, scores, seconds = [], [], {}, []
    for i, song in enumerate(tqdm(songs, desc="measure", unit="song")):
        truth = Truth.of_clip(clip(song.instrumental), song.info, START_S)
        in_band.append(detected(clip(song.instrumental), truth))
        in_vocal.append(detected(clip(song.vocals), truth))
        for name, band in bands(song, songs[(i + 1) % len(songs)], truth, rng).items():
            start = time.perf_counter()
            scores.setdefault(name, []).append(measure(clip(song.vocals), band, truth))
            seconds.append(time.perf_counter() - start)
    found = {"heard_in_the_true_band": summarize(in_band), "heard_in_the_vocal": summarize(in_vocal)}
    measures = {name: summarize(rows) for name, rows in scores.items()}
    seconds_median = float(np.median(seconds))
    write({"songs": arguments.songs, **found, "measures": measures, "seconds_a_measure_median": seconds_median})
    for rows in (found, measures):
        names = list(next(iter(rows.values())))
        cells = {row: [figures.get(name) for name in names] for row, figures in rows.items()}
        shown = [
            [row, *(f"{f['mean']:.2f} ± {f['sd']:.2f}" if f else "" for f in of_row)] for row, of_row in cells.items()
        ]
        print(markdown([["", *names], *shown]))
    print(f"{seconds_median:.3f} s a measure")


if __name__ == "__main__":
    run_command(main)
