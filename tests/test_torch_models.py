"""Small models of the real classes with random weights, saved and loaded as the published ones are."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from hafm_jax.audio import torch_models
from hafm_jax.audio.semantic import SemanticTokenizer, nearest_centroids
from hafm_jax.errors import InputError

try:
    import torch
    import transformers
except ImportError:
    pytest.skip("needs the extra hafm_jax[torch]", allow_module_level=True)

torch.set_num_threads(1)
HUBERT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
ENCODEC = {"num_filters": 4, "hidden_size": 16, "num_lstm_layers": 1, "target_bandwidths": [1.5, 3.0, 6.0]}


@pytest.fixture(scope="module")
def hubert_folder(tmp_path_factory):
    """Without a preprocessor config: audio goes in as it is."""
    folder = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(0)
    transformers.HubertModel(transformers.HubertConfig(**HUBERT)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def large_hubert_folder(tmp_path_factory):
    """The large models' kind: layer norm in the convolutions and a final norm, and a preprocessor that normalises."""
    folder = tmp_path_factory.mktemp("hubert_large")
    torch.manual_seed(1)
    config = transformers.HubertConfig(**HUBERT, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True)
    transformers.HubertModel(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encodec_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encodec")
    torch.manual_seed(2)
    model = transformers.EncodecModel(transformers.EncodecConfig(**ENCODEC))
    with torch.no_grad():  # codebooks are zero when fresh, and then every id is the same
        latents = model.encoder(torch.tensor(noise(320 * 1024, seed=9))[None, None])[0].T  # [1024, D]
        for depth, layer in enumerate(model.quantizer.layers):
            layer.codebook.embed.copy_(latents if depth == 0 else torch.randn_like(latents) * latents.std(dim=0) / 2)
    model.save_pretrained(folder)
    return folder


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.02, 0.1, num_samples).astype(np.float32)


@torch.no_grad()
def all_layers(folder, audio: np.ndarray) -> list[np.ndarray]:
    model = transformers.HubertModel.from_pretrained(folder).eval()
    out = model(torch.tensor(audio)[None], output_hidden_states=True)
    return [hidden[0].numpy() for hidden in out.hidden_states]


# ------------------------------------------------------------------------------------------------------------ HuBERT


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_hubert_gives_the_models_own_hidden_states(hubert_folder, layer):
    audio = noise(640 * 5)
    features = torch_models.HubertFeatures(hubert_folder, layer).features(audio)
    expected = all_layers(hubert_folder, np.pad(audio, 40))[layer]
    assert features.shape == (10, 32) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 3])
def test_hubert_normalises_where_its_preprocessor_does(large_hubert_folder, layer):
    audio = noise(640 * 5)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(large_hubert_folder)
    values = extractor(audio, sampling_rate=16_000, return_tensors="np").input_values[0]
    features = torch_models.HubertFeatures(large_hubert_folder, layer).features(audio)
    np.testing.assert_allclose(features, all_layers(large_hubert_folder, np.pad(values, 40))[layer], atol=1e-4)


@pytest.mark.parametrize("num_cells", [1, 2, 25, 250])
def test_hubert_makes_exactly_two_frames_a_cell(hubert_folder, num_cells):
    hubert = torch_models.HubertFeatures(hubert_folder, 1)
    assert hubert.features(noise(640 * num_cells)).shape == (2 * num_cells, hubert.dimensions)
    if num_cells == 250:  # what padding is for: alone it makes one frame less in 10 s
        assert len(all_layers(hubert_folder, noise(640 * num_cells))[0]) == 499


def test_hubert_in_pieces_is_close_to_one_pass_and_keeps_every_frame(large_hubert_folder, monkeypatch):
    hubert = torch_models.HubertFeatures(large_hubert_folder, 2)
    audio = noise(320 * 150)
    whole = hubert.features(audio)
    monkeypatch.setattr(torch_models, "HUBERT_MAX_FRAMES", 70)
    monkeypatch.setattr(torch_models, "HUBERT_CONTEXT_FRAMES", 20)
    pieces = hubert.features(audio)
    assert pieces.shape == whole.shape
    # Frame by frame the nearest of all frames of one pass must be the same frame: nothing is lost, doubled or moved.
    np.testing.assert_array_equal(nearest_centroids(pieces, whole), np.arange(150))


def test_hubert_tokens_are_the_nearest_centroids(hubert_folder):
    audio = noise(640 * 4)
    features = torch_models.HubertFeatures(hubert_folder, 2).features(audio)
    config = {"features": "hubert", "source": str(hubert_folder), "layer": 2}
    np.testing.assert_array_equal(SemanticTokenizer(config, features[::-1]).encode(audio), np.arange(8)[::-1])
    with pytest.raises(InputError, match="32 features a frame"):
        SemanticTokenizer(config, features[:, :7]).encode(audio)


@pytest.mark.parametrize("layer", [-1, 4])
def test_hubert_without_that_layer(hubert_folder, layer):
    with pytest.raises(InputError, match="expected 0 to 3"):
        torch_models.HubertFeatures(hubert_folder, layer)


def test_hubert_of_another_rate(hubert_folder, tmp_path):
    transformers.HubertModel(
        transformers.HubertConfig(**{**HUBERT, "conv_stride": (5, 2, 2, 2, 2, 2, 1)})
    ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="every 160 samples"):
        torch_models.HubertFeatures(tmp_path, 1)


