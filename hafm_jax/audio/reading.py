"""The reader of audio files: every sound that comes into this package comes through here.

PyAV (FFmpeg in a wheel) decodes all formats, since it is right where libsndfile is not. It reads m4a, webm and wma,
pipes, and files whose header does not say how long they are. After damage it continues, and the time that it gives for
each frame keeps what follows a hole in its place. Of lossless formats both return the same bits, in about the same
time.

A header is a claim. What a file holds is found by decoding it; a `Sound` has both. Containers that only estimate their
length (adts, webm, mp3 without a count of frames) claim nothing, nor does an ogg that is cut at its end.

Axes: C channels, S samples.
"""

from __future__ import annotations

import math
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from hafm_jax.audio.headers import WavHeader, counts_mp3_frames
from hafm_jax.common.errors import InputError
from hafm_jax.common.free_memory import host_free_bytes
from hafm_jax.common.system import NONBLOCK, STANDARD_INPUT

# All ours.
LEAST_RATE_HZ, MOST_RATE_HZ = 1_000, 1_000_000  # below, nothing of a voice is left; above, the header is wrong
MOST_CHANNELS = 64  # of microphone arrays and ambisonics
HIGHEST_SAMPLE = 2.0**31  # programs write floats in the scale of 32-bit integers, and none beyond it
TOLERANCE_S = 0.1  # claims include what encoders add: 6.5 ms in Opus, up to two frames of 26 ms in MP3
LEAST_HOLE_S = 0.01  # the times of webm are rounded to 1 ms
SAMPLES_A_BYTE = 8192  # at most: a FLAC of silence has 65,535 samples in 8 bytes or more
FIRST_PACKET, LONGEST_PACKET = 256, 8192  # samples, of Vorbis
MOST_FAILURES = 100  # to find the next packet of a damaged container
PIPE_PATIENCE_S = 2.0  # then the user is told that a pipe has sent nothing yet
BLOCK_BYTES = 1 << 16  # that are read at once, and of a pipe the first are seen before it is decoded

# FFmpeg's names of the containers that state the length of an audio stream; others estimate it.
STATE_LENGTHS = frozenset({"mov", "flac", "ogg", "aiff", "au", "caf", "w64", "wv", "tta", "ape"})
EDIT_LISTS = "mov"  # mp4, m4a: what follows the stated length is padding of the codec's last frame
NO_PIPE = "give a file: from a pipe some formats cannot be read"


class Sound(NamedTuple):
    """What a file holds, and what its header claims.

    audio: float32 [C, S], with silence in holes. claimed_s: the seconds that the header claims, of those that were
    asked for; None where it claims nothing. holes: (start, end) in seconds of `audio`, where sound is missing.
    """

    audio: np.ndarray
    sample_rate_hz: int
    claimed_s: float | None
    holes: tuple[tuple[float, float], ...]

    @property
    def damage(self) -> str:
        """What is missing, as the predicate of a sentence about the file; empty where it is whole."""
        length_s = self.audio.shape[1] / self.sample_rate_hz
        found_s = length_s - sum(end - start for start, end in self.holes)
        claimed_s = max(self.claimed_s or 0.0, length_s)
        if claimed_s - found_s <= TOLERANCE_S:
            return ""
        starts = ", ".join([f"{start:.2f} s" for start, _ in self.holes[:3]] + ["..."] * (len(self.holes) > 3))
        holes = f" (silence is in the place of what is missing at {starts})" if self.holes else ""
        return f"holds {found_s:.2f} s of the {claimed_s:.2f} s that it claims{holes}"


def read_sound(path: str | os.PathLike, max_s: float = math.inf, stream: int = 0) -> Sound:
    """All that an audio file or a pipe holds, or its first `max_s` seconds; of a container, its `stream`-th audio.

    While a pipe sends nothing, a note on stderr says so. Raises InputError where the file does not exist or cannot be
    opened, is not audio, is empty, has a rate or a number of channels that no voice has, holds NaN, infinity or numbers
    beyond HIGHEST_SAMPLE, and where its audio needs more than half of the free memory: no more than that is read.
    """
    pieces: list[np.ndarray] = []  # [C, S] each
    holes = []
    num_samples = num_bad = 0
    highest = 0.0
    with _decoder(Path(path), stream, max_s) as decoder:
        for missing, piece in decoder.pieces():
            if missing:
                holes.append((num_samples / decoder.sample_rate_hz, (num_samples + missing) / decoder.sample_rate_hz))
                pieces.append(np.zeros((len(piece), missing), np.float32))
            finite = np.isfinite(piece)
            num_bad += piece.size - np.count_nonzero(finite)
            highest = max(highest, float(np.abs(piece).max(initial=0.0, where=finite)))
            pieces.append(piece)
            num_samples += missing + piece.shape[1]
    if not num_samples:
        remedy = "record or export it again" if decoder.is_file else NO_PIPE
        raise InputError(f"{path} holds no samples; expected audio: {remedy}")
    if num_bad:
        raise InputError(
            f"{path} holds {num_bad} samples that are NaN or infinite; expected numbers in -1..1: export it again"
        )
    if highest > HIGHEST_SAMPLE:
        raise InputError(
            f"{path} holds samples of up to {highest:.1e}; expected numbers in -1..1, or in the scale of integers of "
            "32 bits or fewer: export it again"
        )
    audio = np.concatenate(pieces, axis=1)
    if excess := decoder.excess(num_samples):
        audio = np.pad(audio[:, : num_samples - max(0, excess)], [(0, 0), (0, max(0, -excess))])
    return Sound(audio, decoder.sample_rate_hz, decoder.claimed_s, tuple(holes))


