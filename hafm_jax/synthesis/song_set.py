"""Synthesised songs in a songs folder: which song has which seed, and which are there already."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hafm_jax.audio.songs import write_song
from hafm_jax.common.files import make_folder
from hafm_jax.common.resume import check_same_run
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ
from hafm_jax.synthesis.song import song_seed, synthesize_song


class SongTask(NamedTuple):
    """One song to write."""

    out: Path
    split: str
    index: int
    base_seed: int
    seconds: float

    @property
    def folder(self) -> Path:
        return self.out / self.split / f"song_{self.index:06d}"


def tasks_left(out: Path, counts: Mapping[str, int], base_seed: int, seconds: float) -> list[SongTask]:
    """The songs that are not there yet of `counts` songs a split. Makes `out`, for songs of this seed and length.

    What a killed run left of unfinished songs is removed.
    Raises InputError where `out` holds songs of another seed or length, or cannot be written.
    """
    make_folder(out, "--out")
    check_same_run(out, {"seed": base_seed, "seconds": seconds})
    for partial in out.glob("*/.song_*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    tasks = [SongTask(out, split, k, base_seed, seconds) for split, count in counts.items() for k in range(count)]
    return [task for task in tasks if not task.folder.exists()]


def make_song(task: SongTask) -> None:
    """Synthesise a song and write its folder. Raises InputError where it cannot be written."""
    song = synthesize_song(song_seed(task.split, task.index, task.base_seed), task.seconds, CODEC_SAMPLE_RATE_HZ)
    write_song(task.folder, song.vocals, song.instrumental, CODEC_SAMPLE_RATE_HZ, song.info)
