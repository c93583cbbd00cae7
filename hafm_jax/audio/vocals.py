"""The vocal as it is given: a file, a pipe, or an array with its rate. Whatever is not a vocal is refused here.

Axes: C channels, S samples.
"""

from __future__ import annotations

import hashlib
import math
import os
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.audio.reading import HIGHEST_SAMPLE, LEAST_RATE_HZ, MOST_RATE_HZ, read_sound
from hafm_jax.audio.voice import is_silent
from hafm_jax.common.errors import InputError
from hafm_jax.common.options import check_number
from hafm_jax.common.system import STANDARD_INPUT
from hafm_jax.streams import CELLS_PER_S

MOST_CHANNELS = 8  # of an array, whose short axis is its channels
FORMS = "expected the path of an audio file, or (array, rate in Hz)"
LAYOUTS = "expected [samples], [samples, channels] or [channels, samples], with at most 8 channels"


@dataclass(frozen=True, eq=False)
class Vocal:
    """A vocal: audio float32 [C, S] at `rate_hz`, as it came. name: the file's, "array" of an array; damage: what
    is missing in the file (`Sound.damage`)."""

    audio: np.ndarray
    rate_hz: int
    name: str = "array"
    damage: str = ""

    @property
    def seconds(self) -> float:
        return self.audio.shape[1] / self.rate_hz

    @property
    def notes(self) -> list[str]:
        """Sentences on what is wrong with it, though it can be used."""
        found = [f"{self.name} {self.damage}: the band is as long as what was read"] if self.damage else []
        if is_silent(self.audio, self.rate_hz):
            found.append(f"{self.name} is silent: the band has no voice to follow")
        return found

    @cached_property
    def sha256(self) -> str:
        """Of what was read, in hexadecimal: shape, rate and samples, so that tags of a file do not count."""
        digest = hashlib.sha256(f"{self.audio.shape} {self.rate_hz}".encode())
        digest.update(np.ascontiguousarray(self.audio, "<f4"))
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """What a result says of its vocal, JSON-able. The name is without its folders, which may be private."""
        return {
            "name": self.name if self.name == "array" else Path(self.name).name,
            "sha256": self.sha256,
            "seconds": self.seconds,
            "rate_hz": self.rate_hz,
            "channels": len(self.audio),
        }


def read_vocal(path: str | os.PathLike, seconds: float | None = None) -> Vocal:
    """The vocal of an audio file or a pipe ("-" is the standard input), or its first `seconds`.

    Raises InputError where it cannot be read or is shorter than a cell.
    """
    name = os.fspath(path)
    sound = read_sound(STANDARD_INPUT if name == "-" else name, math.inf if seconds is None else seconds)
    _check_length(name, sound.audio.shape[1], sound.sample_rate_hz)
    return Vocal(sound.audio, sound.sample_rate_hz, name, sound.damage)


def _check_length(name: str, num_samples: int, rate_hz: int) -> None:
    if num_samples * CELLS_PER_S < rate_hz:
        raise InputError(f"{name} is {1000 * num_samples / rate_hz:.0f} ms long; expected at least one cell of 40 ms")


def vocal_of(given: Any) -> Vocal:
    """A vocal from what a caller gives: a path, (array, rate in Hz) or a Vocal.

    Arrays are [S], [S, C] or [C, S] (the short axis, 8 at most, is the channels): floats in -1..1, or integers of 8, 16
    or 32 bits, which are scaled to it. Raises InputError for everything else.
    """
    if isinstance(given, Vocal):
        return given
    if isinstance(given, str | Path):
        return read_vocal(given)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError(f"the vocal is {_described(given)}; {FORMS}")
    array, rate_hz = given
    check_number("the vocal's rate in Hz", rate_hz, int, LEAST_RATE_HZ, MOST_RATE_HZ)
    audio = _in_range(_as_array(array))
    if audio.ndim == 1:
        audio = audio[None]
    if audio.ndim != 2 or not audio.size or min(audio.shape) > MOST_CHANNELS:
        raise InputError(f"the vocal's array has the shape {list(np.shape(array))}; {LAYOUTS}: transpose or cut it")
    if audio.shape[0] > audio.shape[1]:
        audio = audio.T
    _check_length("the vocal's array", audio.shape[1], rate_hz)
    return Vocal(np.array(audio, np.float32, order="C"), int(rate_hz))


def _described(given: Any) -> str:
    return f"a {type(given).__name__}" if isinstance(given, np.ndarray) else reprlib.repr(given)


def _as_array(given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors of other libraries that refuse
        raise InputError(f"the vocal's array cannot be read as one ({error}); {LAYOUTS}") from error
    if array.dtype.kind not in "fiu" or array.itemsize > (8 if array.dtype.kind == "f" else 4):
        raise InputError(
            f"the vocal's array has the dtype {array.dtype}; expected floats in -1..1, or integers of 8, 16 or 32 "
            "bits: convert it"
        )
    return array


def _in_range(array: np.ndarray) -> np.ndarray:
    """As finite floats."""
    if array.dtype.kind in "iu":
        half = 2.0 ** (8 * array.itemsize - 1)
        return (array.astype(np.float64) - half * (array.dtype.kind == "u")) / half
    if not np.isfinite(array).all():
        raise InputError("the vocal's array holds NaN or infinity; expected numbers in -1..1")
    if array.size and (highest := float(np.abs(array).max())) > HIGHEST_SAMPLE:
        raise InputError(f"the vocal's array holds numbers up to {highest:.1e}; expected them in -1..1: scale it")
    return array
