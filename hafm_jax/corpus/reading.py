"""The audio of a corpus's track: a file, or one stream of a container."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hafm_jax.audio.reading import read_audio

# What a folder's audio files are recognised by; the reader itself goes by what is in them.
LIBSNDFILE_SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64".split())
MEDIA_SUFFIXES = frozenset(".m4a .m4b .mp4 .aac .wma .webm .mka .ape .wv .ac3 .dsf".split())


class Source(NamedTuple):
    """An audio file, or one audio stream of a container."""

    path: Path
    stream: int | None = None


def read_source(source: Source, max_s: float = math.inf) -> tuple[np.ndarray, int]:
    """The audio, float32 [C, S], and its rate in Hz; no more than its first `max_s` seconds.

    Raises InputError as `read_audio` does: a corpus has enough whole files, and silence in the place of a hole, or a
    band that ends early, would be learnt.
    """
    return read_audio(source.path, max_s, source.stream or 0)