def read_audio(path: str | os.PathLike, max_s: float = math.inf, stream: int = 0) -> tuple[np.ndarray, int]:
    """`read_sound` of a whole file: float32 [C, S] and its rate in Hz.

    Raises InputError also where the path is a pipe or a device, and where a part of what the file claims is missing.
    """
    _check_no_pipe(Path(path))
    sound = read_sound(path, max_s, stream)
    if sound.damage:
        raise InputError(f"{path} {sound.damage}; expected a whole file: copy or export it again")
    return sound.audio, sound.sample_rate_hz


def length_s(path: str | os.PathLike) -> float:
    """Seconds of audio in a file: by its header, or found by decoding it where the header does not say.

    Raises InputError as `read_audio` does, except for what is wrong with the samples.
    """
    _check_no_pipe(Path(path))
    with _decoder(Path(path), 0, math.inf) as decoder:
        if decoder.claimed_s is not None:
            return decoder.claimed_s
        return sum(missing + piece.shape[1] for missing, piece in decoder.pieces()) / decoder.sample_rate_hz


# ------------------------------------------------------------------------------------------------------------ opening


def _check_no_pipe(path: Path) -> None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # opening it will say why
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path} is a pipe or a device; expected an audio file: give the path of one")


def _open(path: Path) -> BufferedReader:
    try:
        if sys.platform == "win32" and str(path) == str(Path(STANDARD_INPUT)):  # it has no name there
            file = open(os.dup(0), "rb", BLOCK_BYTES)
        else:
            is_pipe = stat.S_ISFIFO(os.stat(path).st_mode)
            file = open(_open_pipe(path) if is_pipe else path, "rb", BLOCK_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; expected an audio file: check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; expected an audio file: give the path of a file in it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be opened ({reason}); expected an audio file: check the path") from error
    if file.isatty():
        file.close()
        raise InputError(f"{path} is a terminal; expected audio: give a file or a pipe")
    return file


def _open_pipe(path: Path) -> int:
    """A descriptor that has something to read, or whose other end is closed."""
    descriptor = os.open(path, os.O_RDONLY | NONBLOCK)  # else opening waits for a writer, without a word
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(1000 * PIPE_PATIENCE_S):
        print(f"waiting for audio from the pipe {path}", file=sys.stderr, flush=True)
        poll.poll()
    os.set_blocking(descriptor, True)
    return descriptor


@contextmanager
def _decoder(path: Path, number: int, max_s: float) -> Iterator[_Decoder]:
    """Raises InputError for all that goes wrong inside it, too."""
    with _open(path) as file:
        try:
            if not file.peek(1):
                raise InputError(f"{path} is empty (0 bytes); expected audio: record or copy it again")
            wav, counts_frames = WavHeader.of(file), counts_mp3_frames(file)
            if wav:  # FFmpeg would look for sound in 65,535 channels for 9 s
                _check_shape(path, wav.sample_rate_hz, wav.channels)
            options = {"ignore_length": "1"} if wav and wav.sound_follows(file) else {}
            # Through the open file no playlist leads to another one; tags may be in any encoding.
            with av.open(file, "r", options=options, metadata_errors="ignore") as container:
                streams = container.streams.audio
                if number >= len(streams):
                    raise ValueError(f"it has {len(streams)} audio streams")
                yield _Decoder(path, file, container, streams[number], max_s, wav, counts_frames)
        except (av.error.FFmpegError, OSError, ValueError) as error:  # ValueError also where the rate changes midway
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            where = f"{path} (stream {number})" if number else path
            remedy = "convert it to one" if file.seekable() else NO_PIPE
            raise InputError(
                f"{where} cannot be read as audio ({reason}); expected wav, flac, mp3, m4a, ogg or the like: {remedy}"
            ) from error


# ------------------------------------------------------------------------------------------------------------ decoding


def _check_shape(path: Path, sample_rate_hz: int, channels: int) -> None:
    if not LEAST_RATE_HZ <= sample_rate_hz <= MOST_RATE_HZ:
        raise InputError(
            f"{path} has {sample_rate_hz} samples a second; expected {LEAST_RATE_HZ} to {MOST_RATE_HZ}: export it again"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise InputError(
            f"{path} has {channels} channels; expected 1 to {MOST_CHANNELS}: export it again in mono or stereo"
        )


class _Decoder:
    """An audio stream of an open container, from time 0 on. `sample_rate_hz` is known once a piece was decoded."""

    def __init__(self, path, file, container, stream, max_s: float, wav: WavHeader | None, counts_frames: bool) -> None:
        if stream.codec_context is None:
            raise ValueError("there is no decoder for its samples")
        self._path, self._container, self._stream, self._max_s = path, container, stream, max_s
        self.sample_rate_hz = stream.codec_context.sample_rate
        self._channels = stream.codec_context.channels
        free_bytes = host_free_bytes()
        self._most_bytes = sys.maxsize if free_bytes is None else free_bytes // 2  # resampling holds audio twice
        stream.codec_context.options = {"err_detect": "crccheck+explode"}  # else a damaged frame of a FLAC is noise
        formats = container.format.name.split(",")
        states_length = STATE_LENGTHS.intersection(formats) or ("mp3" in formats and counts_frames)
        stated_s = float(stream.duration * stream.time_base) if states_length and stream.duration else None
        self._end_s = stated_s if EDIT_LISTS in formats else None
        self._is_vorbis = "ogg" in formats and "vorbis" in stream.codec_context.name
        claimed_s = wav.claimed_s if wav else stated_s
        self.claimed_s = None if claimed_s is None else min(claimed_s, max_s)
        _check_shape(path, self.sample_rate_hz, self._channels)
        self.is_file = file.seekable()
        if self.claimed_s is not None and self.is_file:
            # A claim that the file is too small for is not believed; what it holds is checked as it is read.
            most = SAMPLES_A_BYTE
            if stream.codec_context.name.startswith("pcm_"):
                most = 1 / self._channels
            possible = os.fstat(file.fileno()).st_size * most
            self._check_memory(min(math.ceil(self.claimed_s * self.sample_rate_hz), possible))

    def _check_memory(self, num_samples: float) -> None:
        needed = 4 * self._channels * num_samples
        if needed > self._most_bytes:
            seconds = num_samples / self.sample_rate_hz
            raise InputError(
                f"{self._path} has {seconds:.0f} s or more of {self._channels} channels at {self.sample_rate_hz} Hz, "
                f"{needed / 1e9:.2f} GB of audio; expected at most {self._most_bytes / 1e9:.2f} GB, half of the free "
                "memory: read its beginning alone, cut it into parts, or mix it to mono"
            )

    def pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        """(samples that are missing before it, audio float32 [C, S]) of each frame."""
        # "flt" and not its planar twin, of which PyAV sees eight channels; neither rate nor channels change.
        to_float = av.AudioResampler(format="flt")
        num_samples, wanted, expected = 0, sys.maxsize, None
        for frame in self._frames():
            if expected is None:
                self.sample_rate_hz, self._channels = frame.sample_rate, frame.layout.nb_channels
                _check_shape(self._path, self.sample_rate_hz, self._channels)  # the header's rate may be half of it
                if self._max_s * self.sample_rate_hz < wanted:
                    wanted = round(self._max_s * self.sample_rate_hz)
                if self._end_s is not None:
                    wanted = min(wanted, math.ceil(self._end_s * self.sample_rate_hz))
                start = self._stream.start_time if self._stream.start_time is not None else frame.pts or 0
                expected = self._in_samples(max(0, start), self._stream.time_base)
            begin = expected if frame.pts is None else self._in_samples(frame.pts, frame.time_base)
            least_s = LEAST_HOLE_S if num_samples else TOLERANCE_S
            missing = min(begin - expected, wanted - num_samples)
            if missing <= least_s * self.sample_rate_hz:
                missing = 0
            expected = begin + frame.samples
            audio = np.concatenate([part.to_ndarray() for part in to_float.resample(frame)], axis=1)  # [1, S C]
            num_samples += missing
            audio = audio.reshape(-1, self._channels)[max(0, -begin) :][: wanted - num_samples]
            num_samples += len(audio)
            self._check_memory(num_samples)
            yield missing, np.ascontiguousarray(audio.T)
            if num_samples >= wanted:
                return

    def excess(self, num_samples: int) -> int:
        """Samples that were decoded beyond the stated length, or are missing at it if less than 0: in a Vorbis file of
        one page FFmpeg is wrong about the end by the first packet, up to 32 ms."""
        if not self._is_vorbis or self.claimed_s is None:
            return 0
        excess = num_samples - round(self.claimed_s * self.sample_rate_hz)
        # Much more is another stream, chained to the first; much less is damage.
        return excess if -FIRST_PACKET <= excess <= LONGEST_PACKET else 0

    def _in_samples(self, time: int, unit_s: Fraction) -> int:
        return round(time * unit_s * self.sample_rate_hz)

    def _frames(self) -> Iterator[av.AudioFrame]:
        """Those that can be decoded: behind damage, of the container or of a packet, there may be whole ones."""
        failures = 0  # in a row
        while failures < MOST_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    try:
                        frames = packet.decode()
                    except av.error.InvalidDataError:
                        continue
                    yield from frames
                return
            except av.error.InvalidDataError:
                failures += 1
                if self.claimed_s is None:  # nothing else would tell that something is missing
                    raise
