"""Audio files: read, resample, pad to cells, write; the stems of a songs folder.

Audio is float32 in -1..1 everywhere in hafm_jax, channels first.

Axes: C channels, S samples.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.common.files import replacing
from hafm_jax.common.outputs import check_files
from hafm_jax.streams import num_cells, samples_per_cell

MAKE_SONGS = "make one with tokenize/synthesize_songs.py or tokenize/separate_stems.py"
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's value, as for a FLAC that was written to a pipe
WRITABLE = {".wav": "WAV", ".flac": "FLAC"}  # suffix -> libsndfile's format; both written as 16-bit PCM


def read_audio(path: str | os.PathLike, max_s: float = math.inf) -> tuple[np.ndarray, int]:
    """Read a file in a format of libsndfile (wav, flac, ogg, mp3, aiff, ...): float32 [C, S] and its rate in Hz.

    No more than its first `max_s` seconds are read. Raises InputError where the file does not exist, is not audio, is
    empty, or holds NaN or infinity.
    """
    path = Path(path)
    with _opened(path) as file:
        sample_rate_hz = file.samplerate
        frames = -1 if max_s == math.inf else math.ceil(max_s * sample_rate_hz)
        audio = file.read(frames, dtype="float32", always_2d=True)  # [S, C]
    if audio.shape[0] == 0:
        raise InputError(f"{path} holds no samples; expected audio: record or export it again")
    bad = int(np.count_nonzero(~np.isfinite(audio)))
    if bad:
        raise InputError(
            f"{path} holds {bad} samples that are NaN or infinite; expected numbers in -1..1: export it again"
        )
    return np.ascontiguousarray(audio.T), int(sample_rate_hz)


def read_mono(path: str | os.PathLike, sample_rate_hz: int, max_s: float = math.inf) -> np.ndarray:
    """`read_audio` as mono at `sample_rate_hz`: float32 [S]."""
    audio, found_hz = read_audio(path, max_s)
    return resample(to_mono(audio), found_hz, sample_rate_hz)


def header_s(path: str | os.PathLike) -> float:
    """Seconds of audio by the file's header; `read_audio` returns no more. Raises InputError as it does."""
    with _opened(Path(path)) as file:
        if file.frames == UNKNOWN_FRAMES:
            raise ValueError("its header does not say how long it is")
        return file.frames / file.samplerate


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected an audio file: give the path of a file in it")
    if not path.exists():
        raise InputError(f"{path} does not exist; expected an audio file: check the path")
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:  # as bytes: not every file's name is UTF-8
            yield file
    # TypeError: .raw, which has no header to read; ValueError: a header with an impossible number of samples
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError) as error:
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise InputError(
            f"{path} cannot be read as audio ({reason}); expected wav, flac, ogg, mp3 or aiff: convert it to one"
        ) from error


def check_writable(paths: Collection[Path]) -> None:
    """Raises InputError where `write_audio` would fail for one of `paths`: to be called before long work, not after."""
    for path in paths:
        _format_of(path)
    check_files(paths)


def _format_of(path: Path) -> str:
    """libsndfile's name of the format of the suffix. Raises InputError on another suffix."""
    if path.suffix.lower() not in WRITABLE:
        raise InputError(f"cannot write {path}: found suffix '{path.suffix}', expected one of {', '.join(WRITABLE)}")
    return WRITABLE[path.suffix.lower()]


class _NotingFile(io.FileIO):
    """A file that keeps the error of a write, which libsndfile turns into "System error"."""

    error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = 0
            while written < len(data):  # a disk that is about to be full takes a part
                written += super().write(data[written:])
            return written
        except OSError as error:
            self.error = self.error or error
            return 0


