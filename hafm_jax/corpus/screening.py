"""Tracks and songs that are of no use for training: reasons as data, and the limits that a usable one keeps to.

Axes: S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # where it is used it is imported, so that a command's --help need not wait for it
    import numpy as np

# Ours: if so many songs have no features and not one has any, the fault is not in the songs, and the run is stopped.
HOPELESS_SONGS = 8


class Reason(StrEnum):
    """Why a track makes no song, or a song no record."""

    DAMAGED = "damaged"
    EMPTY = "empty"
    MISSING = "file missing"
    NO_PERMISSION = "no permission"
    SILENT = "silent"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    NO_SINGING = "no singing"
    DUPLICATE = "duplicate"
    NOT_IN_METADATA = "not in the metadata"
    BAD_ROW = "bad row of the metadata"
    STEMS_DIFFER = "stems differ"
    NOT_A_SONG = "not a song"
    NOT_FINITE = "features not finite"


class Unusable(Exception):
    """A track or song that is left out: raised where the reason is found, kept in reports once its id is known.

    detail: one line. split: None where the collection does not name one.
    """

    def __init__(self, reason: str, detail: str, id: str = "", split: str | None = None) -> None:
        super().__init__(reason, detail, id, split)  # all that pickling restores
        self.reason, self.detail, self.id, self.split = reason, detail, id, split

    def of(self, id: str, split: str | None) -> Unusable:
        """The same, of this track or song."""
        return Unusable(self.reason, self.detail, id, split)

    def facts(self) -> dict[str, Any]:
        """As reports hold it: id, split, reason, detail."""
        return {"id": self.id, "split": self.split, "reason": self.reason, "detail": self.detail}


def check_file(path: Path) -> None:
    """Raises Unusable where the file is missing, cannot be opened for want of permission, or is empty: readers of audio
    would call each of them damaged."""
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError as error:
        raise Unusable(Reason.MISSING, f"{path.name} does not exist") from error
    except PermissionError as error:
        raise Unusable(Reason.NO_PERMISSION, f"{path.name} cannot be opened ({error.strerror})") from error
    except OSError:
        return  # its reader says what the disk says
    if is_empty:
        raise Unusable(Reason.EMPTY, f"{path.name} has 0 bytes")


def rms_dbfs(audio: np.ndarray) -> float:
    """20 log10 of the root mean square of all samples: 0 for a full-scale square wave, -3.01 for a sine, -inf for
    silence. Any shape."""
    import numpy as np

    samples = np.asarray(audio).reshape(-1)
    power = np.einsum("s,s->", samples, samples, dtype=np.float64) / max(samples.size, 1)  # without a float64 copy
    return float(10 * np.log10(power)) if power > 0 else -math.inf


@dataclass(frozen=True)
class Limits:
    """The limits of a usable track; each `check` raises Unusable where it is outside them."""

    min_s: float = 10.0  # a window of the paper's training: shorter songs would be left out there
    max_s: float = 1200.0  # bounds the memory that a track needs
    vocal_gate_dbfs: float = -25.0  # of the vocals, pauses included [paper]
    silence_dbfs: float = -60.0  # a mixture or a band below it counts as silent

    def check_length(self, seconds: float) -> None:
        if seconds < self.min_s:
            raise Unusable(Reason.TOO_SHORT, f"{seconds:.2f} s; expected {self.min_s:g} or more")
        if seconds > self.max_s:
            raise Unusable(Reason.TOO_LONG, f"more than {self.max_s:g} s")

    def check_sound(self, name: str, audio: np.ndarray) -> None:
        level_dbfs = rms_dbfs(audio)
        if level_dbfs < self.silence_dbfs:
            raise Unusable(Reason.SILENT, f"{name} at {level_dbfs:.1f} dBFS; expected {self.silence_dbfs:g} or more")

    def check_singing(self, vocals: np.ndarray) -> None:
        level_dbfs = rms_dbfs(vocals)
        if level_dbfs < self.vocal_gate_dbfs:
            raise Unusable(
                Reason.NO_SINGING, f"vocals at {level_dbfs:.1f} dBFS; expected {self.vocal_gate_dbfs:g} or more"
            )
