"""Audio for the tokenizers and to files: resample, pad to cells, write; the stems of a songs folder.

Audio is float32 in -1..1 everywhere in hafm_jax, channels first.

Axes: C channels, S samples.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from hafm_jax.audio import encoding
from hafm_jax.audio.reading import read_audio
from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.common.files import replacing
from hafm_jax.common.outputs import check_files
from hafm_jax.streams import num_cells, samples_per_cell

MAKE_SONGS = "make one with tokenize/synthesize_songs.py or tokenize/separate_stems.py"
CANCELLED = 0.25  # ours: channels cancel where their mean loses more than 6 dB by their signs
SAMPLES_AT_ONCE = 1 << 16
STEM_SUFFIXES = (".wav", ".flac")  # of songs: what keeps every sample


def read_mono(path: str | os.PathLike, sample_rate_hz: int, max_s: float = math.inf) -> np.ndarray:
    """`reading.read_audio` as mono at `sample_rate_hz`: float32 [S]."""
    audio, found_hz = read_audio(path, max_s)
    return resample(to_mono(audio), found_hz, sample_rate_hz)


def check_writable(paths: Collection[Path], bits: int = 16, channels: int = 1) -> None:
    """Raises InputError where `write_audio` would fail for one of `paths`: to be called before long work, not after."""
    for path in paths:
        encoding.check_format(path, bits, channels)
    check_files(paths)


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


def write_audio(
    path: str | os.PathLike,
    audio: np.ndarray,
    sample_rate_hz: int,
    bits: int = 16,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write `audio` [S] or [C, S] in the format that the suffix names: .wav (`bits` 16, 24, or 32, which is float),
    .flac (16, 24), .ogg (Vorbis), .opus, .mp3; a lossy one at the next rate that it has. tags: title, comment,
    software.

    It is written under a temporary name in the same folder and then renamed: a reader never sees half a file, and an
    exception leaves nothing behind. Samples beyond -1..1 are clipped, but not in float. Raises InputError on another
    suffix, OutputError where the place cannot be written, ValueError on NaN or infinity.
    """
    path = Path(path)
    audio = np.asarray(audio, np.float32)
    if audio.ndim not in (1, 2):
        raise ValueError(f"audio of shape {audio.shape}; expected [S] or [C, S]")
    audio = np.atleast_2d(audio)
    encoding.check_format(path, bits, len(audio))
    if not np.isfinite(audio).all():
        raise ValueError(f"audio for {path} holds NaN or infinity")
    rate_hz = encoding.written_rate_hz(path.suffix, sample_rate_hz)
    audio = resample(audio, sample_rate_hz, rate_hz)
    with replacing(path) as temporary, _NotingFile(temporary, "w+") as out:
        try:
            encoding.encode(out, audio, rate_hz, path.suffix, bits, tags)
        except (soundfile.LibsndfileError, av.FFmpegError, AssertionError) as error:
            # AssertionError: soundfile's, on fewer samples than there are
            raise out.error or OutputError(f"cannot write {path} ({error}); expected another format") from error
        if out.error:  # while it was closed
            raise out.error


def stem_file(folder: str | os.PathLike, stem: str) -> Path:
    """The file of a stem ("vocals" or "instrumental") in a song's folder. InputError unless there is exactly one."""
    found = [path for suffix in STEM_SUFFIXES if (path := Path(folder) / f"{stem}{suffix}").is_file()]
    if len(found) != 1:
        raise InputError(
            f"{folder} holds {' and '.join(path.name for path in found) or f'no {stem}'}; expected one of "
            f"{', '.join(stem + suffix for suffix in STEM_SUFFIXES)}: {MAKE_SONGS}"
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
    folders = {path.parent for suffix in STEM_SUFFIXES for path in root.glob(f"{depth}/{stem}{suffix}")}
    return {path for path in folders if not path.name.startswith(".")}


def to_mono(audio: np.ndarray) -> np.ndarray:
    """[S] or [C, S] -> float32 [S], the mean of the channels. Channels that would cancel are turned over first."""
    audio = np.asarray(audio, np.float32)
    if audio.ndim == 1 or len(audio) == 1:
        return audio.reshape(-1)
    signs = _signs(audio)
    if (signs > 0).all():
        return audio.mean(axis=0)
    total = audio[signs > 0].sum(axis=0)
    total -= audio[signs < 0].sum(axis=0)
    return total / np.float32(len(audio))


def _signs(audio: np.ndarray) -> np.ndarray:
    """1 or -1 for each channel, [C]: all 1, as for ordinary stereo, unless the plain mean has less than CANCELLED of
    the power that the signs of their principal component give. The first strong channel keeps its sign.
    """
    mean = audio.sum(axis=1, dtype=np.float64, keepdims=True) / max(audio.shape[1], 1)
    covariance = np.zeros((len(audio), len(audio)))
    for start in range(0, audio.shape[1], SAMPLES_AT_ONCE):
        block = audio[:, start : start + SAMPLES_AT_ONCE] - mean
        covariance += block @ block.T
    component = np.linalg.eigh(covariance)[1][:, -1]
    first = np.argmax(np.abs(component) > 0.1 * np.abs(component).max())
    signs = np.where(component * component[first] < 0, -1.0, 1.0)
    plain, aligned = covariance.sum(), signs @ covariance @ signs
    return signs if plain < CANCELLED * aligned else np.ones(len(audio))


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
