"""The command tokenize/synthesize_songs.py."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from helpers import TOKENIZE
from helpers.scripts import run

from hafm_jax.common.errors import InputError
from hafm_jax.synthesis.song import synthesize_song

SCRIPT = TOKENIZE / "synthesize_songs.py"
RATE_HZ = 24_000


def test_writes_and_resumes(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "synthesize_songs", "--out", tmp_path, "--num-songs", 2, "--seconds", 1.5, "--workers", 1)
    folders = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*"))
    assert folders == ["test/song_000000", "train/song_000000", "train/song_000001", "validation/song_000000"]
    first, second = tmp_path / folders[1], tmp_path / folders[2]
    assert sorted(p.name for p in first.iterdir()) == ["instrumental.wav", "song.json", "vocals.wav"]
    info = json.loads((first / "song.json").read_text())
    song = synthesize_song(info["seed"], info["seconds"])
    for name in ("vocals", "instrumental"):
        audio, rate_hz = soundfile.read(first / f"{name}.wav", dtype="float32")
        assert rate_hz == RATE_HZ and soundfile.info(first / f"{name}.wav").subtype == "PCM_16"
        assert np.abs(audio - getattr(song, name)).max() < 1 / 32_000

    # An interrupted run: one song missing, half of it under its temporary name. The others are not written again.
    before = (first / "vocals.wav").stat().st_mtime_ns
    wanted = (second / "vocals.wav").read_bytes()
    second.rename(second.with_name(f".{second.name}.0123abcd.partial"))
    run(monkeypatch, "synthesize_songs", "--out", tmp_path, "--num-songs", 2, "--seconds", 1.5, "--workers", 1)
    assert "(1 new)" in capsys.readouterr().out
    assert (first / "vocals.wav").stat().st_mtime_ns == before
    assert (second / "vocals.wav").read_bytes() == wanted
    assert not list(tmp_path.glob("*/.*"))

    for other, found in ((["--seed", 1], "begun with seed 0"), (["--seconds", 2], "begun with seconds 1.5")):
        with pytest.raises(InputError, match=found):
            run(monkeypatch, "synthesize_songs", "--out", tmp_path, "--num-songs", 2, "--seconds", 1.5, *other)


BAD_NUMBERS = ["--num-songs -1", "--num-test -1", "--seconds 0.5", "--seconds nan", "--seed -1", "--workers 0"]


@pytest.mark.parametrize("argument", BAD_NUMBERS)
def test_refuses_bad_numbers(tmp_path, monkeypatch, argument):
    with pytest.raises(InputError, match=f"{argument.split()[0]} is .*; expected"):
        run(monkeypatch, "synthesize_songs", "--out", tmp_path / "songs", *argument.split())
    assert not (tmp_path / "songs").exists()


def test_the_command_as_a_process(tmp_path):
    """From another folder, with worker processes, as users run it; and a place that cannot be written."""
    command = [sys.executable, str(SCRIPT), "--num-songs", "1", "--num-test", "0", "--seconds", "1", "--workers", "2"]
    (tmp_path / "file").write_text("not a folder")
    songs, done = (
        subprocess.run([*command, "--out", out], cwd=tmp_path, capture_output=True, text=True, check=False)
        for out in ("songs", "file")
    )
    assert songs.returncode == 0, songs.stderr
    assert sorted(p.parent.name for p in tmp_path.glob("songs/*/song_000000")) == ["train", "validation"]
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
