"""Songs folders: SPLIT/ID/ with vocals, instrumental and song.json, which is there whole or not at all.

Axes: S samples.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.audio.files import write_audio
from hafm_jax.audio.music import SONG_FILE
from hafm_jax.common.files import unfinished, write_json, writing

SPLITS = ("train", "validation", "test")


def write_song(
    folder: Path,
    vocals: np.ndarray,
    instrumental: np.ndarray,
    sample_rate_hz: int,
    facts: Mapping[str, Any],
    suffix: str = ".wav",
) -> None:
    """Write a song under a name that begins with a dot, then rename its folder.

    vocals, instrumental: float32 [S] in -1..1, written with 16 bits in the format of `suffix` (.wav, .flac); facts: for
    song.json. Where another process has written the folder meanwhile, its song stays: it is the same.
    Raises OutputError where the folder cannot be written.
    """
    partial = unfinished(folder, "partial")
    try:
        with writing(folder):
            partial.mkdir(parents=True)
        write_audio(partial / f"vocals{suffix}", vocals, sample_rate_hz)
        write_audio(partial / f"instrumental{suffix}", instrumental, sample_rate_hz)
        write_json(partial / SONG_FILE, facts)
        with writing(folder):
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
