"""A track -> a song: its vocals and its instrumental, separated or given, in a folder of their own.

`make_song` is one task of tokenize/separate_stems.py; any process on any machine can do it.

Axes: C channels, S samples.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hafm_jax.audio.files import resample, to_mono
from hafm_jax.audio.songs import write_song
from hafm_jax.common.download import check_sha256
from hafm_jax.common.errors import InputError
from hafm_jax.common.work import on_device
from hafm_jax.corpus.choices import GIVEN
from hafm_jax.corpus.fma import tracks_csv
from hafm_jax.corpus.progress import Song
from hafm_jax.corpus.reading import Source, read_source
from hafm_jax.corpus.screening import Limits, Reason, Unusable, check_file, rms_dbfs
from hafm_jax.corpus.tracks import Track, read_stems
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from hafm_jax.corpus.separators import Separator

SONG_SAMPLE_RATE_HZ = CODEC_SAMPLE_RATE_HZ  # the higher of the tokenizers' rates; both are mono
FULL_SCALE = 1 - 2**-15  # the highest sample of 16 bits
FORMAT_VERSION = 1  # of a songs folder
RAY_BATCH = 100  # ours: tracks of a task on Ray; a GPU loads the separator for each task


@dataclass(frozen=True)
class Recipe:
    """How a track becomes a song: what each process that makes songs receives."""

    music: Path
    out: Path
    separator: str
    weights: str | None
    sha256: str | None
    limits: Limits


@functools.cache
def separator_of(recipe: Recipe) -> Separator | None:
    """Loaded once a process; None where stems are given."""
    if recipe.separator == GIVEN:
        return None
    from hafm_jax.corpus.separators import load_separator  # here: --help and given stems need none of its libraries

    return load_separator(recipe.separator, recipe.weights, recipe.sha256)


def describe_run(recipe: Recipe, layout: str, metadata: Path | None, shares: Mapping[str, float]) -> dict[str, Any]:
    """All that decides about the songs of a run, beside the music itself: for run.json."""
    separator = separator_of(recipe)
    return {
        "format_version": FORMAT_VERSION,
        "layout": layout,
        **shares,
        "metadata_sha256": metadata and check_sha256([tracks_csv(metadata)]),
        "separator": recipe.separator,
        "separator_sha256": separator.sha256 if separator else None,
        **asdict(recipe.limits),
    }


def to_stereo(audio: np.ndarray) -> np.ndarray:
    """[C, S] -> [2, S]: one channel twice, two as they are, or the mean of more channels twice."""
    return audio if len(audio) == 2 else np.repeat(to_mono(audio)[None], 2, axis=0)


def one_line(error: Exception, recipe: Recipe) -> str:
    """The message without what differs between machines, on one line and in characters of any terminal."""
    text = str(error).replace(f"{recipe.music}{os.sep}", "")
    return " ".join(text.encode(errors="backslashreplace").decode().split())


def sources_used(track: Track, stems_given: bool) -> list[Source]:
    """The files that the song is made of."""
    return [source for source in track.sources if source is not track.mixture] if stems_given else [track.mixture]


def read_mixture_and_vocals(track: Track, recipe: Recipe, separator: Separator | None) -> tuple[np.ndarray, np.ndarray]:
    """float32 [S] each, at SONG_SAMPLE_RATE_HZ. Raises Unusable."""
    limits = recipe.limits
    max_s = limits.max_s + 1  # enough to see that it is too long
    for source in sources_used(track, separator is None):
        check_file(source.path)
    try:
        if separator is None:
            stems = read_stems(track, max_s)
            mixture, rate_hz = stems.vocals + stems.instrumental, stems.sample_rate_hz
        else:
            mixture, rate_hz = read_source(track.mixture, max_s)
    except InputError as error:
        raise Unusable(Reason.DAMAGED, one_line(error, recipe)) from error
    limits.check_length(mixture.shape[1] / rate_hz)
    limits.check_sound("mixture", mixture)
    if separator is None:
        vocals = stems.vocals
    else:
        mixture, rate_hz = resample(to_stereo(mixture), rate_hz, separator.sample_rate_hz), separator.sample_rate_hz
        with on_device(f"separating {track.id}"):
            vocals = separator.separate(mixture)
        if vocals.shape != mixture.shape:
            raise ValueError(f"the separator gave {vocals.shape} for {mixture.shape}; expected one shape")
        if not np.isfinite(vocals).all():
            raise Unusable(Reason.DAMAGED, "the separator's vocals hold NaN or infinity")
    return tuple(resample(to_mono(audio), rate_hz, SONG_SAMPLE_RATE_HZ) for audio in (mixture, vocals))


def make_song(recipe: Recipe, track: Track) -> Song | Unusable:
    """Write the song's folder and return its song.json, or the reason why the track makes no song."""
    separator = separator_of(recipe)
    try:
        mixture, vocals = read_mixture_and_vocals(track, recipe, separator)
        recipe.limits.check_singing(vocals)
        instrumental = mixture - vocals
        recipe.limits.check_sound("instrumental", instrumental)
    except Unusable as unusable:
        return unusable.of(track.id, track.split)
    peak = max(np.abs(vocals).max(), np.abs(instrumental).max())
    gain = float(np.float32(min(1.0, FULL_SCALE / peak)))
    song = {
        "id": track.id,
        "split": track.split,
        "licence": track.licence,
        **track.facts,
        "source": sorted(
            {used.path.relative_to(recipe.music).as_posix() for used in sources_used(track, separator is None)}
        ),
        "seconds": round(len(vocals) / SONG_SAMPLE_RATE_HZ, 3),
        "vocal_dbfs": round(rms_dbfs(vocals), 2),  # in the mixture, that is, before the gain
        "gain": gain,
        "separator": recipe.separator,
        "separator_sha256": separator.sha256 if separator else None,
    }
    gained = [np.float32(gain) * audio for audio in (vocals, instrumental)]
    write_song(recipe.out / track.split / track.id, *gained, SONG_SAMPLE_RATE_HZ, song, suffix=".flac")
    return song
