"""VGGish against the same network in torch, and its spectrogram against the definition and transformers' functions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from helpers.small_vggish import small_vggish

from hafm_jax.common.errors import InputError
from hafm_jax.metrics import vggish
from hafm_jax.metrics.embeddings import load_embedding

pytest.importorskip("torch", reason="needs the extra hafm_jax[torch]")

import torch
from transformers import audio_utils


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


# ------------------------------------------------------------------------------------------------------- spectrogram


def test_a_frame_by_its_definition():
    audio = noise(vggish.MIN_SAMPLES)
    patches = vggish.log_mel_patches(audio)
    assert patches.shape == (1, 96, 64) and patches.dtype == np.float32
    # frame 7, band 20, sums written out
    samples = audio[7 * 160 : 7 * 160 + 400].astype(np.float64)
    windowed = samples * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400))
    low, centre, high = np.linspace(2595 * np.log10(1 + 125 / 700), 2595 * np.log10(1 + 7500 / 700), 66)[20:23]
    total = 0.0
    for k in range(1, 257):
        mel = 2595 * np.log10(1 + k * 16_000 / 512 / 700)
        weight = max(0.0, min((mel - low) / (centre - low), (high - mel) / (high - centre)))
        total += weight * abs(np.sum(windowed * np.exp(-2j * np.pi * k * np.arange(400) / 512)))
    assert patches[0, 7, 20] == pytest.approx(np.log(total + 0.01), abs=1e-5)


def test_the_whole_spectrogram_with_transformers_functions():
    audio = noise(16_000 * 3)
    filters = audio_utils.mel_filter_bank(
        257, 64, 125.0, 7500.0, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    window = audio_utils.window_function(400, "hann", periodic=True)
    mel = audio_utils.spectrogram(
        audio, window, frame_length=400, hop_length=160, fft_length=512, power=1.0, center=False, mel_filters=filters
    )  # [M, F]
    expected = np.log(mel.T + 0.01)[: 3 * 96].reshape(3, 96, 64)
    np.testing.assert_allclose(vggish.log_mel_patches(audio), expected, atol=1e-4)


def test_only_whole_patches_are_taken():
    assert vggish.log_mel_patches(noise(16_000 * 10)).shape[0] == 10
    assert vggish.log_mel_patches(noise(vggish.MIN_SAMPLES + 96 * 160 - 1)).shape[0] == 1
    assert vggish.MIN_SAMPLES == 15_600


# ----------------------------------------------------------------------------------------------------------- network


def torch_vggish(width: int):
    """The torch port, every layer `width` times narrower than published: patches [N, T, M] -> [N, 128]."""
    nn = torch.nn
    layers, into = [], 1
    for out in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M"):
        if out == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(into, out // width, 3, padding=1), nn.ReLU()]
        into = out // width
    wide = 4096 // width
    dense = [nn.Linear(512 // width * 4 * 6, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 128)]
    return nn.ModuleDict({"features": nn.Sequential(*layers), "embeddings": nn.Sequential(*dense)})


def test_shapes_are_those_of_the_torch_port():
    with torch.device("meta"):
        state = torch_vggish(1).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == vggish.SHAPES


def test_the_network_is_the_torch_ports():
    torch.manual_seed(0)
    network = torch_vggish(8)
    with torch.no_grad():
        for value in network.parameters():  # large enough that neither biases nor dying layers hide an error
            value.normal_(0, (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1)
        patches = vggish.log_mel_patches(noise(16_000 * 4))
        features = network["features"](torch.from_numpy(patches)[:, None])  # [N, C, T, M]
        expected = network["embeddings"](features.permute(0, 2, 3, 1).flatten(1)).numpy()
    assert expected.std(axis=0).min() > 1e-3
    params = {name: value.numpy() for name, value in network.state_dict().items()}
    found = jax.jit(vggish.forward)(params, patches)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    # batches of ten, the last one filled up
    np.testing.assert_allclose(vggish.embed(params, noise(16_000 * 4)), found, atol=1e-5 * np.abs(expected).max())


# ----------------------------------------------------------------------------------------------------------- weights


@pytest.fixture
def small(monkeypatch) -> dict[str, np.ndarray]:
    return small_vggish(monkeypatch)


def test_safetensors_and_torch_files_hold_the_same(small, tmp_path):
    path = tmp_path / "vggish.safetensors"
    safetensors.numpy.save_file(small, path)
    embedding = load_embedding("vggish", str(path))
    found = embedding(noise(24_000 * 2), 24_000)
    assert found.shape == (2, 128) and found.dtype == np.float32
    assert (embedding.name, embedding.sha256) == ("vggish", hashlib.sha256(path.read_bytes()).hexdigest())
    np.testing.assert_array_equal(load_embedding("vggish", str(tmp_path))(noise(24_000 * 2), 24_000), found)

    torch.save({name: torch.from_numpy(value) for name, value in small.items()}, tmp_path / "vggish.pth")
    other = load_embedding("vggish", str(tmp_path / "vggish.pth"))
    np.testing.assert_array_equal(other(noise(24_000 * 2), 24_000), found)
    with pytest.raises(InputError, match=r"vggish.pth, vggish.safetensors; expected one"):
        load_embedding("vggish", str(tmp_path))


def test_files_of_the_published_shapes_are_taken(tmp_path):
    # one number stands for each tensor in the file; loaded it has its full shape
    torch.save({name: torch.zeros(1).expand(shape) for name, shape in vggish.SHAPES.items()}, tmp_path / "vggish.pth")
    params, _ = vggish.load(str(tmp_path / "vggish.pth"))
    assert {name: value.shape for name, value in params.items()} == vggish.SHAPES


def test_other_weights_are_refused(small, tmp_path):
    path = tmp_path / "vggish.safetensors"

    def refuse(tensors, message):
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(InputError, match=message):
            load_embedding("vggish", str(path))

    without = {k: v for k, v in small.items() if k != "embeddings.2.bias"}
    refuse(without, r"embeddings.2.bias not at all; VGGish expects \(128,\)")
    refuse(
        small | {"classifier.weight": np.zeros(3, np.float32)},
        r"classifier.weight \(3,\); VGGish expects no such array",
    )
    refuse(small | {"features.0.bias": np.zeros(3, np.float32)}, r"features.0.bias \(3,\); VGGish expects \(2,\)")
    refuse(small | {"features.0.bias": np.ones(2, np.int64)}, "features.0.bias as I64; expected one of F32")
    with pytest.raises(InputError, match="has the SHA-256"):
        load_embedding("vggish", str(path), sha256="00")
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="is not a safetensors file"):
        load_embedding("vggish", str(path))
    with pytest.raises(InputError, match="no weights at"):
        load_embedding("vggish", str(tmp_path / "nowhere.pth"))


def test_a_pickle_with_code_is_not_run(tmp_path):

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"features.0.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match=r"bomb.pth cannot be read"):
        load_embedding("vggish", str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds a list"):
        load_embedding("vggish", str(tmp_path / "list.pth"))


def test_without_torch_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "vggish.pth").write_bytes(json.dumps({}).encode())
    with pytest.raises(InputError, match=r"hafm_jax\[torch\]"):
        load_embedding("vggish", str(tmp_path / "vggish.pth"))
