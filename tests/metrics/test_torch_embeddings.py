"""Small CLAP and EnCodec models of the real classes with random weights, saved and loaded as the published ones are."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra hafm_jax[torch]")

import torch
import transformers
from helpers.torch_models import ENCODEC, encodec_folder, noise  # noqa: F401 (a fixture)

from hafm_jax.audio.files import resample
from hafm_jax.common.errors import InputError
from hafm_jax.metrics.embeddings import load_embedding

AUDIO = {"depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2], "patch_embeds_hidden_size": 8, "hidden_size": 64}
TEXT = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 8}
TEXT |= {"num_hidden_layers": 1, "num_attention_heads": 1}


def save_clap(folder, truncation: str = "rand_trunc"):
    torch.manual_seed(0)
    text, audio = transformers.ClapTextConfig(**TEXT), transformers.ClapAudioConfig(**AUDIO)
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    model = transformers.ClapModel(config).eval()
    model.save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(truncation=truncation, frequency_min=50)
    extractor.save_pretrained(folder)
    return model, extractor


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clap")
    return str(folder), *save_clap(folder)


def test_clap_gives_the_models_own_embeddings_of_windows_of_ten_seconds(clap):
    folder, model, extractor = clap
    audio = noise(48_000 * 14)
    embedding = load_embedding("clap", folder)
    found = embedding(audio, 48_000)
    assert found.shape == (2, 16) and found.dtype == np.float32
    for row, window in zip(found, (audio[:480_000], audio[480_000:]), strict=True):
        with torch.inference_mode():
            features = extractor(window, sampling_rate=48_000, return_tensors="pt")
            expected = model.get_audio_features(features["input_features"].float()).pooler_output[0].numpy()
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4  # the model's output does differ


def test_clap_reads_48_khz(clap):
    embedding = load_embedding("clap", clap[0])
    clip = noise(24_000 * 10)
    assert embedding(clip, 24_000).shape == (1, 16)
    np.testing.assert_allclose(embedding(clip, 24_000), embedding(resample(clip, 24_000, 48_000), 48_000), atol=1e-6)


def test_the_hash_is_of_the_weights_not_of_the_file(clap, tmp_path):
    folder, model, extractor = clap
    embedding = load_embedding("clap", folder)
    assert len(embedding.sha256) == 64
    model.save_pretrained(tmp_path, max_shard_size="50kB")  # the same weights in several files
    extractor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert load_embedding("clap", str(tmp_path), embedding.sha256.upper()).sha256 == embedding.sha256
    with pytest.raises(InputError, match=rf"have the SHA-256 {embedding.sha256}; expected 00"):
        load_embedding("clap", folder, "00")


def test_clap_models_that_draw_random_crops_are_refused(tmp_path):
    save_clap(tmp_path, truncation="fusion")
    with pytest.raises(InputError, match="fuses random crops"):
        load_embedding("clap", str(tmp_path))


def test_clap_without_its_extractor_is_refused(clap, tmp_path):
    clap[1].save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        load_embedding("clap", str(tmp_path))


def test_encodec_is_the_mean_of_the_encoders_output_over_seconds(encodec_folder):
    model = transformers.EncodecModel.from_pretrained(encodec_folder).eval()
    audio = noise(24_000 * 3 + 5000)
    embed = load_embedding("encodec", str(encodec_folder))
    found = embed(audio, 24_000)
    with torch.inference_mode():
        latents = model.encoder(torch.from_numpy(audio)[None, None])[0].numpy()  # [D, F]
    expected = [latents[:, second * 75 : (second + 1) * 75].mean(axis=1) for second in range(3)]
    assert found.shape == (3, 16)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(InputError, match=r"expected 1\.00 s"):
        embed(audio[:10_000], 24_000)


def test_encodec_for_stereo_is_refused(tmp_path):
    transformers.EncodecModel(transformers.EncodecConfig(**ENCODEC, audio_channels=2)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="stereo"):
        load_embedding("encodec", str(tmp_path))


@pytest.mark.parametrize("kind", ["clap", "encodec"])
def test_missing_packages_and_files_are_named(kind, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"config\.json"):
        load_embedding(kind, str(tmp_path))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"hafm_jax\[torch\]"):
        load_embedding(kind, str(tmp_path))
