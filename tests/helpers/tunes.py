"""Songs in folders: synthesised ones, and three tiny ones of plain sines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hafm_jax.audio import files
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ
from hafm_jax.synthesis.song import Song

RATE_HZ = 22_050


def write_song(folder: Path, song: Song) -> None:
    """A synthesised song with its facts, at the codec's rate."""
    folder.mkdir(parents=True)
    files.write_audio(folder / "vocals.flac", song.vocals, CODEC_SAMPLE_RATE_HZ)
    files.write_audio(folder / "instrumental.flac", song.instrumental, CODEC_SAMPLE_RATE_HZ)
    (folder / "song.json").write_text(json.dumps(song.info))


def tune(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    notes = np.repeat(rng.integers(48, 72, 8), int(seconds * RATE_HZ) // 8 + 1)[: int(seconds * RATE_HZ)]
    phase = np.cumsum(2 * np.pi * 440 * 2 ** ((notes - 69) / 12) / RATE_HZ)
    return 0.2 * np.sin(phase) + rng.normal(0, 0.003, notes.size)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for split, name, seconds, seed in [("train", "a", 2.0, 1), ("train", "b", 1.51, 2), ("validation", "c", 1.0, 3)]:
        (folder / split / name).mkdir(parents=True)
        files.write_audio(folder / split / name / "vocals.wav", tune(seconds, seed), RATE_HZ)
        files.write_audio(folder / split / name / "instrumental.wav", np.stack([tune(seconds, seed + 9)] * 2), RATE_HZ)
    return folder
