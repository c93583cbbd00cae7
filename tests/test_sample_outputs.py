"""Outputs of the command: nothing of the user's is replaced, and what cannot be written is told before the work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import contents

from hafm_jax import accompany, sample
from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import write_audio
from hafm_jax.common import files
from hafm_jax.common.errors import InputError, OutputError, run_command

VOICE = 0.3 * np.sin(np.arange(24_000) / 20)


class Begun(Exception):
    """The voice is being read: the checks before it had nothing to say."""


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """Run the command in tmp_path until it reads the voice, in.wav unless given; None or the InputError."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("in.wav", VOICE, 24_000)

    def begin(*_):
        raise Begun

    monkeypatch.setattr(accompany, "read_vocal", begin)

    def run(*arguments: object) -> InputError | None:
        before = contents(tmp_path)
        try:
            sample.main([*([] if "--vocal" in arguments else ["--vocal", "in.wav"]), *map(str, arguments)])
        except Begun:
            return None
        except InputError as error:
            return error
        finally:
            assert contents(tmp_path) == before

    return run


@pytest.mark.parametrize("name", ["mix.wav", "mix_instrumental.wav", "mix_1.wav", "mix_3_instrumental.wav"])
@pytest.mark.parametrize("form", ["same", "relative", "absolute", "soft link", "hard link", "case"])
def test_no_output_is_the_voice(checked, name, form, tmp_path):
    """By none of its names: the default outputs are in the folder where the command runs."""
    os.rename("in.wav", name)
    vocal = Path(name)
    if form == "relative":
        vocal = Path("..") / tmp_path.name / name
    elif form == "absolute":
        vocal = tmp_path / name
    elif form == "soft link":
        vocal = Path("voice.wav")
        vocal.symlink_to(name)
    elif form == "hard link":
        vocal = Path("voice.wav")
        os.link(name, vocal)
    elif form == "case":  # where case does not count, another spelling is the same file
        vocal = Path(name.upper())
        if not vocal.exists():
            return
    samples = ("--num-samples", 3) if name[4].isdigit() else ()
    error = checked("--vocal", vocal, *samples)
    assert f"{name} is --vocal {vocal}, which is read" in str(error)
    assert checked("--vocal", vocal, "--out", "other.wav", *samples) is None
    one_by_one = checked("--vocal", vocal, *(() if samples else ("--num-samples", 3)))  # names that are not those
    assert one_by_one is None


def test_only_a_file_that_is_named_or_was_made_here_is_replaced(checked):
    soundfile.write("mix.wav", VOICE, 24_000)
    assert "mix.wav is there, and this command did not write it" in str(checked())
    assert checked("--out", "mix.wav") is None
    soundfile.write("mix_instrumental.wav", VOICE, 24_000)
    assert "mix_instrumental.wav is there" in str(checked("--out", "mix.wav"))
    write_audio("mix.wav", VOICE, 24_000, sample.COMMENT)
    write_audio("mix_instrumental.wav", VOICE, 24_000, sample.COMMENT)
    assert checked() is None
    Path("mix_2.wav").write_text("my notes")
    assert checked("--num-samples", 1) is None
    assert "mix_2.wav is there" in str(checked("--num-samples", 2))


def test_names_are_checked_for_every_output(checked):
    """A name may be 255 bytes long; numbers and endings are added to it."""
    longest = 255 - len("_instrumental.wav")
    assert checked("--out", "é" * (longest // 2) + ".wav") is None
    assert "File name too long" in str(checked("--out", "x" * (longest + 1) + ".wav"))
    assert checked("--out", "x" * (longest - 2) + ".wav", "--num-samples", 9) is None
    assert "File name too long" in str(checked("--out", "x" * (longest - 2) + ".wav", "--num-samples", 10))
    assert checked("--out", os.fsdecode(b"m\xffx.wav")) is None
    for out in ("gs://bucket/mix.wav", "file:///tmp/mix.wav"):
        assert "is an address" in str(checked("--out", out))
    assert "is an address" in str(checked("--vocal", "https://example.org/v.wav"))
    assert sorted(os.listdir()) == ["in.wav"]


@pytest.fixture
def whole(tmp_path, tiny_model, monkeypatch):
    """The whole command in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hafm_jax.common.cache.use_compilation_cache", lambda: None)
    soundfile.write("in.wav", VOICE, 24_000)

    def run(*arguments: object) -> None:
        how = ["--vocal", "in.wav", "--model", str(tiny_model), "--guidance-scale", "1", "--skip-fine"]
        run_command(lambda: sample.main([*how, *map(str, arguments)]))

    return run


def test_room_is_checked_before_the_work(whole, monkeypatch, capsys):
    monkeypatch.setattr(Accompanist, "load", lambda *_: pytest.fail("it works"))
    one = 2 * len(VOICE)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 * one - 1))
    with pytest.raises(SystemExit):
        whole("--num-samples", 2)
    assert "left; expected room" in capsys.readouterr().err
    Path("mix_1.wav").write_bytes(bytes(one))  # it will be replaced, since it is named here
    with pytest.raises(pytest.fail.Exception, match="it works"):
        whole("--num-samples", 1)


def test_a_full_disk_leaves_the_former_outputs_and_a_name_that_is_no_text_is_printed(
    whole, tmp_path, monkeypatch, capsys
):
    out = os.fsdecode(b"m\xffx.wav")
    whole("--out", out)
    assert "m\\udcffx.wav  m\\udcffx_instrumental.wav\n" in capsys.readouterr().out
    before = contents(tmp_path)
    assert len(before) == 3
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(files, "unfinished", lambda *_: full)
    with pytest.raises(SystemExit) as ended:
        whole("--out", out, "--seed", 1)
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "error: cannot write" in error and "(No space left on device)" in error
    assert contents(tmp_path) == before
    monkeypatch.undo()


def test_the_checks_are_those_of_every_caller(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        sample.check_outputs(sample.parser().parse_args(["--vocal", "v.wav", "--out", str(tmp_path / "a" / "b.wav")]))