def write_audio(path: str | os.PathLike, audio: np.ndarray, sample_rate_hz: int, comment: str = "") -> None:
    """Write `audio` [S] or [C, S] as 16-bit PCM, in the format that the suffix names (.wav, .flac).

    It is written under a temporary name in the same folder and then renamed: a reader never sees half a file, and an
    exception leaves nothing behind. Samples beyond -1..1 are clipped. `comment` becomes a field of the file, which
    `comment_of` reads. Raises InputError on another suffix, OutputError where the place cannot be written, ValueError
    on NaN or infinity.
    """
    path = Path(path)
    file_format = _format_of(path)
    audio = np.asarray(audio, np.float32)
    if audio.ndim not in (1, 2):
        raise ValueError(f"audio of shape {audio.shape}; expected [S] or [C, S]")
    if not np.isfinite(audio).all():
        raise ValueError(f"audio for {path} holds NaN or infinity")
    channels = 1 if audio.ndim == 1 else len(audio)
    with replacing(path) as temporary, _NotingFile(temporary, "w") as out:
        try:
            with soundfile.SoundFile(out, "w", sample_rate_hz, channels, "PCM_16", format=file_format) as file:
                if comment:
                    file.comment = comment
                file.write(audio.T)
        except (soundfile.LibsndfileError, AssertionError) as error:  # AssertionError: soundfile's, on fewer samples
            raise out.error or OutputError(f"cannot write {path} ({error}); expected another format") from error
        if out.error:  # while it was closed
            raise out.error


def comment_of(path: str | os.PathLike) -> str:
    """The comment in an audio file; "" where it has none, or is not audio."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            return file.comment
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError):
        return ""


def stem_file(folder: str | os.PathLike, stem: str) -> Path:
    """The file of a stem ("vocals" or "instrumental") in a song's folder. InputError unless there is exactly one."""
    found = [path for suffix in WRITABLE if (path := Path(folder) / f"{stem}{suffix}").is_file()]
    if len(found) != 1:
        raise InputError(
            f"{folder} holds {' and '.join(path.name for path in found) or f'no {stem}'}; expected one of "
            f"{', '.join(stem + suffix for suffix in WRITABLE)}: {MAKE_SONGS}"
        )
    return found[0]


def song_splits(songs: str | os.PathLike) -> list[str]:
    """The splits of a songs folder (SPLIT/ID/vocals, instrumental), sorted. InputError where there are none."""
    splits = sorted({folder.parent.name for folder in _folders_with("vocals", Path(songs), "*/*")})
    splits = [name for name in splits if not name.startswith(".")]
    if not splits:
        raise InputError(f"{songs} holds no SPLIT/ID/vocals.wav or .flac; expected a songs folder: {MAKE_SONGS}")
    return splits


def song_folders(songs: str | os.PathLike, split: str, stem: str = "vocals") -> list[Path]:
    """The folders of a split's songs that have the stem, sorted by id. InputError where there are none."""
    folders = sorted(_folders_with(stem, Path(songs) / split, "*"))
    if not folders:
        raise InputError(
            f"{Path(songs) / split} holds no ID/{stem}.wav or .flac; expected a songs folder: {MAKE_SONGS}"
        )
    return folders


def _folders_with(stem: str, root: Path, depth: str) -> set[Path]:
    """Folders at `depth` with a file of the stem, without those that are being written (.ID)."""
    folders = {path.parent for suffix in WRITABLE for path in root.glob(f"{depth}/{stem}{suffix}")}
    return {path for path in folders if not path.name.startswith(".")}


def to_mono(audio: np.ndarray) -> np.ndarray:
    """[S] or [C, S] -> float32 [S], the mean of the channels."""
    audio = np.asarray(audio, np.float32)
    return audio if audio.ndim == 1 else audio.mean(axis=0)


def resampled_length(num_samples: int, from_hz: int, to_hz: int) -> int:
    """num_samples * to_hz / from_hz, rounded half up; in integers, since a float could lose a sample of a long file."""
    return (2 * num_samples * to_hz + from_hz) // (2 * from_hz)


def resample(audio: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Band-limited resampling (soxr HQ) of [S] or [C, S] to float32 with exactly `resampled_length` samples."""
    audio = np.asarray(audio, np.float32)
    if from_hz == to_hz:
        return audio
    length = resampled_length(audio.shape[-1], from_hz, to_hz)
    # soxr takes [S] or [S, C]. Where its rounding differs from ours by a sample, we trim, or pad with a zero.
    out = soxr.resample(np.ascontiguousarray(audio.T), from_hz, to_hz, quality="HQ").T[..., :length]
    missing = length - out.shape[-1]
    return np.ascontiguousarray(np.pad(out, [(0, 0)] * (out.ndim - 1) + [(0, missing)]), np.float32)


def pad_to_cells(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """[..., S] -> [..., S'] with zeros at the end, S' the next whole number of cells (40 ms)."""
    num_samples = audio.shape[-1]
    padding = num_cells(num_samples, sample_rate_hz) * samples_per_cell(sample_rate_hz) - num_samples
    return np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, padding)])
