"""A clip of a song, and the files of a report that hold the bands of systems for it.

    REPORT/clips/SYSTEM/ID.flac   the band alone; SYSTEM `vocal` is the vocal

Axes: S samples.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hafm_jax.audio.files import resample, stem_file, to_mono
from hafm_jax.audio.reading import read_audio
from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

CLIP_S = 10  # [paper]
CLIP_SAMPLES = CLIP_S * CODEC_SAMPLE_RATE_HZ
VOCAL = "vocal"


class Clip(NamedTuple):
    """The CLIP_S seconds of a song from `start_s` on."""

    song: str
    start_s: int

    @property
    def id(self) -> str:
        return f"{self.song}-{self.start_s}s"

    @classmethod
    def of_id(cls, clip_id: str) -> Clip:
        """The inverse of `id`. Raises ValueError where the id does not end with a number of seconds."""
        song, _, start = clip_id.rpartition("-")
        return cls(song, int(start.removesuffix("s")))


def read_clip(songs: Path, split: str, clip: Clip, stem: str) -> np.ndarray:
    """A stem of the clip, mono, at CODEC_SAMPLE_RATE_HZ: float32 [S], S = CLIP_SAMPLES.

    Raises InputError where the song is missing, cannot be read, or ends before the clip does.
    """
    folder = songs / split / clip.song
    audio, rate_hz = read_audio(stem_file(folder, stem), clip.start_s + CLIP_S)
    audio = to_mono(audio)[clip.start_s * rate_hz : (clip.start_s + CLIP_S) * rate_hz]
    if len(audio) < CLIP_S * rate_hz:
        raise InputError(f"{folder}'s {stem} ends before {clip.start_s + CLIP_S} s; expected the protocol's songs")
    return resample(audio, rate_hz, CODEC_SAMPLE_RATE_HZ)


def band_file(report: Path, system: str, clip_id: str) -> Path:
    """The file of a system's band for a clip, or of the vocal."""
    return report / "clips" / system / f"{clip_id}.flac"


def read_band(report: Path, system: str, clip_id: str) -> np.ndarray:
    """float32 [S] at CODEC_SAMPLE_RATE_HZ. Raises InputError where it is missing, not mono, or of another rate."""
    path = band_file(report, system, clip_id)
    audio, rate_hz = read_audio(path)
    if rate_hz != CODEC_SAMPLE_RATE_HZ or len(audio) != 1:
        raise InputError(
            f"{path} has {len(audio)} channels at {rate_hz} Hz; expected 1 at {CODEC_SAMPLE_RATE_HZ} Hz: make the "
            "report again with hafm evaluate"
        )
    return audio[0]


@contextmanager
def left_out(failures: dict[str, str], name: str) -> Generator[None]:
    """An exception inside the block, whatever its type, is recorded as `failures[name]`; then work continues. Not an
    OutputError: a full disk is not a fault of the clip."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        failures[name] = reason(error)


def reason(error: Exception) -> str:
    """The text in a report: the message, with the type of the exception unless it is an InputError."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
