"""The vocal as people have it: cut files, files of phones, pipes. What is missing is said, and the rest is used."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from helpers.media import write_media

from hafm_jax import accompany, sample
from hafm_jax.accompany import Accompanist
from hafm_jax.audio import reading, vocals
from hafm_jax.audio.vocals import read_vocal
from hafm_jax.common.errors import InputError

RATE_HZ = 24_000


class Begun(Exception):
    pass


@pytest.fixture
def cells_of(tiny_model, tmp_path, monkeypatch):
    """Runs the command up to where its work begins: the cells of the vocal."""
    monkeypatch.setattr(accompany, "use_compilation_cache", lambda: None)

    def begin(accompanist, cells, options, **_):
        raise Begun(cells)

    monkeypatch.setattr(Accompanist, "compile", begin)

    def command(*arguments) -> int:
        with pytest.raises(Begun) as begun:
            sample.main([*map(str, arguments), "--model", str(tiny_model), "--out", str(tmp_path / "mix.wav")])
        return begun.value.args[0]

    return command


def voice(seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)  # in tune


def test_a_cut_file_is_used_and_one_warning_names_both_durations(cells_of, tmp_path, capsys):
    path = tmp_path / "half.mp3"
    soundfile.write(path, voice(4), RATE_HZ, format="MP3")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cells = cells_of("--vocal", path)
    warning = f"warning: {path} holds {cells / 25:.1f}"  # to a cell
    printed = capsys.readouterr().err
    assert printed.startswith(warning) and printed.count("\n") == 1 and "of the 4.00 s that it claims" in printed
    cells_of("--vocal", path, "--seconds", 1)  # that much is there
    assert capsys.readouterr().err == ""


def test_the_recording_of_a_phone_is_read(cells_of, tmp_path, capsys):
    path = write_media(tmp_path / "memo.m4a", [voice(2)[None]], RATE_HZ, "aac")
    assert cells_of("--vocal", path) == 50 and capsys.readouterr().err == ""


@pytest.mark.parametrize(("options", "cells"), [([], 75), (["--seconds", "1"], 25)])
@pytest.mark.parametrize("name", ["-", "the path"])
def test_the_standard_input_is_read(cells_of, tmp_path, monkeypatch, name, options, cells):
    """A named pipe stands in for it."""
    soundfile.write(tmp_path / "voice.wav", voice(3), RATE_HZ)
    pipe = tmp_path / "stdin"
    os.mkfifo(pipe)
    monkeypatch.setattr(vocals, "STANDARD_INPUT", str(pipe))
    data = (tmp_path / "voice.wav").read_bytes()

    def write():
        with suppress(BrokenPipeError):  # where fewer seconds are asked for
            pipe.write_bytes(data)

    writer = threading.Thread(target=write)
    writer.start()
    assert cells_of("--vocal", "-" if name == "-" else pipe, *options) == cells
    writer.join(10)


def test_a_vocal_that_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.flac", np.zeros((60 * RATE_HZ, 8), np.int16), RATE_HZ)
    monkeypatch.setattr(reading, "host_free_bytes", lambda: 20_000_000)
    with pytest.raises(InputError, match=r"a\.flac has 60 s or more of 8 channels .* half of the free memory"):
        read_vocal(tmp_path / "a.flac")
    assert read_vocal(tmp_path / "a.flac", 1.0).audio.shape == (8, RATE_HZ)