def test_hubert_refuses_part_frames(hubert_folder):
    with pytest.raises(ValueError, match="multiple of 320"):
        torch_models.HubertFeatures(hubert_folder, 1).features(noise(321))


# ------------------------------------------------------------------------------------------------------------ EnCodec


def test_encodec_is_the_model_at_six_kbps(encodec_folder, monkeypatch):
    codec = torch_models.EncodecCodec(encodec_folder)
    model = transformers.EncodecModel.from_pretrained(encodec_folder).eval()
    audio = np.stack([noise(320 * 9, seed) for seed in range(3)])
    codes = codec.encode(audio)
    assert codes.shape == (3, 9, 8) and codes.dtype == np.int32
    with torch.no_grad():
        expected = model.encode(torch.tensor(audio[:, None]), bandwidth=6.0)
        np.testing.assert_array_equal(codes, expected.audio_codes[0].permute(0, 2, 1).numpy())
        expected_audio = model.decode(expected.audio_codes, expected.audio_scales).audio_values[:, 0].numpy()
    assert len(np.unique(codes)) > 20
    decoded = codec.decode(codes)
    assert decoded.shape == audio.shape and decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected_audio, atol=1e-6)

    monkeypatch.setattr(torch_models, "ENCODEC_SAMPLES_AT_ONCE", 1)  # row by row
    np.testing.assert_array_equal(codec.encode(audio), codes)
    np.testing.assert_allclose(codec.decode(codes), decoded, atol=1e-6)


def test_encodec_decodes_the_first_books_alone(encodec_folder):
    codec = torch_models.EncodecCodec(encodec_folder)
    model = transformers.EncodecModel.from_pretrained(encodec_folder).eval()
    codes = np.random.default_rng(0).integers(0, 1024, (1, 6, 8))
    for books in (1, 4, 8):
        with torch.no_grad():
            expected = model.decode(torch.tensor(codes[None, :, :, :books]).permute(0, 1, 3, 2), [None]).audio_values
        np.testing.assert_allclose(codec.decode(codes[..., :books]), expected[:, 0].numpy(), atol=1e-6)


def test_encodec_refuses_what_does_not_fit(encodec_folder):
    codec = torch_models.EncodecCodec(encodec_folder)
    for audio in (noise(320), noise(321)[None], np.zeros((1, 0), np.float32)):
        with pytest.raises(ValueError, match="multiple of 320"):
            codec.encode(audio)
    for codes in (np.zeros((1, 4, 9), int), np.zeros((1, 0, 8), int), np.full((1, 4, 8), 1024), np.full((1, 4, 8), -1)):
        with pytest.raises(ValueError, match=r"expected|valid"):
            codec.decode(codes)


@pytest.mark.parametrize(
    "change, found",
    [
        ({"sampling_rate": 48_000}, "sample rate"),
        ({"audio_channels": 2}, "channels"),
        ({"upsampling_ratios": [8, 5, 4]}, "samples a frame"),
        ({"codebook_size": 512}, "ids a codebook"),
        ({"normalize": True}, "normalisation"),
        ({"target_bandwidths": [1.5, 3.0]}, "6 kbps"),
    ],
)
def test_encodec_of_another_kind(tmp_path, change, found):
    transformers.EncodecModel(transformers.EncodecConfig(**{**ENCODEC, **change})).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=found):
        torch_models.EncodecCodec(tmp_path)


def test_encodec_hash_follows_the_weights(encodec_folder, tmp_path):
    first = torch_models.EncodecCodec(encodec_folder).weights_sha256()
    assert first == torch_models.EncodecCodec(encodec_folder).weights_sha256() and len(first) == 64
    model = transformers.EncodecModel.from_pretrained(encodec_folder)
    model.quantizer.layers[7].codebook.embed[3, 5] += 1
    model.save_pretrained(tmp_path)
    assert torch_models.EncodecCodec(tmp_path).weights_sha256() != first


# ----------------------------------------------------------------------------------------------------------- loading


def test_a_folder_never_touches_the_network(hubert_folder, encodec_folder, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    torch_models.HubertFeatures(hubert_folder, 1)
    torch_models.EncodecCodec(encodec_folder)


def test_unusable_sources_are_named(hubert_folder, encodec_folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no config"):
        torch_models.HubertFeatures(tmp_path / "absent", 1)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(InputError, match="cannot be loaded"):
        torch_models.HubertFeatures(tmp_path, 1)
    with pytest.raises(InputError, match=r"EnCodec|lacks"):  # another model's weights must not leave random ones behind
        torch_models.EncodecCodec(hubert_folder)


def test_pickled_weights_are_not_loaded(hubert_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((hubert_folder / "config.json").read_bytes())
    model = transformers.HubertModel.from_pretrained(hubert_folder)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        torch_models.HubertFeatures(tmp_path, 1)


def test_without_torch_the_extra_is_named(hubert_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for load in (lambda: torch_models.HubertFeatures(hubert_folder, 1), lambda: torch_models.EncodecCodec("x/y")):
        with pytest.raises(InputError, match=r'pip install "hafm_jax\[torch\]"'):
            load()
