"""The figures of an evaluation: what is measured of each clip and of each set of clips, and how sure that is.

REPORT/measures/ID.json               of one clip: system -> measure -> number (hafm_jax.metrics.coherence)
REPORT/embeddings/EMBEDDING/SET.npz   of the reference, or a system's clips: its sounds as embeddings

Whatever is there is not computed again. Intervals draw songs anew, not clips: those of one song are alike.

Axes: N embeddings, D dimensions, R draws.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hafm_jax.audio.files import to_mono
from hafm_jax.audio.mixing import mix
from hafm_jax.common.files import write_bytes
from hafm_jax.evaluation.clips import VOCAL, Clip, band_file, left_out, read_band, read_clip
from hafm_jax.metrics.adherence import adherence, adherence_interval
from hafm_jax.metrics.bootstrap import DRAWS, draw_clips, drawn_frechet_distances, interval, kernel_interval
from hafm_jax.metrics.coherence import Truth, measure, read_song
from hafm_jax.metrics.embeddings import Embedding
from hafm_jax.metrics.frechet import MIN_CLIPS, frechet_distance, frechet_infinity
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

REFERENCE = "reference"  # the set of clips that all are held against
FORMS = ("stem", "mix")
MISMATCHED = "mismatched"  # the third form of the reference alone: its vocals, each mixed with another song's band
Measures = dict[str, dict[str, float]]  # system -> measure -> number, of one clip
Embeddings = dict[str, dict[str, np.ndarray]]  # form -> song -> float32 [N, D]


# ------------------------------------------------------------------------------------------------------ of each clip


def measure_clip(
    report: Path, songs: Path, split: str, systems: Sequence[str], clip: Clip
) -> tuple[Measures, dict[str, str]]:
    """The measures of all systems that made a band for the clip, and of those that cannot be measured the reason."""
    path = report / "measures" / f"{clip.id}.json"
    known: Measures = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in systems if name not in known and band_file(report, name, clip.id).exists()]
    if not missing:
        return {name: known[name] for name in systems if name in known}, {}
    failures: dict[str, str] = {}
    with left_out(failures, VOCAL):
        reference = read_clip(songs, split, clip, "instrumental")
        truth = Truth.of_clip(reference, read_song(songs / split / clip.song), clip.start_s)
        vocal = read_band(report, VOCAL, clip.id)
    if failures:
        failures = dict.fromkeys(missing, failures[VOCAL])
    else:
        for name in missing:
            with left_out(failures, name):
                known[name] = measure(vocal, read_band(report, name, clip.id), truth)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(known).encode())
    return {name: known[name] for name in systems if name in known}, failures


def summarize_measures(measures: Mapping[Clip, Measures], system: str, seed: int) -> dict[str, dict[str, float]]:
    """measure -> value, low, high (of the mean over clips) and clips, how many it is defined for; of lag_ms the mean of
    its absolute value."""
    of_clips = [(clip.song, of_clip[system]) for clip, of_clip in measures.items() if system in of_clip]
    summary = {}
    for name in of_clips[0][1] if of_clips else ():
        of_songs: dict[str, list[float]] = {}
        for song, found in of_clips:
            if math.isfinite(found[name]):
                of_songs.setdefault(song, []).append(abs(found[name]) if name == "lag_ms" else found[name])
        summary[name] = mean_interval(list(of_songs.values()), seed) | {"clips": sum(map(len, of_songs.values()))}
    return summary


def mean_interval(of_songs: Sequence[Sequence[float]], seed: int) -> dict[str, float]:
    """value, low, high: the mean over all clips, songs drawn anew. NaN without clips, low and high also of fewer than
    MIN_CLIPS songs."""
    if not of_songs:
        return dict.fromkeys(("value", "low", "high"), math.nan)
    sums, counts = np.array([sum(song) for song in of_songs]), np.array([len(song) for song in of_songs])
    value = float(sums.sum() / counts.sum())
    if len(of_songs) < MIN_CLIPS:
        return {"value": value, "low": math.nan, "high": math.nan}
    draws = draw_clips(len(of_songs), 10 * DRAWS, seed, 0)  # means cost nothing
    return interval(value, draws @ sums / (draws @ counts))._asdict()


def compare_measures(
    measures: Mapping[Clip, Measures], system: str, other: str, seed: int
) -> dict[str, dict[str, float]]:
    """measure -> value, low, high of the mean difference system - other, clip by clip, where both have it."""
    both = [(clip.song, m[system], m[other]) for clip, m in measures.items() if system in m and other in m]
    differences: dict[str, dict[str, list[float]]] = {}
    for song, ours, theirs in both:
        for name in ours:
            a, b = (abs(x[name]) if name == "lag_ms" else x[name] for x in (ours, theirs))
            if math.isfinite(a - b):
                differences.setdefault(name, {}).setdefault(song, []).append(a - b)
    return {name: mean_interval(list(of_songs.values()), seed) for name, of_songs in differences.items()}


# ---------------------------------------------------------------------------------------------- of each set of clips


def sounds_of(vocal: np.ndarray, band: np.ndarray) -> dict[str, np.ndarray]:
    """form -> audio float32 [S]: the band alone, and mixed with the vocal."""
    return {"stem": band, "mix": to_mono(mix(vocal, band, CODEC_SAMPLE_RATE_HZ).audio)}


def embed(
    path: Path, embedding: Embedding, clips: Sequence[Clip], sounds: Callable[[Clip], Mapping[str, np.ndarray]]
) -> dict[str, str]:
    """Write the embeddings of every clip's sounds, form -> audio, unless they are there. Returns the clips that fail,
    which are left out, with the reason."""
    failures: dict[str, str] = {}
    if embedded_clips(path) == [clip.id for clip in clips]:
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


def embedded_clips(path: Path) -> list[str]:
    """The ids of the clips that a file of embeddings is of; none where there is no file."""
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["clips"].tolist()


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
    """Of one system: `figures`, name -> value, low, high; of which songs; `fad_stem` and `fad_mix` of draws [R]."""

    figures: dict[str, dict[str, float]]
    songs: list[str]
    drawn: dict[str, np.ndarray]


def distances(folder: Path, seed: int, system: str) -> Distances:
    """Of a system's embeddings in the folder to those of the reference. Figures: fad_stem, fad_mix, kernel_stem,
    kernel_mix and adherence, with value, low, high; with value alone adherence_distance, how far the mixes are from the
    reference's, the distance between true and mismatched pairs being 1, and, of more songs than dimensions,
    fad_infinity_stem and fad_infinity_mix.
    """
    reference, own = (read_embeddings(folder / f"{name}.npz") for name in (REFERENCE, system))
    figures: dict[str, dict[str, float]] = {}
    drawn: dict[str, np.ndarray] = {}
    for form in FORMS:
        sets = list(reference[form].values()), list(own[form].values())
        drawn[f"fad_{form}"] = drawn_frechet_distances(*sets, DRAWS, seed)
        fad = frechet_distance(*map(np.concatenate, sets))
        figures[f"fad_{form}"] = interval(fad, drawn[f"fad_{form}"], least=0.0)._asdict()
        if min(map(len, sets)) > sets[0][0].shape[1]:
            figures[f"fad_infinity_{form}"] = {"value": frechet_infinity(*sets, seed).value}
        figures[f"kernel_{form}"] = kernel_interval(*sets, DRAWS, seed)._asdict()
    mixes = [list(found.values()) for found in (own["mix"], reference["mix"], reference[MISMATCHED])]
    figures["adherence"] = adherence_interval(*mixes, DRAWS, seed)._asdict()
    apart = adherence(*mixes)
    figures["adherence_distance"] = {"value": apart.to_reference / apart.between}
    return Distances(figures, list(own["mix"]), drawn)


def compare_distances(system: Distances, other: Distances) -> dict[str, dict[str, float]]:
    """fad_stem and fad_mix of system - other: value, low, high, both drawn alike; {} where they are not of the same
    songs."""
    if system.songs != other.songs:
        return {}
    return {
        name: interval(
            system.figures[name]["value"] - other.figures[name]["value"], system.drawn[name] - other.drawn[name]
        )._asdict()
        for name in system.drawn
    }
