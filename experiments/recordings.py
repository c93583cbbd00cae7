"""Does the band depend on how the voice was recorded, or on when it sings?

    python -m experiments.recordings [--songs 8] [--only NAME ...] [--out experiments/results/recordings.json]

Songs of the synthesiser's test split, each voice as it is and as a user may bring it: faint, in another scale, in
channels that cancel, tuned to A = 432 Hz, after a silence, with a long rest. The measures are those of the evaluation,
against the song's truth. Of a late entry only the part with the voice counts; the beats of the part before it are
compared with those of the song, continued backwards. Around a rest only the chords that are sung count: no one can
tell from a voice what is played while it rests. `hole` and `burst` are the seconds of a band that are furthest
below and above its median level, in dB: a band that stops has a large hole.

Bands are drawn without the fine stage, which changes neither chords nor beats.

Axes: C channels, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown, mean_interval, show_interval
from hafm_jax.accompany import Accompanist, SamplingOptions
from hafm_jax.audio.files import resample
from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import run_command
from hafm_jax.metrics.analysis import Analysis
from hafm_jax.metrics.coherence import Truth, beat_f, chroma_chords
from hafm_jax.model.pretrained import DEMO
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.synthesis.song import Song, song_seed, synthesize_song

SONG_S = 24.0
LATE_S = 12.0
REST_S = (8.0, 16.0)
A432_HZ = round(RATE_HZ * 440 / 432)  # a song resampled to this rate and played at RATE_HZ is slower and lower


class Recording(NamedTuple):
    """`make`: a song's voice float32 [S] -> float32 [C, S']; `late_s`: when the song begins; `rest_s`: start
    and end of a rest; `undo`: its band from `late_s` on -> a band in the song's own time and tuning."""

    make: Callable[[np.ndarray], np.ndarray]
    late_s: float = 0.0
    rest_s: tuple[float, float] = (math.inf, math.inf)
    undo: Callable[[np.ndarray], np.ndarray] = lambda band: band


def at_dbfs(level_dbfs: float) -> Callable[[np.ndarray], np.ndarray]:
    """At this RMS level while it sings, in steps of 16 bits as a file has them."""

    def make(vocal: np.ndarray) -> np.ndarray:
        sings = np.abs(vocal) > 0.05 * np.abs(vocal).max()
        scaled = vocal * (10 ** (level_dbfs / 20) / np.sqrt(np.mean(vocal[sings] ** 2)))
        return (np.round(scaled * 32768) / 32768).astype(np.float32)[None]

    return make


def rested(vocal: np.ndarray) -> np.ndarray:
    start, stop = (round(t_s * RATE_HZ) for t_s in REST_S)
    return np.concatenate([vocal[:start], np.zeros(stop - start, np.float32), vocal[stop:]])[None]


RECORDINGS = {
    "as it is": Recording(lambda vocal: vocal[None]),
    "at -20 dBFS": Recording(at_dbfs(-20)),
    "at -40 dBFS": Recording(at_dbfs(-40)),
    "at -60 dBFS": Recording(at_dbfs(-60)),
    "floats in the scale of int16": Recording(lambda vocal: vocal[None] * 32768),
    "right channel -0.95 times the left": Recording(lambda vocal: np.stack([vocal, -0.95 * vocal])),
    "at A = 432 Hz": Recording(
        lambda vocal: resample(vocal, RATE_HZ, A432_HZ)[None], undo=lambda band: resample(band, A432_HZ, RATE_HZ)
    ),
    "after 12 s of silence": Recording(lambda vocal: np.pad(vocal, (round(LATE_S * RATE_HZ), 0))[None], LATE_S),
    "with a rest of 8 s": Recording(rested, rest_s=REST_S),
}


def levels_db(band: np.ndarray) -> dict[str, float]:
    """The second of the band that is furthest below its median level, and the one furthest above."""
    seconds = band[: len(band) // RATE_HZ * RATE_HZ].reshape(-1, RATE_HZ)
    level_db = 10 * np.log10(np.square(seconds, dtype=np.float64).mean(axis=1) + 1e-10)
    return {"hole": float(np.median(level_db) - level_db.min()), "burst": float(level_db.max() - np.median(level_db))}


def measures(recording: Recording, song: Song, accompanist: Accompanist, seed: int) -> dict[str, float]:
    """The figures of one band."""
    vocal = recording.make(song.vocals)
    band = accompanist((vocal, RATE_HZ), SamplingOptions(skip_fine=True), seed=seed).instrumental
    row = levels_db(band)
    before, band = np.split(band, [round(recording.late_s * RATE_HZ)])
    band = recording.undo(band)[: len(song.vocals)]
    truth = Truth.of_clip(song.instrumental, song.info)
    start_s, stop_s = recording.rest_s
    sung = [c._replace(end_s=min(c.end_s, start_s)) for c in truth.chords]
    sung += [c._replace(start_s=max(c.start_s, stop_s)) for c in truth.chords]
    truth = replace(truth, chords=tuple(c for c in sung if c.start_s < c.end_s))
    row |= {"beat_f": beat_f(Analysis(band), truth), "chroma_chords": chroma_chords(Analysis(band), truth)}
    if before.size:
        beats_s = np.arange(song.info["beats_s"][0] + recording.late_s, 0, -60 / song.info["tempo_bpm"])[:0:-1]
        row["intro_beat_f"] = beat_f(Analysis(before), Truth(Analysis(before), beats_s, 0.0, None, None))
    return row


def table(results: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    rows = [[label, *(show_interval(row[n]) if n in row else "" for n in names)] for label, row in results.items()]
    return markdown([["the voice", *names], *rows])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=str(DEMO), help="default: the demo model")
    parser.add_argument("--songs", type=int, default=8, help="test songs (default: 8)")
    parser.add_argument("--only", nargs="+", choices=list(RECORDINGS), default=list(RECORDINGS), metavar="NAME")
    arguments = parser.parse_args()
    write = begin_result(arguments.out)
    use_compilation_cache()
    accompanist = Accompanist.load(arguments.model)
    songs = [synthesize_song(song_seed("test", i, 0), SONG_S, RATE_HZ) for i in range(arguments.songs)]
    results = {}
    for label in tqdm(arguments.only, unit="recording"):
        rows = [
            measures(RECORDINGS[label], song, accompanist, seed)
            for seed, song in enumerate(tqdm(songs, label, leave=False))
        ]
        results[label] = {name: mean_interval(np.array([row[name] for row in rows])) for name in rows[0]}
        print(label, {name: show_interval(figure) for name, figure in results[label].items()}, flush=True)
    print(table(results))
    write({"songs": arguments.songs, "song_s": SONG_S, "recordings": results})


if __name__ == "__main__":
    run_command(main)
