"""`hafm batch`: a folder of vocals becomes what single runs make of them, to the bit; stopped, it resumes."""

from __future__ import annotations

import numpy as np
import pytest

from hafm_jax import batch, sample
from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import write_audio
from hafm_jax.common.errors import InputError

HOW = ["--seed", "3", "--num-samples", "2", "--temperature", "semantic=0.8", "--skip-fine"]
LENGTHS_S = {"a": 0.4, "b": 0.4, "c": 0.3}  # two of one length, which are drawn together


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("hafm_jax.common.cache.use_compilation_cache", lambda: None)
    (tmp_path / "vocals").mkdir()
    for i, (name, seconds) in enumerate(LENGTHS_S.items()):
        tone = 0.3 * np.sin(2 * np.pi * 200 * (i + 1) * np.arange(round(16_000 * seconds)) / 16_000)
        write_audio(tmp_path / "vocals" / f"{name}.wav", tone[None].astype(np.float32), 16_000)
    return tmp_path


def run(folder, model, *more):
    batch.main([str(folder / "vocals"), "--out", str(folder / "out"), "--model", str(model), *HOW, *more])


def test_a_folder_equals_its_vocals_one_by_one(folder, tiny_model, monkeypatch, capsys):
    together = []
    generate = Accompanist.generate_streams

    def counted(self, vocals, *arguments, **how):
        together.append(len(vocals))
        return generate(self, vocals, *arguments, **how)

    monkeypatch.setattr(Accompanist, "generate_streams", counted)
    run(folder, tiny_model)
    assert together == [2, 1]
    monkeypatch.setattr(Accompanist, "generate_streams", generate)
    for name in LENGTHS_S:
        single = folder / name
        single.mkdir()
        vocal = str(folder / "vocals" / f"{name}.wav")
        sample.main(["--vocal", vocal, "--out", str(single / f"{name}.wav"), "--model", str(tiny_model), *HOW])
        for path in single.iterdir():
            assert path.read_bytes() == (folder / "out" / path.name).read_bytes()

    before = len(together)
    monkeypatch.setattr(Accompanist, "generate_streams", counted)
    (folder / "out" / "b_2.wav").unlink()
    run(folder, tiny_model)  # resumes: b alone is made again
    assert together[before:] == [1] and (folder / "out" / "b_2.wav").exists()
    write_audio(folder / "vocals" / "a.wav", np.zeros((1, 4_800), np.float32) + 0.1, 16_000)  # another take
    run(folder, tiny_model)
    assert together[before:] == [1, 1]
    with pytest.raises(InputError, match="begun with seed 3, this run has 4"):
        run(folder, tiny_model, "--seed", "4")
    assert "3 of 3 vocals" in capsys.readouterr().out


def test_what_is_no_vocal_is_left_out_and_named(folder, tiny_model):
    (folder / "vocals" / "notes.txt").write_text("mine")
    (folder / "vocals" / ".hidden").write_text("mine")
    (folder / "vocals" / "b.wav").unlink()
    with pytest.raises(InputError, match=r"left out:\n  notes.txt: .*cannot be read") as refused:
        run(folder, tiny_model, "--num-samples", "1")
    assert "hidden" not in str(refused.value)
    mixes = {"a.wav", "a_instrumental.wav", "a.json", "c.wav", "c_instrumental.wav", "c.json"}
    assert {path.name for path in (folder / "out").iterdir()} == mixes | {"run.json", ".claim"}


def test_folders_that_cannot_be_accompanied_are_refused(folder, tmp_path):
    def refused(match, *arguments):
        with pytest.raises(InputError, match=match):
            batch.main([str(argument) for argument in arguments])

    vocals, out = folder / "vocals", folder / "out"
    refused("is not a folder", vocals / "a.wav", "--out", out)
    (folder / "empty").mkdir()
    refused("holds no files", folder / "empty", "--out", out)
    refused("a.wav is in FOLDER", vocals, "--out", vocals)
    (vocals / "a.flac").touch()
    refused("a.flac and a.wav would both become", vocals, "--out", out)
    for wrong in (["--seed", "3", str(vocals)], [str(vocals), "--out", str(out), "--vocal", "x"]):
        with pytest.raises(SystemExit):
            batch.main(wrong)
    assert not out.exists()
