"""Sound as the bytes of a file: wav, flac and ogg (Vorbis) by libsndfile; opus and mp3 by FFmpeg.

The same sound and tags give the same bytes. libsndfile draws a number for each ogg, so FFmpeg, which is told to draw
none, packs its packets again.

Axes: C channels, S samples.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile

from hafm_jax.common.errors import InputError

BITS = {  # suffix -> bits a sample -> libsndfile's name; 32 is float, which clips nothing
    ".wav": {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"},
    ".flac": {16: "PCM_16", 24: "PCM_24"},
}
SAMPLES_AT_ONCE = 1 << 16
MOST_CHANNELS = {".wav": 64, ".flac": 8}  # of lossy formats 2: what all players read


class Lossy(NamedTuple):
    """container and codec by FFmpeg's names; rates_hz that the codec has, ascending; bits a second of a channel (ours:
    where the codecs are said to be transparent), 0 for libsndfile's own choice."""

    container: str
    codec: str
    rates_hz: tuple[int, ...]
    bits_per_s: int = 0


MPEG_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
LOSSY = {
    ".ogg": Lossy("ogg", "vorbis", MPEG_RATES_HZ),
    ".opus": Lossy("ogg", "libopus", (48_000,), 96_000),  # it knows others, and decoders give 48 kHz all the same
    ".mp3": Lossy("mp3", "libmp3lame", MPEG_RATES_HZ, 128_000),
}
SUFFIXES = (*BITS, *LOSSY)


def check_format(path: Path, bits: int = 16, channels: int = 1) -> None:
    """Raises InputError where no file of the suffix of `path` can be written, with these bits a sample and channels."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"cannot write {path}: found suffix '{path.suffix}', expected one of {', '.join(SUFFIXES)}")
    if bits not in BITS.get(suffix, (16,)):
        known = " or ".join(map(str, BITS.get(suffix, ()))) or "no number of bits, which lossy formats do not have"
        raise InputError(f"cannot write {path} with {bits} bits; expected {known}")
    if channels > (most := MOST_CHANNELS.get(suffix, 2)):
        raise InputError(f"cannot write {path} with {channels} channels; expected at most {most}: choose wav")


def written_rate_hz(suffix: str, rate_hz: int) -> int:
    """The rate of a file of the suffix for sound of `rate_hz`: of those that a lossy codec has, the next above."""
    lossy = LOSSY.get(suffix.lower())
    if lossy is None or rate_hz in lossy.rates_hz:
        return rate_hz
    return next((rate for rate in lossy.rates_hz if rate > rate_hz), lossy.rates_hz[-1])


def encode(
    out: io.IOBase, audio: np.ndarray, rate_hz: int, suffix: str, bits: int = 16, tags: Mapping[str, str] | None = None
) -> None:
    """Write audio float32 [C, S] to an open file, in the format of the suffix, with tags: title, comment, software.

    The rate is one of `written_rate_hz`. Samples beyond -1..1 are clipped, but not in float. Raises LibsndfileError,
    FFmpegError, AssertionError (soundfile's, on fewer samples written) and OSError where writing fails.
    """
    suffix, tags = suffix.lower(), tags or {}
    if suffix in BITS:
        _by_libsndfile(out, audio, rate_hz, suffix[1:].upper(), BITS[suffix][bits], tags)
        return
    lossy = LOSSY[suffix]
    with av.open(out, "w", format=lossy.container, options={"fflags": "+bitexact"}) as container:
        container.metadata.update(tags)
        if lossy.codec == "vorbis":
            packets = io.BytesIO()
            _by_libsndfile(packets, audio, rate_hz, "OGG", "VORBIS", {})
            packets.seek(0)
            with av.open(packets) as source:
                stream = container.add_stream_from_template(source.streams.audio[0])
                for packet in source.demux():
                    if packet.size:
                        packet.stream = stream
                        container.mux(packet)
            return
        layout = "mono" if len(audio) == 1 else "stereo"
        stream = container.add_stream(lossy.codec, rate_hz, layout=layout, options={"flags": "+bitexact"})
        stream.bit_rate = lossy.bits_per_s * len(audio)
        for start in range(0, audio.shape[1], SAMPLES_AT_ONCE):
            block = np.clip(audio[:, start : start + SAMPLES_AT_ONCE], -1, 1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", layout)
            frame.sample_rate, frame.pts = rate_hz, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _by_libsndfile(
    out: io.IOBase, audio: np.ndarray, rate_hz: int, kind: str, subtype: str, tags: Mapping[str, str]
) -> None:
    with soundfile.SoundFile(out, "w", rate_hz, len(audio), subtype, format=kind) as file:
        for name, text in tags.items():
            setattr(file, name, text)
        for start in range(0, audio.shape[1], SAMPLES_AT_ONCE):
            file.write(audio[:, start : start + SAMPLES_AT_ONCE].T)


def tags_of(path: str | os.PathLike) -> dict[str, str]:
    """The tags in an audio file, by lower-case name. Raises OSError or FFmpegError where it is not one."""
    with open(path, "rb") as file, av.open(file, metadata_errors="ignore") as container:
        found = dict(container.metadata)
        for stream in container.streams.audio:
            found |= stream.metadata
    return {name.lower(): text for name, text in found.items()}
