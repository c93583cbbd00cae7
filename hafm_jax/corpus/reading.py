"""Audio of any kind: files that libsndfile reads, others through ffmpeg where it is installed, streams of containers.

Axes: C channels, S samples.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hafm_jax.audio.files import read_audio
from hafm_jax.common.errors import InputError

LIBSNDFILE_SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64".split())
FFMPEG_SUFFIXES = frozenset(".m4a .m4b .mp4 .aac .wma .webm .mka .ape .wv .ac3 .dsf".split())


class Source(NamedTuple):
    """An audio file, or one audio stream of a container."""

    path: Path
    stream: int | None = None

    @property
    def needs_ffmpeg(self) -> bool:
        return self.stream is not None or self.path.suffix.lower() not in LIBSNDFILE_SUFFIXES


def ffmpeg() -> str:
    """The program's path. Raises InputError where it is absent."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise InputError(
            "ffmpeg is not installed; expected it for what libsndfile does not read (m4a, mp4, wma, ...): install it, "
            "or convert these files"
        )
    return program


def read_source(source: Source, max_s: float = math.inf) -> tuple[np.ndarray, int]:
    """The audio, float32 [C, S], and its rate in Hz; no more than its first `max_s` seconds.

    Raises InputError where it is damaged, empty or absent, and where it takes ffmpeg and there is none.
    """
    if not source.needs_ffmpeg:
        return read_audio(source.path, max_s)
    program = ffmpeg()
    if not source.path.is_file():
        raise InputError(f"{source.path} does not exist; expected an audio file: check the path")
    with tempfile.TemporaryDirectory() as folder:
        decoded = Path(folder, "decoded.wav")
        stop = [] if max_s == math.inf else ["-t", str(max_s)]
        # `file:` keeps a name with a colon from being taken for a protocol; rf64 lets a long one pass 4 GB.
        command = [program, "-nostdin", "-v", "error", "-i", f"file:{source.path}", "-map", f"0:a:{source.stream or 0}"]
        done = subprocess.run(
            [*command, *stop, "-c:a", "pcm_f32le", "-rf64", "auto", decoded], capture_output=True, check=False
        )
        if done.returncode or not decoded.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise InputError(
                f"{source.path} cannot be decoded by ffmpeg ({said[-1].strip()}); expected audio: export it again"
            )
        try:
            return read_audio(decoded)
        except InputError as error:
            raise InputError(str(error).replace(str(decoded), str(source.path))) from error
