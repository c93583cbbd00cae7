"""Audio of any kind: files that libsndfile reads, and streams of other media files through PyAV (FFmpeg in a wheel).

Axes: C channels, S samples.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from hafm_jax.audio.files import read_audio
from hafm_jax.common.errors import InputError, needed_for

LIBSNDFILE_SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64".split())
MEDIA_SUFFIXES = frozenset(".m4a .m4b .mp4 .aac .wma .webm .mka .ape .wv .ac3 .dsf".split())
EDIT_LISTS = "mov"  # FFmpeg's name of the container (mp4, m4a) whose streams state their exact length


class Source(NamedTuple):
    """An audio file, or one audio stream of a container."""

    path: Path
    stream: int | None = None

    @property
    def is_media(self) -> bool:
        """Whether PyAV reads it."""
        return self.stream is not None or self.path.suffix.lower() not in LIBSNDFILE_SUFFIXES


def import_av() -> ModuleType:
    """PyAV. Raises InputError where it is missing."""
    remedy = 'install the extra, pip install "hafm_jax[separate]", or convert these files'
    with needed_for("what libsndfile does not read (m4a, mp4, wma, ...) needs PyAV", remedy):
        import av
    return av


def read_source(source: Source, max_s: float = math.inf) -> tuple[np.ndarray, int]:
    """The audio, float32 [C, S], and its rate in Hz; no more than its first `max_s` seconds.

    Raises InputError where it is damaged, empty or absent, where it holds NaN or infinity, and where it needs PyAV and
    there is none.
    """
    return _read_media(source, max_s) if source.is_media else read_audio(source.path, max_s)


def _read_media(source: Source, max_s: float) -> tuple[np.ndarray, int]:
    av = import_av()
    if not source.path.is_file():
        raise InputError(f"{source.path} does not exist; expected an audio file: check the path")
    try:
        # `file:` keeps a name with a colon from being taken for a protocol
        with av.open(f"file:{source.path}") as container:
            audio, rate_hz = _decode(av, container, source.stream or 0, max_s)
    except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{source.path} (stream {source.stream or 0}) cannot be decoded ({reason}); expected audio: export it again"
        ) from error
    if not np.isfinite(audio).all():
        raise InputError(f"{source.path} holds NaN or infinity; expected numbers in -1..1: export it again")
    return audio, rate_hz


def _decode(av: ModuleType, container, number: int, max_s: float) -> tuple[np.ndarray, int]:
    """The `number`-th audio stream of an open container, from time 0 to its end or `max_s`. Raises ValueError where it
    has no samples, and what PyAV raises."""
    if number >= len(container.streams.audio):
        raise ValueError(f"it has {len(container.streams.audio)} audio streams")
    stream = container.streams.audio[number]
    to_float = av.AudioResampler(format="fltp")  # changes the samples' format alone, neither rate nor channels
    pieces: list[np.ndarray] = []  # [C, S] each
    num_samples, wanted, rate_hz = 0, sys.maxsize, 0
    for frame in container.decode(stream):
        if not pieces:
            rate_hz = frame.sample_rate  # the header's may be half of it
            if max_s < math.inf:
                wanted = math.ceil(max_s * rate_hz)
            # A codec pads its last frame. Edit lists give the length to the sample; other containers estimate it.
            if EDIT_LISTS in container.format.name.split(",") and stream.duration:
                wanted = min(wanted, math.ceil(stream.duration * stream.time_base * rate_hz))
        before_zero = 0 if frame.pts is None else max(0, round(-frame.pts * frame.time_base * rate_hz))
        for piece in to_float.resample(frame):
            pieces.append(piece.to_ndarray()[:, before_zero:])
            num_samples += pieces[-1].shape[1]
        if num_samples >= wanted:
            break
    if not num_samples:
        raise ValueError("it holds no samples")
    return np.concatenate(pieces, axis=1)[:, :wanted], rate_hz
