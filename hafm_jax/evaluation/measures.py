"""The measures of each clip, and their means over clips with intervals.

REPORT/measures/ID.json   of one clip: system -> measure -> number (hafm_jax.metrics.coherence)

A file that exists is not computed again. Intervals draw songs, not clips: the clips of one song are alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hafm_jax.audio.music import read_song
from hafm_jax.common.bootstrap import NUM_DRAWS, basic_interval, draw_counts
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, sealed, write_json
from hafm_jax.evaluation.clips import VOCAL, Clip, band_file, left_out, read_band, read_clip
from hafm_jax.metrics.coherence import Truth, measure
from hafm_jax.metrics.frechet import MIN_CLIPS

Measures = dict[str, dict[str, float]]  # system -> measure -> number, of one clip
MEAN_DRAWS = 10 * NUM_DRAWS  # means cost nothing


def measure_clip(
    report: Path, songs: Path, split: str, systems: Sequence[str], clip: Clip
) -> tuple[Measures, dict[str, str]]:
    """The measures of all systems that have a band for the clip; and system -> reason where measuring failed."""
    path = report / "measures" / f"{clip.id}.json"
    known = _read_measures(path)
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
    write_json(path, sealed(known))
    return {name: known[name] for name in systems if name in known}, failures


def _read_measures(path: Path) -> Measures:
    """Those of a file; of a missing or damaged one none, so that they are measured again."""
    try:
        return read_json(path, "the measures of a clip")
    except InputError:
        return {}


def summarize_measures(measures: Mapping[Clip, Measures], system: str, seed: int) -> dict[str, dict[str, float]]:
    """measure -> value, low and high of its mean over clips, and clips, the number of clips that it is defined for."""
    of_clips = [(clip.song, of_clip[system]) for clip, of_clip in measures.items() if system in of_clip]
    summary = {}
    for name in of_clips[0][1] if of_clips else ():
        by_song = _by_song((song, _magnitude(name, found)) for song, found in of_clips)
        summary[name] = mean_interval(by_song, seed) | {"clips": sum(map(len, by_song))}
    return summary


def compare_measures(
    measures: Mapping[Clip, Measures], system: str, other: str, seed: int
) -> dict[str, dict[str, float]]:
    """measure -> value, low and high of the mean difference system - other over the clips that it is defined for in
    both; a measure without such clips is left out."""
    of_clips = [(clip.song, m[system], m[other]) for clip, m in measures.items() if system in m and other in m]
    comparison = {}
    for name in of_clips[0][1] if of_clips else ():
        by_song = _by_song((song, _magnitude(name, a) - _magnitude(name, b)) for song, a, b in of_clips)
        if by_song:
            comparison[name] = mean_interval(by_song, seed)
    return comparison


def _magnitude(name: str, found: Mapping[str, float]) -> float:
    """A measure as it is averaged: a lag of either sign is a fault."""
    return abs(found[name]) if name == "lag_ms" else found[name]


def _by_song(values: Iterable[tuple[str, float]]) -> list[list[float]]:
    """(song, value) of each clip -> the finite values of each song."""
    by_song: dict[str, list[float]] = {}
    for song, value in values:
        if math.isfinite(value):
            by_song.setdefault(song, []).append(value)
    return list(by_song.values())


def mean_interval(by_song: Sequence[Sequence[float]], seed: int) -> dict[str, float]:
    """value, low and high of the mean over all clips, the values of which are given by song. NaN without clips; with
    fewer than MIN_CLIPS songs low and high are NaN."""
    if not by_song:
        return dict.fromkeys(("value", "low", "high"), math.nan)
    sums, counts = np.array([sum(song) for song in by_song]), np.array([len(song) for song in by_song])
    value = float(sums.sum() / counts.sum())
    if len(by_song) < MIN_CLIPS:
        return {"value": value, "low": math.nan, "high": math.nan}
    draws = draw_counts(len(by_song), [seed, 0], MEAN_DRAWS)
    return basic_interval(value, draws @ sums / (draws @ counts))._asdict()
