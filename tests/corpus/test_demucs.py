"""Demucs: tiny models of the package's own classes against the package's own way through a song."""

from __future__ import annotations

import hashlib
import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers.separators import RATE_HZ, SOURCES, demucs, demucs_file, noise, tiny_htdemucs, write_demucs  # noqa: F401

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.separators import load_separator

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402


def rounded(model):
    """The network with its weights as a checkpoint holds them."""
    return model.half().float()


def as_demucs_does(demucs, model, mixture: np.ndarray) -> np.ndarray:
    """The package's own way through a song, without its random shifts, to the vocals."""
    audio = torch.tensor(mixture)
    mono = audio.mean(0)
    audio = (audio - mono.mean()) / (mono.std() + 1e-8)
    out = demucs.apply.apply_model(model, audio[None], shifts=0, split=True, overlap=0.25)
    return (out * (mono.std() + 1e-8) + mono.mean())[0, SOURCES.index("vocals")].numpy()


# whole segments of 26,460 samples, three quarters of one apart: demucs places a last, shorter one otherwise than we do
SEGMENT, STRIDE = 26_460, 19_845


def assert_as_demucs_does(vocals: np.ndarray, demucs, model, mixture: np.ndarray) -> None:
    """Except where demucs adds a last, shorter segment."""
    settled = slice(mixture.shape[1] - (SEGMENT - STRIDE))
    expected = as_demucs_does(demucs, model, mixture)
    np.testing.assert_allclose(vocals[:, settled], expected[:, settled], atol=1e-4 * np.abs(expected).max())


def test_a_song_in_segments_is_separated_as_demucs_does(demucs, demucs_file):
    separator = load_separator("demucs", str(demucs_file), device="cpu")
    assert separator.sample_rate_hz == RATE_HZ
    assert separator.sha256 == hashlib.sha256(demucs_file.read_bytes()).hexdigest()
    mixture = 0.3 + 2 * noise(2 * STRIDE + SEGMENT)
    vocals = separator.separate(mixture)
    assert vocals.dtype == np.float32
    assert_as_demucs_does(vocals, demucs, rounded(tiny_htdemucs(demucs)), mixture)
    np.testing.assert_array_equal(vocals, separator.separate(mixture))  # no random shifts


def test_the_older_hybrid_models_are_read_too(demucs, tmp_path):
    torch.manual_seed(0)
    model = demucs.hdemucs.HDemucs(SOURCES, channels=8, segment=Fraction(3, 5)).eval()
    write_demucs(tmp_path / "a.safetensors", model)
    mixture = noise(STRIDE + SEGMENT)
    vocals = load_separator("demucs", str(tmp_path), device="cpu").separate(mixture)
    assert_as_demucs_does(vocals, demucs, rounded(model), mixture)


def test_a_bag_is_the_mean_that_its_description_asks_for(demucs, tmp_path):
    models = [tiny_htdemucs(demucs, seed) for seed in range(3)]
    for number, model in enumerate(models):
        write_demucs(tmp_path / f"model{number}.safetensors", model)
    shares = [[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 3.0]]
    (tmp_path / "bag.yaml").write_text(f"models: ['model0', 'model1', 'model2']\nweights: {shares}\nsegment: 0.6\n")
    separator = load_separator("demucs", str(tmp_path), device="cpu")
    mixture = noise(STRIDE + SEGMENT)
    bag = demucs.apply.BagOfModels([rounded(m) for m in models], shares)
    assert_as_demucs_does(separator.separate(mixture), demucs, bag, mixture)
    assert len(separator._network._models) == 2  # one has no weight for the vocals, and is not run


def test_demucs_of_any_length_and_of_silence(demucs_file):
    separator = load_separator("demucs", str(demucs_file), device="cpu")
    for num_samples in (1, 2, 1000, SEGMENT - 1, SEGMENT, SEGMENT + 1, 50_000):
        vocals = separator.separate(noise(num_samples))
        assert vocals.shape == (2, num_samples) and np.isfinite(vocals).all()
    assert np.abs(separator.separate(np.zeros((2, 30_000), np.float32))).max() < 1e-6


