"""What blank history does, on validation songs: the same model, drawn with several weights of it and several seeds.

    python benchmarks/blank_history.py --songs SONGS [--model MODEL] [--seeds 4] [--workers 2]

Bands are the coarse codebooks' (the fine stage has no part in this), of the songs' first 10 s, against the reference of
the first training songs. `between songs` and `within songs` are the two parts of the variance of the embedding `mel`:
how much bands differ from each other, and from themselves a second later. With it: the true band, as it is and through
the codec.

Axes: N embeddings, D dimensions, S samples.
"""

from __future__ import annotations

import argparse
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from report import interval, markdown
from tqdm import tqdm

from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import song_folders
from hafm_jax.compiled import use_compilation_cache
from hafm_jax.errors import run_command
from hafm_jax.evaluation.clips import CLIP_SAMPLES, Clip, read_clip
from hafm_jax.evaluation.figures import mean_interval
from hafm_jax.evaluation.systems import CLIPS_AT_ONCE_ON_CPU, COARSE_BOOKS
from hafm_jax.metrics.coherence import Truth, measure, read_song
from hafm_jax.metrics.embeddings import load_embedding
from hafm_jax.metrics.frechet import frechet_distance
from hafm_jax.pretrained import DEMO
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import num_cells
from hafm_jax.work import do_all

SPLIT, REFERENCE_SPLIT, REFERENCE_SONGS = "validation", "train", 256
TRUTH, CODEC = "the true band", "through the codec, 4 codebooks"
WEIGHTS = {  # what is drawn: the weights of blank history in the semantic and in the coarse stage
    f"{semantic:g}, {coarse:g}": {"semantic": semantic, "coarse": coarse}
    for semantic, coarse in ((0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (1.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0))
}
MEASURES = ("beat_f", "lag_strength", "chroma_chords", "key_score")

Piece = tuple[str, int, int]  # system, seed, the number of the first song
Found = list[tuple[dict[str, float], np.ndarray]]  # of each song: measures, embeddings [N, D]


@cache
def load(model: str) -> Accompanist:
    use_compilation_cache()
    return Accompanist.load(model)


def bands(
    accompanist: Accompanist, system: str, vocals: np.ndarray, truths: np.ndarray, seeds: list[int]
) -> np.ndarray:
    """The system's bands for the vocals of songs, a seed each; all float32 [songs, S]."""
    if system == TRUTH:
        return truths
    if system == CODEC:
        tokens = accompanist.codec.encode(truths)[..., :COARSE_BOOKS]
    else:
        sampling = {
            name: own._replace(blank_history=WEIGHTS[system].get(name, 0.0))
            for name, own in accompanist.sampling.items()
        }
        tokens = accompanist.tokens_of_each(
            list(vocals[:, None]),
            RATE_HZ,
            num_cells(CLIP_SAMPLES, RATE_HZ),
            seeds=seeds,
            sampling=sampling,
            skip_fine=True,
        )
    return accompanist.codec.decode(tokens)[:, :CLIP_SAMPLES]


def look(songs: Path, names: list[str], model: str, piece: Piece) -> Found:
    system, seed, first = piece
    names = names[first : first + CLIPS_AT_ONCE_ON_CPU]
    seeds = [1_000_000 * seed + first + i for i in range(len(names))]
    vocals, truths = (
        np.stack([read_clip(songs, SPLIT, Clip(name, 0), stem) for name in names])
        for stem in ("vocals", "instrumental")
    )
    made = bands(load(model), system, vocals, truths, seeds)
    embedding, found = load_embedding("mel"), []
    for name, vocal, true, band in zip(names, vocals, truths, made, strict=True):
        truth = Truth.of_clip(true, read_song(songs / SPLIT / name))
        found.append((measure(vocal, band, truth), embedding(band, RATE_HZ)))
    return found


def spread(of_songs: list[np.ndarray]) -> dict[str, float]:
    """The two parts of the variance of embeddings [N, D], an array a song: sums over D."""
    return {
        "between_songs": float(np.var([x.mean(axis=0) for x in of_songs], axis=0).sum()),
        "within_songs": float(np.mean([x.var(axis=0) for x in of_songs], axis=0).sum()),
    }


def summarize(by_seed: list[Found], reference: np.ndarray) -> dict[str, Any]:
    """measures: means over songs and seeds with intervals; of each seed the distance; the mean spread."""
    measures = {
        name: mean_interval([[found[song][0][name] for found in by_seed] for song in range(len(by_seed[0]))], seed=0)
        for name in MEASURES
    }
    embedded = [[of_song for _, of_song in found] for found in by_seed]
    spreads = [spread(of_songs) for of_songs in embedded]
    return {
        "measures": measures,
        "fad_stem": [frechet_distance(np.concatenate(of_songs), reference) for of_songs in embedded],
        **{name: float(np.mean([x[name] for x in spreads])) for name in spreads[0]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--songs", type=Path, required=True, help=f"songs with splits {SPLIT} and {REFERENCE_SPLIT}")
    add("--model", default=str(DEMO), help="model directory (default: the demo model)")
    add("--seeds", type=int, default=4, help="draws of each song (default: 4)")
    add("--workers", type=int, default=2, help="processes (default: 2)")
    add("--out", type=Path, default=Path("benchmarks/results/blank_history.json"))
    arguments = parser.parse_args()

    names, reference_names = (
        [folder.name for folder in song_folders(arguments.songs, split)] for split in (SPLIT, REFERENCE_SPLIT)
    )
    embedding = load_embedding("mel")
    reference = [
        embedding(read_clip(arguments.songs, REFERENCE_SPLIT, Clip(name, 0), "instrumental"), RATE_HZ)
        for name in tqdm(reference_names[:REFERENCE_SONGS], desc="reference", unit="song")
    ]
    runs = [(TRUTH, 0), (CODEC, 0), *((system, seed) for system in WEIGHTS for seed in range(arguments.seeds))]
    firsts = range(0, len(names), CLIPS_AT_ONCE_ON_CPU)
    pieces = [(*run, first) for run in runs for first in firsts]
    work = do_all(partial(look, arguments.songs, names, arguments.model), pieces, arguments.workers)
    found = dict(tqdm(work, total=len(pieces), desc="draw", unit="piece"))
    results = {
        system: summarize(
            [
                [of_song for first in firsts for of_song in found[system, seed, first]]
                for name, seed in runs
                if name == system
            ],
            np.concatenate(reference),
        )
        for system in dict.fromkeys(name for name, _ in runs)
    }
    document = {"machine": machine(), "songs": len(names), "reference_songs": len(reference), "seeds": arguments.seeds}
    document |= {"reference": spread(reference), "systems": results}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    rows = [["semantic, coarse", *MEASURES, "FAD", "between songs", "within"]]
    for system, result in results.items():
        spreads = (f"{result[name]:.1f}" for name in ("between_songs", "within_songs"))
        rows.append(
            [system, *map(interval, result["measures"].values()), f"{np.mean(result['fad_stem']):.2f}", *spreads]
        )
    print(markdown(rows))


if __name__ == "__main__":
    run_command(main)
