"""Songs in folders: synthesised ones, and three tiny ones of plain sines; stems and sines."""

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


def sine(f_hz: float, seconds: float, rate_hz: int = 24_000, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * f_hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def write_stems(folder: Path, vocals: np.ndarray, instrumental: np.ndarray, rate_hz: int = RATE_HZ) -> None:
    """The stems of a song as a songs folder holds them."""
    folder.mkdir(parents=True)
    files.write_audio(folder / "vocals.wav", vocals, rate_hz)
    files.write_audio(folder / "instrumental.wav", instrumental, rate_hz)


def read_stems(folder: Path) -> list[tuple[np.ndarray, int]]:
    """(samples [C, S], rate in Hz) of the vocals and of the instrumental."""
    return [files.read_audio(files.stem_file(folder, stem)) for stem in ("vocals", "instrumental")]


def tune(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    notes = np.repeat(rng.integers(48, 72, 8), int(seconds * RATE_HZ) // 8 + 1)[: int(seconds * RATE_HZ)]
    phase = np.cumsum(2 * np.pi * 440 * 2 ** ((notes - 69) / 12) / RATE_HZ)
    return 0.2 * np.sin(phase) + rng.normal(0, 0.003, notes.size)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for split, name, seconds, seed in [("train", "a", 2.0, 1), ("train", "b", 1.51, 2), ("validation", "c", 1.0, 3)]:
        write_stems(folder / split / name, tune(seconds, seed), np.stack([tune(seconds, seed + 9)] * 2))
    return folder
