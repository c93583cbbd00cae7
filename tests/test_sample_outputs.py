"""Outputs of the command: nothing of the user's is replaced, and what cannot be written is told before the work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import contents

from hafm_jax import sample
from hafm_jax.accompany import Accompanist
from hafm_jax.audio import vocals
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

    monkeypatch.setattr(vocals, "read_vocal", begin)

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
    error = checked("--vocal", vocal, "--force", *samples)
    assert f"{name} is --vocal {vocal}, which is read" in str(error)
    assert checked("--vocal", vocal, "--out", "other.wav", *samples) is None
    one_by_one = checked("--vocal", vocal, *(() if samples else ("--num-samples", 3)))  # names that are not those
    assert one_by_one is None


@pytest.mark.parametrize("there", ["mix.flac", "mix_instrumental.flac", "mix.json"])
def test_nothing_that_is_there_is_replaced_unless_it_is_forced(checked, there):
    Path(there).write_text("mine")
    assert f"{there} is there; expected a free name" in str(checked("--out", "mix.flac"))
    assert checked("--out", "mix.flac", "--force") is None
    assert checked() is None  # without a name it finds a free one


def test_without_a_name_a_free_one_is_found(checked):
    def names(num_samples: int) -> list[str]:
        outputs = sample.free_outputs(sample.OUT, num_samples)
        return [mix.name for mix, *_ in outputs]

    assert names(1) == ["mix.wav"] and names(2) == ["mix_1.wav", "mix_2.wav"]
    Path("mix_2_instrumental.wav").write_text("mine")
    assert names(1) == ["mix.wav"] and names(2) == ["mix-2_1.wav", "mix-2_2.wav"]
    Path("mix.json").symlink_to("nowhere")
    Path("mix-2.wav").write_text("mine")
    assert names(1) == ["mix-3.wav"] and names(2) == ["mix-2_1.wav", "mix-2_2.wav"]


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
    monkeypatch.setattr("hafm_jax.accompany.use_compilation_cache", lambda: None)
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
    Path("mix.wav").write_bytes(bytes(one))  # it is replaced, so its room counts
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=one))
    with pytest.raises(SystemExit):
        whole()
    with pytest.raises(pytest.fail.Exception, match="it works"):
        whole("--force")


def test_a_full_disk_leaves_the_former_outputs_and_a_name_that_is_no_text_is_printed(
    whole, tmp_path, monkeypatch, capsys
):
    out = os.fsdecode(b"m\xffx.wav")
    whole("--out", out)
    assert "m\\udcffx.wav  m\\udcffx_instrumental.wav  m\\udcffx.json\n" in capsys.readouterr().out
    before = contents(tmp_path)
    assert len(before) == 4
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(files, "unfinished", lambda *_: full)
    with pytest.raises(SystemExit) as ended:
        whole("--out", out, "--seed", 1, "--force")
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "error: cannot write" in error and "(No space left on device)" in error
    assert contents(tmp_path) == before
    monkeypatch.undo()


def test_the_checks_are_those_of_every_caller(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        sample.check_outputs(sample.parser().parse_args(["--vocal", "v.wav", "--out", str(tmp_path / "a" / "b.wav")]))
