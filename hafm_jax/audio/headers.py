"""What the headers of WAV and MP3 say about the length, where FFmpeg keeps it to itself.

For a WAV it takes the shorter of the header's length and the file's; for an MP3 it does not say whether it read the
number of frames or guessed it from the bit rate.
"""

from __future__ import annotations

import os
import re
import struct
from io import BufferedReader
from typing import NamedTuple

UNCOMPRESSED = (1, 3, 6, 7, 0xFFFE)  # format tags: integers, floats, A-law, mu-law, extensible
LEAST_TAIL_S = 0.1  # ours: less after the data is no sound


class WavHeader(NamedTuple):
    """Of the data: its place in bytes, its size by the header, the bytes of a second; None where that is not known."""

    sample_rate_hz: int
    channels: int
    start: int
    size: int | None
    bytes_per_s: int | None

    @classmethod
    def of(cls, file: BufferedReader) -> WavHeader | None:
        """Of a file that has not been read yet. None where it is not a WAV, or lacks the chunks of one."""
        riff = _bytes_at(file, 0, 12)
        if riff[:4] not in (b"RIFF", b"RF64", b"BW64") or riff[8:] != b"WAVE":
            return None
        place, long_size, form = 12, None, None
        while len(chunk := _bytes_at(file, place, 24)) >= 8:
            name, size = struct.unpack_from("<4sI", chunk)
            if name == b"data" and form is None:
                return None
            if name == b"data":
                tag, channels, rate_hz, _, frame_bytes = form
                bytes_per_s = rate_hz * frame_bytes or None if tag in UNCOMPRESSED else None
                if long_size is not None and size == 0xFFFFFFFF:
                    return cls(rate_hz, channels, place + 8, long_size, bytes_per_s)
                # It was written to a pipe, or never finished: 0, ffmpeg's, and those from sox's to arecord's.
                unknown = size in (0, 0xFFFFFFFF) or 0x7FFFF000 <= size <= 0x80000000
                return cls(rate_hz, channels, place + 8, None if unknown else size, bytes_per_s)
            if name == b"ds64" and len(chunk) == 24:
                (long_size,) = struct.unpack_from("<Q", chunk, 16)
            if name == b"fmt " and len(chunk) == 24:
                form = struct.unpack_from("<HHIIH", chunk, 8)
            place += 8 + size + size % 2
        return None

    @property
    def claimed_s(self) -> float | None:
        return None if self.size is None or self.bytes_per_s is None else self.size / self.bytes_per_s

    def sound_follows(self, file: BufferedReader) -> bool:
        """Whether there is sound behind the data's stated end, as where a recorder was stopped before it could correct
        its header. What else may be there, other chunks, begins with a name of four printable characters."""
        if self.claimed_s is None or not file.seekable():
            return False
        end = self.start + self.size + self.size % 2
        tail = os.fstat(file.fileno()).st_size - end
        return tail > LEAST_TAIL_S * self.bytes_per_s and not re.fullmatch(rb"[ -~]{4}", _bytes_at(file, end, 4))


def counts_mp3_frames(file: BufferedReader) -> bool:
    """Whether a file that has not been read yet would, as an MP3, begin with the number of its frames."""
    head, place = _bytes_at(file, 0, 10), 0
    if head[:3] == b"ID3" and len(head) == 10:  # its size is in the last four bytes, seven bits each
        place = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return bool(re.search(rb"VBRI|(Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]", _bytes_at(file, place, 256)))


def _bytes_at(file: BufferedReader, place: int, number: int) -> bytes:
    """Of a pipe, only those that are in its buffer."""
    if not file.seekable():
        return file.peek()[place : place + number]
    file.seek(place)
    found = file.read(number)
    file.seek(0)
    return found
