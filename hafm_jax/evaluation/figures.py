"""The figures of an evaluation: what is measured of each clip and of each set of clips, and how sure that is.

REPORT/measures/ID.json               of one clip: system -> measure -> number (hafm_jax.metrics.coherence)
REPORT/embeddings/EMBEDDING/SET.npz   of the reference, or a system's clips: bands and mixes as embeddings

Whatever is there is not computed again. Intervals draw songs anew, not clips: those of one song are alike.

Axes: N embeddings, D dimensions, R draws.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.atomic import write_bytes
from hafm_jax.audio.files import mix, to_mono
from hafm_jax.errors import InputError
from hafm_jax.evaluation.clips import VOCAL, Clip, band_file, read_band, read_clip
from hafm_jax.metrics.adherence import adherence, adherence_interval
from hafm_jax.metrics.bootstrap import DRAWS, draw_clips, frechet_interval, interval, kernel_interval
from hafm_jax.metrics.coherence import Truth, measure, read_song
from hafm_jax.metrics.embeddings import Embedding
from hafm_jax.metrics.frechet import MIN_CLIPS, frechet_infinity
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

REFERENCE = "reference"  # the set of clips that all are held against
MISMATCHED = "mismatched"  # its vocals, each with the band of another song
FORMS = ("stem", "mix")
Measures = dict[str, dict[str, float]]  # system -> measure -> number, of one clip
Embeddings = dict[str, list[np.ndarray]]  # form -> of each song float32 [N, D]


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
    try:
        reference = read_clip(songs, split, clip, "instrumental")
        truth = Truth.of_clip(reference, read_song(songs / split / clip.song), clip.start_s)
        vocal = read_band(report, VOCAL, clip.id)
    except (InputError, ValueError) as error:
        return {}, dict.fromkeys(missing, str(error))
    failures = {}
    for name in missing:
        try:
            known[name] = measure(vocal, read_band(report, name, clip.id), truth)
        except (InputError, ValueError) as error:
            failures[name] = str(error)
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


def embed(path: Path, embedding: Embedding, mixes: Iterable[tuple[Clip, np.ndarray, np.ndarray]]) -> None:
    """Write the embeddings of bands and mixes of (clip, vocal, band)."""
    arrays: dict[str, Any] = {}
    clips, found = [], {form: [] for form in FORMS}
    for clip, vocal, band in mixes:
        clips.append(clip)
        found["stem"].append(embedding(band, CODEC_SAMPLE_RATE_HZ))
        mixed = to_mono(mix(vocal, band, CODEC_SAMPLE_RATE_HZ).audio)
        found["mix"].append(embedding(mixed, CODEC_SAMPLE_RATE_HZ))
    arrays["clips"], arrays["songs"] = np.array([clip.id for clip in clips]), np.array([clip.song for clip in clips])
    for form in FORMS:
        arrays[form] = np.concatenate(found[form])
        arrays[f"{form}_counts"] = np.array([len(x) for x in found[form]])
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_bytes(path, file.getvalue())


def holds(path: Path, clips: Sequence[Clip]) -> bool:
    """Whether the file is there, of these clips."""
    if not path.exists():
        return False
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["clips"].tolist() == [clip.id for clip in clips]


def read_embeddings(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as arrays:
        songs = arrays["songs"]
        found: Embeddings = {}
        for form in FORMS:
            of_clips = np.split(arrays[form], np.cumsum(arrays[f"{form}_counts"])[:-1])
            found[form] = [
                np.concatenate([x for x, song in zip(of_clips, songs, strict=True) if song == name])
                for name in dict.fromkeys(songs.tolist())
            ]
    return found


def distances(folder: Path, seed: int, system: str) -> dict[str, dict[str, float]]:
    """Of a system's embeddings in the folder to those of the reference: fad_stem, fad_mix, kernel_stem, kernel_mix and
    adherence, with value, low, high; with value alone fad_infinity_stem, fad_infinity_mix, and adherence_distance: how
    far the mixes are from the reference's, the distance between true and mismatched pairs being 1.
    """
    reference, mismatched, own = (read_embeddings(folder / f"{name}.npz") for name in (REFERENCE, MISMATCHED, system))
    found: dict[str, dict[str, float]] = {}
    for form in FORMS:
        found[f"fad_{form}"] = frechet_interval(reference[form], own[form], seed=seed)._asdict()
        found[f"fad_infinity_{form}"] = {"value": frechet_infinity(reference[form], own[form], seed).value}
        found[f"kernel_{form}"] = kernel_interval(reference[form], own[form], seed=seed)._asdict()
    mixes = own["mix"], reference["mix"], mismatched["mix"]
    found["adherence"] = adherence_interval(*mixes, seed=seed)._asdict()
    apart = adherence(*mixes)
    found["adherence_distance"] = {"value": apart.to_reference / apart.between}
    return found
