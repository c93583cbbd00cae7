"""Media files for tests, encoded by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_media(
    path: Path,
    streams: Sequence[np.ndarray],
    rate_hz: int,
    codec: str = "alac",
    container: str | None = None,
    **options,
) -> Path:
    """Audio streams [C, S] of one or two channels in one file; `container` is what the suffix names if None."""
    with av.open(f"file:{path}", "w", format=container) as file:
        layouts = ["mono" if len(audio) == 1 else "stereo" for audio in streams]
        added = [file.add_stream(codec, rate=rate_hz, layout=layout, **options) for layout in layouts]
        for stream, layout, audio in zip(added, layouts, streams, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio, np.float32), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                file.mux(packet)
    return path
