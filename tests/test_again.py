"""`hafm again`: a mix is made again from what it says of itself, in any format; another vocal or model is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile

from hafm_jax import again, sample
from hafm_jax.common.errors import InputError

HOW = ["--seed", "5", "--temperature", "semantic=0.8", "--skip-fine", "--balance-lu", "1", "--seconds", "0.41"]


@pytest.fixture
def made(tiny_model, tmp_path, monkeypatch):
    """A function: a name -> the mix of that name, take 2 of 2, at 44.1 kHz."""
    monkeypatch.setattr("hafm_jax.common.cache.use_compilation_cache", lambda: None)
    monkeypatch.setattr("hafm_jax.accompany.use_compilation_cache", lambda: None)
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(22_050) / 44_100)
    soundfile.write(tmp_path / "in.wav", np.stack([tone, 0.5 * tone], 1), 44_100)

    def make(name: str):
        vocal, out = str(tmp_path / "in.wav"), tmp_path / name
        sample.main(["--vocal", vocal, "--out", str(out), "--model", str(tiny_model), "--num-samples", "2", *HOW])
        return out.with_name(f"{out.stem}_2{out.suffix}")

    return make


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_the_same_bytes_are_made(made, tmp_path, suffix):
    mix = made(f"mix{suffix}")
    again.main([str(mix), "--out", str(tmp_path / f"same{suffix}")])
    for ending in (suffix, f"_instrumental{suffix}", ".json"):
        assert (tmp_path / f"same{ending}").read_bytes() == mix.with_name(f"mix_2{ending}").read_bytes()


def test_the_json_does_and_a_free_name_is_found(made, tmp_path):
    mix = made("mix.wav")
    again.main([str(mix.with_suffix(".json"))])
    assert (tmp_path / "mix_2-2.wav").read_bytes() == mix.read_bytes()


def test_another_vocal_another_model_and_files_of_others_are_refused(made, tmp_path, tiny_model):
    mix = made("mix.wav")

    def refused(match, *arguments):
        with pytest.raises(InputError, match=match):
            again.main([*map(str, arguments)])

    refused("mix_2.wav is MIX", mix, "--out", mix)
    refused("in.wav is --vocal", mix, "--out", tmp_path / "in.wav", "--force")  # which it found by its name
    refused("mix_1.wav is there", mix, "--out", tmp_path / "mix_1.wav", "--model", "none/there")  # before the work
    shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["sampling_note"] = 1
    config.pop("checksum", None)
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    refused("is not the one of", mix, "--model", tmp_path / "model")
    soundfile.write(tmp_path / "other.wav", np.full((22_050, 2), 0.1), 44_100)
    refused("is not the vocal of", mix, "--vocal", tmp_path / "other.wav")
    refused("in.wav is not at", shutil.move(mix, tmp_path / "model" / "mix.wav"))
    refused("it has no comment", tmp_path / "other.wav")
