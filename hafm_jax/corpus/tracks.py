"""A track of a collection, and its stems as sound.

Axes: C channels, S samples.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.listing import Aside
from hafm_jax.corpus.reading import Source, read_source
from hafm_jax.corpus.screening import Reason, Unusable
from hafm_jax.streams import CELLS_PER_S


@dataclass(frozen=True)
class Track:
    """A recording: `mixture`, and where the corpus has stems, `vocals` and all others as `instrumental`.

    id: unique in the corpus, the same wherever the corpus is, a file name of letters, digits and underscores.
    licence: as the corpus states it, else None. facts: what else it states (artist, title).
    """

    id: str
    split: str
    mixture: Source
    vocals: Source | None = None
    instrumental: tuple[Source, ...] = ()
    licence: str | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.mixture, *([self.vocals] if self.vocals else []), *self.instrumental)


class Corpus(NamedTuple):
    """Tracks to work on, and those that the listing alone shows to be unusable; both sorted by id.

    found: all files of the collection; aside: those of them that belong to no track, the others belong to one.
    bad_rows: rows of the metadata that cannot be used, each with its line and the reason.
    """

    tracks: list[Track]
    unusable: list[Unusable]
    found: int = 0
    aside: Sequence[Aside] = ()
    bad_rows: Sequence[str] = ()


def track_id(label: str, key: str) -> str:
    """A safe file name: the readable part of `label`, and a hash of `key`, which makes it unique."""
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")[:48]
    return f"{readable}_{digest}" if readable else digest


class Stems(NamedTuple):
    """vocals, instrumental: float32 [C, S] of one shape."""

    vocals: np.ndarray
    instrumental: np.ndarray
    sample_rate_hz: int


def read_stems(track: Track, max_s: float = math.inf) -> Stems:
    """The track's vocals and the sum of its other stems; at most their first `max_s` seconds.

    Stems that differ by less than a cell (40 ms) are cut to the shortest. Raises InputError where the corpus gives no
    stems and as `read_source` does, Unusable where stems differ in rate, channels or length.
    """
    if track.vocals is None or not track.instrumental:
        raise InputError(f"track {track.id} has no stems, only a mixture; expected a corpus with stems: separate it")
    vocals, rate_hz = read_source(track.vocals, max_s)
    instrumental = np.zeros_like(vocals)
    for source in track.instrumental:
        stem, stem_hz = read_source(source, max_s)
        apart = abs(stem.shape[1] - instrumental.shape[1])
        if stem_hz != rate_hz or len(stem) != len(vocals) or apart * CELLS_PER_S > rate_hz:
            raise Unusable(
                Reason.STEMS_DIFFER,
                f"{_form(source, stem, stem_hz)}, {_form(track.vocals, vocals, rate_hz)}; expected one rate, length "
                f"(to {1000 // CELLS_PER_S} ms) and number of channels: export them again",
            )
        num_samples = min(stem.shape[1], instrumental.shape[1])
        instrumental = instrumental[:, :num_samples]
        instrumental += stem[:, :num_samples]
    return Stems(vocals[:, : instrumental.shape[1]], instrumental, rate_hz)


def _form(source: Source, audio: np.ndarray, rate_hz: int) -> str:
    stream = "" if source.stream is None else f" (stream {source.stream})"
    return f"{source.path.name}{stream} has {len(audio)} channels of {audio.shape[1]} samples at {rate_hz} Hz"
