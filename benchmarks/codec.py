"""How well and how fast a codec copies songs that it was not trained on, with 1, 2, 4 and 8 codebooks.

    python -m benchmarks.codec --songs SONGS [--codec TOKENIZERS/codec]
        [--limit 32] [--out benchmarks/results/codec.json]

Measured on the instrumentals of SONGS/test: multi-scale spectral distance (hafm_jax/audio/stft.py), codes in use of
each codebook, and speed. Anchors give the distances a scale: the same codec without its quantiser, the original 1 dB
softer, white noise of the song's level, and another song.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown
from hafm_jax.audio.files import read_mono, song_folders, stem_file
from hafm_jax.audio.stft import spectral_distance_db
from hafm_jax.common.errors import run_command
from hafm_jax.common.options import check_at_least
from hafm_jax.model.pretrained import DEMO
from hafm_jax.tokenizers import codecs

BOOKS = (1, 2, 4, 8)


def read_songs(songs: Path, rate_hz: int, limit: int | None) -> list[np.ndarray]:
    """Test instrumentals, each float32 [S] mono at `rate_hz`."""
    folders = song_folders(songs, "test", "instrumental")[:limit]
    return [read_mono(stem_file(folder, "instrumental"), rate_hz) for folder in folders]


def summary(distances: list[float]) -> dict[str, Any]:
    """Mean and median over songs."""
    return {
        f"spectral_distance_db_{kind}": round(float(function(distances)), 3)
        for kind, function in (("mean", np.mean), ("median", np.median))
    }


def anchors(clips: list[np.ndarray], rate_hz: int) -> dict[str, dict[str, Any]]:
    """The figures of copies that every reader can imagine."""
    rng = np.random.default_rng(0)
    copies: dict[str, list[np.ndarray]] = {
        "white noise, same level": [
            (rng.standard_normal(len(c)) * np.sqrt(np.mean(np.square(c)))).astype(np.float32) for c in clips
        ],
        "original, 1 dB softer": [c * np.float32(10 ** (-1 / 20)) for c in clips],
    }
    if len(clips) > 1:
        copies["another song"] = [np.resize(clips[i - 1], len(c)) for i, c in enumerate(clips)]
    rows = {}
    for name, audio in copies.items():
        pairs = [(a[None], c[None]) for a, c in zip(audio, clips, strict=True)]
        rows[name] = summary([float(spectral_distance_db(a, c, rate_hz)[0]) for a, c in pairs])
    return rows


def speed(codec: codecs.Codec, clips: list[np.ndarray]) -> dict[str, float]:
    """Seconds of audio a second, the median over songs, after one call that compiles."""
    hop = codec.sample_rate_hz // codec.frame_rate_hz
    rates: dict[str, list[float]] = {"encode": [], "decode": []}
    for clip in [clips[0], *clips]:
        audio = clip[None, : len(clip) // hop * hop]
        start_s = time.perf_counter()
        codes = codec.encode(audio)
        encoded_s = time.perf_counter()
        codec.decode(codes)
        decoded_s = time.perf_counter()
        length_s = audio.shape[1] / codec.sample_rate_hz
        rates["encode"].append(length_s / (encoded_s - start_s))
        rates["decode"].append(length_s / (decoded_s - encoded_s))
    return {f"{name}_x_real_time": round(float(np.median(values[1:])), 1) for name, values in rates.items()}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--codec", type=Path, default=DEMO / "codec", help="codec directory (default: the demo's)")
    parser.add_argument("--songs", type=Path, required=True, help="songs folder; its split test is read")
    parser.add_argument("--limit", type=int, help="use only the first songs (default: all)")
    arguments = parser.parse_args()
    check_at_least(arguments, limit=1)
    write = begin_result(arguments.out)
    codec = codecs.load_codec(arguments.codec)
    clips = read_songs(arguments.songs, codec.sample_rate_hz, arguments.limit)
    books = (*BOOKS, None) if isinstance(codec, codecs.SpectralCodec) else BOOKS
    figures, codes_in_use = codecs.measure(codec, tqdm(clips, desc="copying", unit="song"), books)
    names = {number: f"{number} book{'s' * (number > 1)}" for number in BOOKS} | {None: "without quantiser"}
    rows = {names[number]: summary(distances) for number, distances in figures.items()}
    report = {
        "songs": len(clips),
        "seconds": round(sum(map(len, clips)) / codec.sample_rate_hz, 1),
        "codec": rows,
        "anchors": anchors(clips, codec.sample_rate_hz),
        "codes_in_use": codes_in_use,
        "vocabulary": codec.vocabulary,
        "speed": speed(codec, clips),
    }
    write(report)
    distances = {name: map("{:.2f}".format, row.values()) for name, row in {**rows, **report["anchors"]}.items()}
    print(markdown([["spectral distance, dB", "mean", "median"], *([name, *row] for name, row in distances.items())]))
    print(f"codes in use of {codec.vocabulary} of each codebook: {codes_in_use}")
    print(", ".join(f"{name} {value}" for name, value in report["speed"].items()))


if __name__ == "__main__":
    run_command(main)
