"""Turn songs into token records: the data set that training reads.

    python tokenize/extract_tokens.py --songs SONGS --tokenizers TOKENIZERS --out TOKENS

reads    SONGS/SPLIT/ID/vocals.wav and instrumental.wav, of any rate and number of channels
         TOKENIZERS/semantic (from tokenize/fit_kmeans.py) and TOKENIZERS/codec (from tokenize/train_codec.py, or with
         just a config.json: {"codec": "encodec", "source": "facebook/encodec_24khz"}); a model directory will do
writes   TOKENS/hafm_tokens-SPLIT.tfrecord-*, dataset_info.json and features.json, tokens.json

Of every song: the vocal with a little noise -> vocal_semantic; the instrumental -> instrumental_semantic at 16 kHz and
acoustic at 24 kHz. A song whose files cannot be read, or differ in length by more than a cell (40 ms), is left out, and
the reason is shown and kept in tokens.json. Equal arguments give equal tokens, whatever --workers is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import hafm_jax
from hafm_jax import records
from hafm_jax.audio.codecs import Codec, codec_sha256, load_codec, read_config
from hafm_jax.audio.files import pad_to_cells, read_audio, resample, song_folders, song_splits, to_mono
from hafm_jax.audio.semantic import (
    VOCAL_NOISE_SIGMA,
    SemanticTokenizer,
    instrumental_tokens,
    load_semantic,
    vocal_tokens,
)
from hafm_jax.errors import InputError, run_command
from hafm_jax.streams import CELLS_PER_S, STREAMS


def song_seed(seed: int, split: str, name: str) -> int:
    """Seed of one song's noise: its own whatever other songs there are, and in whatever order they are read."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}/{name}".encode()).digest()[:8], "little")


def extract_song(
    folder: Path, semantic: SemanticTokenizer, codec: Codec, noise_sigma: float, seed: int
) -> dict[str, Any] | str:
    """The record of one song, or why there is none."""
    try:
        vocal, vocal_hz = read_audio(folder / "vocals.wav")
        instrumental, instrumental_hz = read_audio(folder / "instrumental.wav")
    except InputError as error:
        return str(error)
    vocal_s, instrumental_s = vocal.shape[1] / vocal_hz, instrumental.shape[1] / instrumental_hz
    if abs(vocal_s - instrumental_s) > 1 / CELLS_PER_S:
        return (
            f"vocals.wav has {vocal_s:.3f} s, instrumental.wav {instrumental_s:.3f} s; expected one length, to "
            f"{1000 // CELLS_PER_S} ms: cut them alike"
        )
    mono = pad_to_cells(resample(to_mono(instrumental), instrumental_hz, codec.sample_rate_hz), codec.sample_rate_hz)
    record = {
        "vocal_semantic": vocal_tokens(semantic, vocal, vocal_hz, noise_sigma, seed),
        "instrumental_semantic": instrumental_tokens(semantic, instrumental, instrumental_hz),
        "acoustic": codec.encode(mono[None])[0],
    }
    # Lengths that differ by less than a cell may still lie on two sides of a cell's end: keep the cells that all have.
    frames_per_cell = {stream.field: stream.frames_per_cell for stream in STREAMS.values()}
    num_cells = min(len(record[name]) // frames for name, frames in frames_per_cell.items())
    return {"id": folder.name, **{name: record[name][: num_cells * n] for name, n in frames_per_cell.items()}}


def extract_split(
    folders: list[Path], split: str, workers: int, skipped: dict[str, str], **options: Any
) -> Iterator[dict[str, Any]]:
    """Records of a split in the order of its folders; reasons of left-out songs go into `skipped`."""

    def extract(folder: Path) -> dict[str, Any] | str:
        return extract_song(folder, **{**options, "seed": song_seed(options["seed"], split, folder.name)})

    # Threads, not processes: the work is in FFTs and networks, which release Python's lock; weights load once.
    with ThreadPoolExecutor(workers) as pool:
        try:
            results = zip(folders, pool.map(extract, folders), strict=True)
            for folder, result in tqdm(results, total=len(folders), desc=split, unit="song"):
                if isinstance(result, str):
                    skipped[f"{split}/{folder.name}"] = result
                    tqdm.write(f"left out {split}/{folder.name}: {result}")
                else:
                    yield result
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, do not work through the rest


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    workers = min(4, os.cpu_count() or 1)
    add("--songs", type=Path, required=True, help="songs folder: SPLIT/ID/vocals.wav and instrumental.wav")
    add("--tokenizers", type=Path, required=True, help="folder with semantic/ and codec/")
    add("--out", type=Path, required=True, help="folder for the token data set; splits of an earlier run are replaced")
    add("--splits", nargs="+", help="splits to extract (default: all that SONGS has)")
    add(
        "--num-shards", type=int, default=8, help="files a split, fewer where it has fewer songs (default: %(default)s)"
    )
    add(
        "--vocal-noise", type=float, default=VOCAL_NOISE_SIGMA, help="sigma of the vocals' noise (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="of the vocals' noise (default: %(default)s)")
    add("--workers", type=int, default=workers, help="songs at the same time (default here: %(default)s)")
    arguments = parser.parse_args()
    for name, minimum in {"num_shards": 1, "vocal_noise": 0, "workers": 1}.items():
        if getattr(arguments, name) < minimum:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is {getattr(arguments, name)}; expected {minimum} or more")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    splits = arguments.splits or song_splits(arguments.songs)
    folders = {split: song_folders(arguments.songs, split) for split in splits}
    for split in splits:
        if not re.fullmatch(r"\w+", split):  # file names and tensorflow-datasets both rely on it
            raise InputError(
                f"split {split!r}; expected letters, digits and underscores: rename {arguments.songs / split}"
            )
    records.check_target(arguments.out, splits)
    semantic = load_semantic(arguments.tokenizers / "semantic")
    codec = load_codec(arguments.tokenizers / "codec")
    skipped: dict[str, str] = {}
    summaries = []
    for split in splits:
        songs = extract_split(
            folders[split],
            split,
            arguments.workers,
            skipped,
            semantic=semantic,
            codec=codec,
            noise_sigma=arguments.vocal_noise,
            seed=arguments.seed,
        )
        summaries.append(records.write_split(arguments.out, split, songs, arguments.num_shards))
    made_by = {
        "semantic": {
            name: semantic.config.get(name)
            for name in ("features", "source", "layer", "clusters", "centroids_sha256")
            if name in semantic.config
        },
        "codec": {
            **{k: v for k, v in read_config(arguments.tokenizers / "codec").items() if not isinstance(v, (dict, list))},
            "weights_sha256": codec_sha256(arguments.tokenizers / "codec", codec),
        },
        "vocal_noise_sigma": arguments.vocal_noise,
        "seed": arguments.seed,
        "skipped": skipped,
        "versions": {
            "hafm_jax": hafm_jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    records.write_metadata(arguments.out, summaries, made_by)
    for summary in summaries:
        hours = summary.num_cells / CELLS_PER_S / 3600
        print(
            f"{summary.split}: {summary.num_examples} songs, {hours:.3f} h in {len(summary.shard_lengths)} shards, "
            f"{sum(name.startswith(summary.split + '/') for name in skipped)} left out"
        )


if __name__ == "__main__":
    run_command(main)
