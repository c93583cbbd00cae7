"""What makes a track unfit for training: reasons as data, and the limits that a usable one keeps to.

Axes: S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

# Songs without features, and none with: then it is no longer the songs, and the run is stopped.
HOPELESS_SONGS = 8


class Reason(StrEnum):
    """Why a track makes no song."""

    DAMAGED = "damaged"
    SILENT = "silent"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    NO_SINGING = "no singing"
    DUPLICATE = "duplicate"
    NOT_IN_METADATA = "not in the metadata"
    TWO_LENGTHS = "stems of two lengths"
    NOT_FINITE = "features not finite"


class Reject(NamedTuple):
    """A track that makes no song. split: None where the corpus does not say; detail: one line."""

    id: str
    split: str | None
    reason: str
    detail: str


class Unfit(Exception):
    """A track is of no use: why, and one line of detail."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def rms_dbfs(audio: np.ndarray) -> float:
    """20 log10 of the root mean square of all samples: 0 for a full-scale square wave, -3.01 for a sine, -inf for
    silence. Any shape."""
    samples = np.asarray(audio).reshape(-1)
    power = np.einsum("s,s->", samples, samples, dtype=np.float64) / max(samples.size, 1)  # no float64 copy of it all
    return float(10 * np.log10(power)) if power > 0 else -math.inf


@dataclass(frozen=True)
class Limits:
    """What a usable track keeps to; each `check` raises Unfit where it does not."""

    min_s: float = 10.0  # a window of the paper's training: shorter songs would be left out there
    max_s: float = 1200.0  # bounds the memory that a track takes
    vocal_gate_dbfs: float = -25.0  # of the vocals, pauses included [paper]
    silence_dbfs: float = -60.0  # a mixture or a band below it is taken for none

    def check_length(self, seconds: float) -> None:
        if seconds < self.min_s:
            raise Unfit(Reason.TOO_SHORT, f"{seconds:.2f} s; expected {self.min_s:g} or more")
        if seconds > self.max_s:
            raise Unfit(Reason.TOO_LONG, f"more than {self.max_s:g} s")

    def check_sound(self, name: str, audio: np.ndarray) -> None:
        level_dbfs = rms_dbfs(audio)
        if level_dbfs < self.silence_dbfs:
            raise Unfit(Reason.SILENT, f"{name} at {level_dbfs:.1f} dBFS; expected {self.silence_dbfs:g} or more")

    def check_singing(self, vocals: np.ndarray) -> None:
        level_dbfs = rms_dbfs(vocals)
        if level_dbfs < self.vocal_gate_dbfs:
            raise Unfit(
                Reason.NO_SINGING, f"vocals at {level_dbfs:.1f} dBFS; expected {self.vocal_gate_dbfs:g} or more"
            )
