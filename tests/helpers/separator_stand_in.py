"""A stand-in for hafm_jax.corpus.separators without networks or weights: the vocals are 0.6 of the channels' mean.

With STAND_IN_LOG set, each process and each separation is logged there; with STAND_IN_HOLD=N too, the separations after
the N-th wait for a file beside the log whose name ends in .go.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from hafm_jax.common.errors import InputError

VOCAL_SHARE = np.float32(0.6)


class StandIn:
    sample_rate_hz = 44_100

    def __init__(self, kind: str, weights: str) -> None:
        self.sha256 = hashlib.sha256(f"{kind}/{weights}".encode()).hexdigest()
        note(f"process {os.getpid()}")

    def separate(self, mixture: np.ndarray) -> np.ndarray:
        assert mixture.dtype == np.float32 and mixture.shape[0] == 2
        note(f"separation {mixture.shape[1]}")
        hold()
        return np.repeat(VOCAL_SHARE * mixture.mean(axis=0, keepdims=True), 2, axis=0)


def load_separator(kind: str, weights: str, sha256: str | None = None, device: str | None = None) -> StandIn:
    separator = StandIn(kind, weights)
    if sha256 not in (None, separator.sha256):
        raise InputError(f"the weights' sha256 is {separator.sha256}; expected {sha256}")
    return separator


def note(line: str) -> None:
    if path := os.environ.get("STAND_IN_LOG"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def hold() -> None:
    if number := os.environ.get("STAND_IN_HOLD"):
        log = Path(os.environ["STAND_IN_LOG"])
        if log.read_text().count("separation") > int(number):
            while not log.with_suffix(".go").exists():
                time.sleep(0.02)
