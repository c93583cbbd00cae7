"""The shared part of experiments that draw bands for validation songs with a model and measure them.

An experiment gives the names of its systems and draws their tokens; this file reads the songs, measures the bands and
takes the means. Bands are of the songs' first 10 s, the reference is that of the first training songs. `between_songs`
and `within_songs` are the two parts of the variance of the embedding `mel`: how much bands differ from each other, and
from themselves a second later. The true band, as it is and through the codec, is measured too.

Axes: N embeddings, D dimensions, S samples, F frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown, mean_interval, show_interval
from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import song_folders
from hafm_jax.audio.music import read_song
from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.work import do_all
from hafm_jax.evaluation.clips import CLIP_SAMPLES, Clip, read_clip
from hafm_jax.evaluation.systems import CLIPS_AT_ONCE_ON_CPU, COARSE_BOOKS
from hafm_jax.metrics.coherence import Truth, measure
from hafm_jax.metrics.embeddings import load_embedding
from hafm_jax.metrics.frechet import frechet_distance
from hafm_jax.model.pretrained import DEMO
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import num_cells

SPLIT, REFERENCE_SPLIT, REFERENCE_SONGS = "validation", "train", 256
CELLS = num_cells(CLIP_SAMPLES, RATE_HZ)
TRUTH = "the true band"
CODEC = {"through the codec": None, f"through the codec, {COARSE_BOOKS} codebooks": COARSE_BOOKS}
MEASURES = ("beat_f", "lag_strength", "chroma_chords", "key_score")

Piece = tuple[str, int, int]  # system, seed, number of the first song
Found = list[tuple[dict[str, float], np.ndarray]]  # measures and embeddings [N, D] of each song


class Songs(NamedTuple):
    """The first 10 s of some songs at 24 kHz, float32 [songs, S], and a seed for each song and draw."""

    vocals: np.ndarray
    bands: np.ndarray
    seeds: list[int]

    def accompany(self, accompanist: Accompanist, **options: Any) -> np.ndarray:
        """Acoustic tokens int32 [songs, F, K] for the vocals; options are those of `Accompanist.tokens_of_each`."""
        return accompanist.tokens_of_each(list(self.vocals[:, None]), RATE_HZ, CELLS, seeds=self.seeds, **options)


Draw = Callable[[Accompanist, str, Songs], np.ndarray]  # a system's name -> acoustic tokens int32 [songs, F, K]


@cache
def load(model: str) -> Accompanist:
    use_compilation_cache()
    return Accompanist.load(model)


def measure_piece(draw: Draw, folder: Path, names: list[str], model: str, piece: Piece) -> Found:
    system, seed, first = piece
    names = names[first : first + CLIPS_AT_ONCE_ON_CPU]
    vocals, true = (
        np.stack([read_clip(folder, SPLIT, Clip(name, 0), stem) for name in names])
        for stem in ("vocals", "instrumental")
    )
    if system == TRUTH:
        bands = true
    else:
        accompanist = load(model)
        if system in CODEC:
            tokens = accompanist.codec.encode(true)[..., : CODEC[system]]
        else:
            seeds = [1_000_000 * seed + first + i for i in range(len(names))]
            tokens = draw(accompanist, system, Songs(vocals, true, seeds))
        bands = accompanist.codec.decode(tokens)[:, :CLIP_SAMPLES]
    embedding, found = load_embedding("mel"), []
    for name, vocal, true_band, band in zip(names, vocals, true, bands, strict=True):
        truth = Truth.of_clip(true_band, read_song(folder / SPLIT / name))
        found.append((measure(vocal, band, truth), embedding(band, RATE_HZ)))
    return found


def variances(of_songs: list[np.ndarray]) -> dict[str, float]:
    """The two parts of the variance of embeddings [N, D], one array a song, summed over D."""
    return {
        "between_songs": float(np.var([x.mean(axis=0) for x in of_songs], axis=0).sum()),
        "within_songs": float(np.mean([x.var(axis=0) for x in of_songs], axis=0).sum()),
    }


def summarize(by_seed: list[Found], reference: np.ndarray) -> dict[str, Any]:
    """Means of the measures over songs and seeds with intervals, the distance of each seed, the mean variances."""
    embedded = [[of_song for _, of_song in found] for found in by_seed]
    parts = [variances(of_songs) for of_songs in embedded]

    def of_songs(name: str) -> np.ndarray:
        return np.mean([[measures[name] for measures, _ in found] for found in by_seed], axis=0)

    return {
        "measures": {name: mean_interval(of_songs(name)) for name in MEASURES},
        "fad_stem": [frechet_distance(np.concatenate(of_seed), reference) for of_seed in embedded],
        **{name: float(np.mean([part[name] for part in parts])) for name in parts[0]},
    }


def compare(about: str, systems: list[str], draw: Draw) -> None:
    """An experiment's command: draw `systems` with several seeds, print their figures and write them to --out."""
    parser = make_parser(about)
    add = parser.add_argument
    add("--songs", type=Path, required=True, help=f"songs with splits {SPLIT} and {REFERENCE_SPLIT}")
    add("--model", default=str(DEMO), help="model directory (default: the demo model)")
    add("--seeds", type=int, default=3, help="draws of each song (default: 3)")
    add("--workers", type=int, default=2, help="processes (default: 2)")
    arguments = parser.parse_args()

    write = begin_result(arguments.out)
    names, reference_names = (
        [folder.name for folder in song_folders(arguments.songs, split)] for split in (SPLIT, REFERENCE_SPLIT)
    )
    embedding = load_embedding("mel")
    reference = [
        embedding(read_clip(arguments.songs, REFERENCE_SPLIT, Clip(name, 0), "instrumental"), RATE_HZ)
        for name in tqdm(reference_names[:REFERENCE_SONGS], desc="reference", unit="song")
    ]
    seeds_of = dict.fromkeys((TRUTH, *CODEC), 1) | dict.fromkeys(systems, arguments.seeds)
    firsts = range(0, len(names), CLIPS_AT_ONCE_ON_CPU)
    pieces = [(system, seed, first) for system, n in seeds_of.items() for seed in range(n) for first in firsts]
    work = do_all(partial(measure_piece, draw, arguments.songs, names, arguments.model), pieces, arguments.workers)
    found = dict(tqdm(work, total=len(pieces), desc="draw", unit="piece"))
    results = {
        system: summarize(
            [[of_song for first in firsts for of_song in found[system, seed, first]] for seed in range(n)],
            np.concatenate(reference),
        )
        for system, n in seeds_of.items()
    }
    document = {"songs": len(names), "reference_songs": len(reference), "seeds": arguments.seeds}
    write(document | {"reference": variances(reference), "systems": results})
    rows = [["", *MEASURES, "FAD", "between songs", "within"]]
    for system, result in results.items():
        parts = (f"{result[name]:.1f}" for name in ("between_songs", "within_songs"))
        measures = map(show_interval, result["measures"].values())
        rows.append([system, *measures, f"{np.mean(result['fad_stem']):.2f}", *parts])
    print(markdown(rows))
