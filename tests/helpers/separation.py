"""A run of tokenize/separate_stems.py on a small collection, with a separator that needs no weights."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers import scripts, separator_stand_in

MODEL = ("--separator", "mdx", "--weights", "stand-in")


def run(monkeypatch, *arguments) -> None:
    scripts.run(monkeypatch, "separate_stems", *arguments)


def noise(seconds: float, rate_hz: int, level: float, seed: int, channels: int = 2) -> np.ndarray:
    """[S, C], with an RMS of `level`."""
    return np.random.default_rng(seed).normal(0, level, (round(seconds * rate_hz), channels))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "hafm_jax.corpus.separators", separator_stand_in)
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "separator.log"))


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Four good files of several kinds, and one for every reason to leave it out but those of metadata and stems."""
    root = tmp_path_factory.mktemp("music")
    (root / "more").mkdir()
    soundfile.write(root / "good.flac", noise(1.5, 44_100, 0.25, 1), 44_100)
    soundfile.write(root / "more" / "mono.wav", noise(1.2, 22_050, 0.3, 2, channels=1), 22_050)
    soundfile.write(root / "more" / "loud.wav", noise(1.0, 48_000, 3.0, 3, channels=4), 48_000, subtype="FLOAT")
    soundfile.write(root / "good.mp3", noise(1.4, 44_100, 0.25, 4), 44_100, format="MP3")
    shutil.copy(root / "good.flac", root / "more" / "copy.flac")
    soundfile.write(root / "silent.wav", noise(1.5, 24_000, 1e-4, 5), 24_000)
    soundfile.write(root / "short.wav", noise(0.5, 24_000, 0.2, 6), 24_000)
    soundfile.write(root / "long.wav", noise(3.5, 24_000, 0.2, 7), 24_000)
    soundfile.write(root / "faint.wav", noise(1.5, 24_000, 0.02, 8), 24_000)
    (root / "damaged.mp3").write_bytes(b"no audio" * 100)
    (root / "empty.ogg").write_bytes(b"")
    (root / "empty.mp3").write_bytes(b"")
    (root / "cover.jpg").write_bytes(b"no audio")
    (root / ".hidden.mp3").write_bytes(b"no audio")
    (root / "dead.mp3").symlink_to(root / "gone.mp3")
    return root


def arguments(music: Path, out: Path, *more) -> list:
    limits = ("--min-seconds", 1, "--max-seconds", 3)
    return ["--music", music, "--layout", "folder", "--out", out, *MODEL, *limits, *more]


@pytest.fixture(scope="module")
def songs(tmp_path_factory, music) -> Path:
    """The songs; beside them a file of what was printed."""
    out = tmp_path_factory.mktemp("songs") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch, (out.parent / "printed").open("w") as file, redirect_stdout(file):
        monkeypatch.setitem(sys.modules, "hafm_jax.corpus.separators", separator_stand_in)
        run(monkeypatch, *arguments(music, out))
    return out


def num_songs(out: Path) -> int:
    return len(list(out.glob("[!.]*/[!.]*/song.json")))


def logged(tmp_path: Path, word: str) -> list[str]:
    """The second word of each line of the stand-in's log that begins with `word`."""
    log = tmp_path / "separator.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith(word)]


def contents(out: Path) -> dict[str, bytes]:
    """All files but the logs of rejects, whose order and number follow the parts."""
    paths = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(("rejects", "report-"))]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def label(name: str) -> str:
    return name.rsplit("_", 1)[0]  # without the hash