@pytest.mark.parametrize("shape", [(2, 0), (1, 100), (100,), (100, 2), (1, 2, 100)])
def test_mixtures_of_another_shape(demucs_file, shape):
    with pytest.raises(ValueError, match="expected \\[2, S\\]"):
        load_separator("demucs", str(demucs_file)).separate(np.zeros(shape, np.float32))


@pytest.mark.parametrize("place", ["klass", "structure"])
def test_no_class_that_a_file_names_is_imported(demucs, tmp_path, monkeypatch, place):
    """The package would import the module of any class."""
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\nX = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = {"klass": "evil.X", "structure": json.dumps({"_class": "evil.X"})}
    path = write_demucs(tmp_path / "a.safetensors", tiny_htdemucs(demucs), **{place: named[place]})
    with pytest.raises(InputError, match=r"holds a evil\.X|quantised by DiffQ"):
        load_separator("demucs", str(path))
    assert "evil" not in sys.modules and not (tmp_path / "evil.ran").exists()


def test_damaged_and_foreign_checkpoints(demucs, demucs_file, tmp_path):
    def refused(found, path=tmp_path / "a.safetensors"):
        with pytest.raises(InputError, match=found):
            load_separator("demucs", str(path))

    model = tiny_htdemucs(demucs)
    (tmp_path / "cut.safetensors").write_bytes(demucs_file.read_bytes()[:-1000])
    refused("cut.safetensors cannot be loaded", tmp_path / "cut.safetensors")
    (tmp_path / "text.safetensors").write_text("not found")
    refused("text.safetensors cannot be loaded", tmp_path / "text.safetensors")
    torch.save({"klass": dict}, tmp_path / "a.th")
    refused(r"a\.th cannot be loaded", tmp_path / "a.th")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    refused(r"cannot be loaded as a Demucs model \('klass'\)")
    for written, facts, found in (
        (model, {"state": {"x": torch.zeros(1)}}, "cannot be loaded"),
        (model, {"kwargs": json.dumps({"channels": 16})}, "cannot be loaded"),
        (model, {"args": "["}, "cannot be loaded"),
        (model, {"klass": "torch.Tensor"}, "holds a torch.Tensor; expected one of demucs"),
        (model, {"structure": "{}"}, "DiffQ"),
        (tiny_htdemucs(demucs, sources=["drums", "bass"]), {}, "into drums, bass; expected 2 channels and vocals"),
        (tiny_htdemucs(demucs, audio_channels=1), {}, "separates 1 channels"),
    ):
        write_demucs(tmp_path / "a.safetensors", written, **facts)
        refused(found)


def test_names_of_demucs_are_looked_up_on_the_hub(demucs, demucs_file, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "955717e8.safetensors").write_bytes(demucs_file.read_bytes())
    (tmp_path / "htdemucs.yaml").write_text("models: ['955717e8']")
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path))
    monkeypatch.chdir(tmp_path)
    load_separator("demucs", "htdemucs")
    load_separator("demucs", "htdemucs_ft")
    load_separator("demucs", "someone/htdemucs")
    assert asked == ["adefossez/HTDemucs", "adefossez/HTDemucs-ft", "someone/htdemucs"]
    with pytest.raises(InputError, match="no weights at htdemux"):
        load_separator("demucs", "htdemux")


def test_folders_that_are_not_bags(demucs, demucs_file, tmp_path):
    with pytest.raises(InputError, match=r"holds no such file; expected one model"):
        load_separator("demucs", str(tmp_path))
    (tmp_path / demucs_file.name).write_bytes(demucs_file.read_bytes())
    for description, found in {
        "models: ['0123abcd', '4567']": "names 4567.safetensors, which is not beside it",
        "models: ['0123abcd']\nweights: [[1, 1]]": "models and weights do not fit together",
        "models: ['0123abcd']\nweights: [[1, 1, 1, many]]": "models and weights do not fit together",
        "models: ['0123abcd']\nweights: [[1, 1, 1, 0]]": "gives the vocals of no model any weight",
        "models: {": "describes no bag",
    }.items():
        (tmp_path / "bag.yaml").write_text(description)
        with pytest.raises(InputError, match=found):
            load_separator("demucs", str(tmp_path))
    (tmp_path / "bag.yaml").unlink()
    assert load_separator("demucs", str(tmp_path)).sha256 == hashlib.sha256(demucs_file.read_bytes()).hexdigest()
