"""The embeddings of each set of clips, and their distances to the reference with intervals.

REPORT/embeddings/EMBEDDING/SET.npz   the embedded sounds of the reference, or of a system's clips

A file that exists is not computed again. Intervals draw songs, not clips: the clips of one song are alike.

Axes: S samples, N embeddings, D dimensions, R draws.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hafm_jax.audio.files import to_mono
from hafm_jax.audio.mixing import mix
from hafm_jax.common.bootstrap import NUM_DRAWS, basic_interval
from hafm_jax.common.files import write_bytes
from hafm_jax.evaluation.clips import Clip, left_out
from hafm_jax.metrics.adherence import adherence, adherence_interval
from hafm_jax.metrics.distance_intervals import drawn_frechet_distances, kernel_interval
from hafm_jax.metrics.embeddings import Embedding
from hafm_jax.metrics.frechet import frechet_distance, frechet_infinity
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

REFERENCE = "reference"  # the set of clips that all systems are compared with
FORMS = ("stem", "mix")
MISMATCHED = "mismatched"  # third form, of the reference alone: its vocals, each mixed with another song's band
Embeddings = dict[str, dict[str, np.ndarray]]  # form -> song -> float32 [N, D]


def sounds_of(vocal: np.ndarray, band: np.ndarray) -> dict[str, np.ndarray]:
    """form -> audio float32 [S]: the band alone, and mixed with the vocal."""
    return {"stem": band, "mix": to_mono(mix(vocal, band, CODEC_SAMPLE_RATE_HZ).audio)}


def embed(
    path: Path, embedding: Embedding, clips: Sequence[Clip], sounds: Callable[[Clip], Mapping[str, np.ndarray]]
) -> dict[str, str]:
    """Write the embeddings of every clip's sounds (form -> audio) unless the file has them. Returns clip -> reason for
    the clips that fail, which are left out."""
    failures: dict[str, str] = {}
    if _embedded_clips(path) == [clip.id for clip in clips]:
        return failures
    kept: list[Clip] = []
    found: dict[str, list[np.ndarray]] = {}
    for clip in tqdm(clips, unit="clip", desc=f"{embedding.label}: {path.stem}"):
        with left_out(failures, clip.id):
            of_clip = {form: embedding(audio, CODEC_SAMPLE_RATE_HZ) for form, audio in sounds(clip).items()}
            if not all(np.isfinite(array).all() for array in of_clip.values()):
                raise ValueError("its embedding holds NaN or infinity")
            kept.append(clip)
            for form, array in of_clip.items():
                found.setdefault(form, []).append(array)
    arrays = {"clips": np.array([c.id for c in kept], str), "songs": np.array([c.song for c in kept], str)}
    for form, of_clips in found.items():
        arrays[form] = np.concatenate(of_clips)
        arrays[f"{form}_counts"] = np.array([len(x) for x in of_clips])
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_bytes(path, file.getvalue())
    return failures


def _embedded_clips(path: Path) -> list[str]:
    """The ids of the clips in a file of embeddings; [] without a file, or with a damaged one, as the file's own
    checksums show."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}["clips"].tolist()
    except (OSError, ValueError, LookupError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return []


def read_embeddings(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as arrays:
        songs = arrays["songs"].tolist()
        found: Embeddings = {}
        for form in (*FORMS, MISMATCHED):
            if form in arrays:
                of_clips = np.split(arrays[form], np.cumsum(arrays[f"{form}_counts"])[:-1])
                found[form] = {
                    name: np.concatenate([x for x, song in zip(of_clips, songs, strict=True) if song == name])
                    for name in dict.fromkeys(songs)
                }
    return found


class Distances(NamedTuple):
    """Of one system: `figures`, name -> value, low, high; its songs; `drawn`, name -> fad_stem and fad_mix of the draws
    [R]."""

    figures: dict[str, dict[str, float]]
    songs: list[str]
    drawn: dict[str, np.ndarray]


def measure_distances(folder: Path, seed: int, system: str) -> Distances:
    """From a system's embeddings in `folder` to those of the reference.

    With value, low and high: fad_stem, fad_mix, kernel_stem, kernel_mix and adherence. With value alone:
    adherence_distance, the distance of the mixes to the reference's in units of that between true and mismatched pairs,
    and, for more songs than dimensions, fad_infinity_stem and fad_infinity_mix.
    """
    reference, own = (read_embeddings(folder / f"{name}.npz") for name in (REFERENCE, system))
    figures: dict[str, dict[str, float]] = {}
    drawn: dict[str, np.ndarray] = {}
    for form in FORMS:
        sets = list(reference[form].values()), list(own[form].values())
        drawn[f"fad_{form}"] = drawn_frechet_distances(*sets, NUM_DRAWS, seed)
        fad = frechet_distance(*map(np.concatenate, sets))
        figures[f"fad_{form}"] = basic_interval(fad, drawn[f"fad_{form}"], least=0.0)._asdict()
        if min(map(len, sets)) > sets[0][0].shape[1]:
            figures[f"fad_infinity_{form}"] = {"value": frechet_infinity(*sets, seed).value}
        figures[f"kernel_{form}"] = kernel_interval(*sets, NUM_DRAWS, seed)._asdict()
    mixes = [list(found.values()) for found in (own["mix"], reference["mix"], reference[MISMATCHED])]
    figures["adherence"] = adherence_interval(*mixes, NUM_DRAWS, seed)._asdict()
    apart = adherence(*mixes)
    figures["adherence_distance"] = {"value": apart.to_reference / apart.between}
    return Distances(figures, list(own["mix"]), drawn)


def compare_distances(system: Distances, other: Distances) -> dict[str, dict[str, float]]:
    """fad_stem and fad_mix of system - other: value, low, high, from the same draws; {} where their songs differ."""
    if system.songs != other.songs:
        return {}
    return {
        name: basic_interval(
            system.figures[name]["value"] - other.figures[name]["value"], system.drawn[name] - other.drawn[name]
        )._asdict()
        for name in system.drawn
    }
