"""Small models of the real classes with random weights, saved and loaded as the published ones are."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pickle
import sys
import types

import numpy as np
import pytest
from helpers.torch_models import ENCODEC, HUBERT, encodec_folder, encodec_model, hubert_folder, noise  # noqa: F401 (fixtures)
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import torch_models
from hafm_jax.tokenizers.semantic import SemanticTokenizer, nearest_centroids

try:
    import torch
    import transformers
except ImportError:
    pytest.skip("needs the extra hafm_jax[torch]", allow_module_level=True)


@pytest.fixture(scope="module")
def large_hubert_folder(tmp_path_factory):
    """The large models' kind: layer norm in the convolutions and a final norm, and a preprocessor that normalises."""
    folder = tmp_path_factory.mktemp("hubert_large")
    torch.manual_seed(1)
    config = transformers.HubertConfig(**HUBERT, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True)
    transformers.HubertModel(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["hubert_folder", "large_hubert_folder"])
def either_hubert_folder(request):
    return request.getfixturevalue(request.param)


@functools.cache
def hubert(folder, layer: int) -> torch_models.HubertFeatures:
    """Loaded once: hypothesis asks many times."""
    return torch_models.HubertFeatures(folder, layer)


@torch.no_grad()
def all_layers(folder, audio: np.ndarray) -> list[np.ndarray]:
    model = transformers.HubertModel.from_pretrained(folder).eval()
    out = model(torch.tensor(audio)[None], output_hidden_states=True)
    return [hidden[0].numpy() for hidden in out.hidden_states]


# ------------------------------------------------------------------------------------------------------------ HuBERT


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_hubert_gives_the_models_own_hidden_states(hubert_folder, layer):
    audio = noise(640 * 5)
    (features,) = torch_models.HubertFeatures(hubert_folder, layer).features_of([audio])
    expected = all_layers(hubert_folder, np.pad(audio, 40))[layer]
    assert features.shape == (10, 32) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_hubert_normalises_where_its_preprocessor_does(large_hubert_folder, layer):
    audio = noise(640 * 5)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(large_hubert_folder)
    values = extractor(audio, sampling_rate=16_000, return_tensors="np").input_values[0]
    (features,) = torch_models.HubertFeatures(large_hubert_folder, layer).features_of([audio])
    np.testing.assert_allclose(features, all_layers(large_hubert_folder, np.pad(values, 40))[layer], atol=1e-4)


def test_hubert_convolves_in_pieces_without_a_trace(either_hubert_folder, monkeypatch):
    model = hubert(either_hubert_folder, 2)
    audio = noise(320 * 50)
    (whole,) = model.features_of([audio])
    for frames in (1, 7, 49):
        monkeypatch.setattr(torch_models, "HUBERT_CONVOLUTION_FRAMES", frames)
        np.testing.assert_allclose(model.features_of([audio])[0], whole, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_hubert_runs_the_layers_it_needs_and_no_other(large_hubert_folder, monkeypatch, layer):
    calls = []
    run_layer = transformers.models.hubert.modeling_hubert.HubertEncoderLayerStableLayerNorm.forward

    def count(self, *args, **kwargs):
        calls.append(1)
        return run_layer(self, *args, **kwargs)

    monkeypatch.setattr(transformers.models.hubert.modeling_hubert.HubertEncoderLayerStableLayerNorm, "forward", count)
    torch_models.HubertFeatures(large_hubert_folder, layer).features_of([noise(640)])
    assert len(calls) == layer


@settings(max_examples=20)
@given(num_cells=st.integers(1, 120))
def test_hubert_makes_exactly_two_frames_a_cell(hubert_folder, num_cells):
    (features,) = hubert(hubert_folder, 1).features_of([noise(640 * num_cells)])
    assert features.shape == (2 * num_cells, 32)


def test_hubert_alone_makes_a_frame_less(hubert_folder):
    """What the padding is for."""
    assert len(all_layers(hubert_folder, noise(160_000))[0]) == 499


@settings(max_examples=10)
@given(cells=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_hubert_batch_is_its_clips_one_by_one(either_hubert_folder, cells, seed):
    """On devices that take one clip at a time and on those that take many; silence and loud clips among them."""
    model = hubert(either_hubert_folder, 2)
    clips = [noise(640 * n, seed + k) * np.float32((1, 0, 8)[k % 3]) for k, n in enumerate(cells)]
    singles = [model.features_of([clip])[0] for clip in clips]
    centroids = np.concatenate(singles)[::3]
    tokenizer = SemanticTokenizer({"features": "hubert", "source": str(either_hubert_folder), "layer": 2}, centroids)
    for batch_samples in (1, 640 * 20, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(torch_models.HUBERT_BATCH_SAMPLES, "cpu", batch_samples)
            together, tokens = model.features_of(clips), tokenizer.encode_all(clips)
        for single, row, row_tokens in zip(singles, together, tokens, strict=True):
            np.testing.assert_allclose(row, single, atol=1e-4)
            np.testing.assert_array_equal(row_tokens, nearest_centroids(single, centroids))


def test_hubert_in_pieces_is_close_to_one_pass_and_keeps_every_frame(large_hubert_folder, monkeypatch):
    model = torch_models.HubertFeatures(large_hubert_folder, 2)
    audio = noise(320 * 150)
    (whole,) = model.features_of([audio])
    monkeypatch.setattr(torch_models, "HUBERT_MAX_FRAMES", 70)
    monkeypatch.setattr(torch_models, "HUBERT_CONTEXT_FRAMES", 20)
    pieces, short = model.features_of([audio, audio[: 320 * 50]])
    assert pieces.shape == whole.shape and short.shape == (50, 32)
    # Frame by frame the nearest of all frames of one pass must be the same frame: nothing is lost, doubled or moved.
    np.testing.assert_array_equal(nearest_centroids(pieces, whole), np.arange(150))


@given(num_frames=st.integers(1, 10_000))
def test_pieces_keep_every_frame_once_and_hear_no_more_than_they_may(num_frames):
    pieces = torch_models._pieces(0, num_frames)
    kept = [frame for piece in pieces for frame in range(piece.start, piece.stop)]
    assert kept == list(range(num_frames))
    for piece in pieces:
        assert 0 <= piece.first <= piece.start and piece.stop <= piece.last <= num_frames
        assert piece.num_heard <= torch_models.HUBERT_MAX_FRAMES
        assert piece.first == 0 or piece.start - piece.first == torch_models.HUBERT_CONTEXT_FRAMES
        assert piece.last == num_frames or piece.last - piece.stop == torch_models.HUBERT_CONTEXT_FRAMES


def test_hubert_tokens_are_the_nearest_centroids(hubert_folder):
    audio = noise(640 * 4)
    (features,) = torch_models.HubertFeatures(hubert_folder, 2).features_of([audio])
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
        torch_models.HubertFeatures(hubert_folder, 1).features_of([noise(320), noise(321)])


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.1), ("float16", 0.02)])
def test_hubert_in_half_precision_is_close(large_hubert_folder, dtype, tolerance):
    audio = noise(640 * 10)
    exact = torch_models.HubertFeatures(large_hubert_folder, 2, device="cpu")
    half = torch_models.HubertFeatures(large_hubert_folder, 2, device="cpu", dtype=dtype)
    assert (exact.device, exact.dtype, half.dtype) == ("cpu", "float32", dtype)
    (expected,), (found,) = exact.features_of([audio]), half.features_of([audio])
    assert found.dtype == np.float32 and 0 < np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_a_clip_beyond_half_precision_has_no_tokens_and_spoils_no_other(hubert_folder):
    config = {"features": "hubert", "source": str(hubert_folder), "layer": 1}
    centroids = np.random.default_rng(0).standard_normal((9, 32), np.float32)
    tokenizer = SemanticTokenizer(config, centroids, device="cpu", dtype="float16")
    good, loud = noise(640 * 3), np.full(640 * 3, 1e6, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(torch_models.HUBERT_BATCH_SAMPLES, "cpu", 1 << 30)
        first, none, last = tokenizer.encode_all([good, loud, good])
    assert none is None
    for tokens in (first, last):
        np.testing.assert_array_equal(tokens, tokenizer.encode(good))
    for refuse in (tokenizer.encode, tokenizer.features):
        with pytest.raises(InputError, match=r"layer 1 of .* in float16; .*bfloat16"):
            refuse(loud)


def test_hubert_hash_follows_the_weights_that_are_run(hubert_folder, tmp_path):
    def changed(name: str) -> str:
        model = transformers.HubertModel.from_pretrained(hubert_folder)
        with torch.no_grad():
            model.get_parameter(name).add_(1)
        model.save_pretrained(tmp_path / name)
        return torch_models.HubertFeatures(tmp_path / name, 2).weights_sha256

    first = torch_models.HubertFeatures(hubert_folder, 2).weights_sha256
    assert len(first) == 64
    assert first != changed("encoder.layers.1.layer_norm.bias")
    assert first == changed("encoder.layers.2.layer_norm.bias") == changed("masked_spec_embed")
    half = torch_models.HubertFeatures(hubert_folder, 2, dtype="bfloat16").weights_sha256
    assert half == first != torch_models.HubertFeatures(hubert_folder, 3).weights_sha256


def test_devices_and_types_that_are_not_there(hubert_folder):
    with pytest.raises(InputError, match="device 'cuda:99'"):
        torch_models.HubertFeatures(hubert_folder, 1, device="cuda:99")
    with pytest.raises(InputError, match="device 'abacus'"):
        torch_models.HubertFeatures(hubert_folder, 1, device="abacus")
    with pytest.raises(InputError, match="dtype 'int8'"):
        torch_models.HubertFeatures(hubert_folder, 1, dtype="int8")


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
    np.testing.assert_allclose(decoded, expected_audio, atol=1e-5)

    monkeypatch.setitem(torch_models.ENCODEC_BATCH_CLIPS, "cpu", 2)  # a GPU takes more than one at a time
    np.testing.assert_array_equal(codec.encode(audio), codes)
    np.testing.assert_allclose(codec.decode(codes), decoded, atol=1e-5)


@pytest.fixture(scope="module")
def wide_encodec(tmp_path_factory):
    """All that reaches back in time doubled: residual layers with dilation, longer kernels, two LSTM layers."""
    folder = tmp_path_factory.mktemp("wide_encodec")
    config = {"num_residual_layers": 2, "kernel_size": 9, "last_kernel_size": 11, "num_lstm_layers": 2}
    encodec_model(**{**ENCODEC, **config}).save_pretrained(folder)
    return torch_models.EncodecCodec(folder), transformers.EncodecModel.from_pretrained(folder).eval()


# Always the same examples: with 16 frames, pieces of 12 and seed 18 two ids are equally near to 1e-7: rounding decides.
@settings(max_examples=25, derandomize=True)
@given(num_frames=st.integers(1, 60), piece=st.integers(12, 40), seed=st.integers(0, 99))
def test_encodec_in_pieces_is_one_pass(wide_encodec, num_frames, piece, seed):
    codec, model = wide_encodec
    audio = noise(320 * num_frames, seed)[None]
    with torch.no_grad():
        expected = model.encode(torch.tensor(audio[:, None]), bandwidth=6.0).audio_codes
        expected_audio = model.decode(expected, [None]).audio_values[:, 0].numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_models, "ENCODEC_PIECE_FRAMES", piece)
        codes = codec.encode(audio)
        np.testing.assert_array_equal(codes, expected[0].permute(0, 2, 1).numpy())
        np.testing.assert_allclose(codec.decode(codes), expected_audio, atol=1e-5)


def test_encodec_pieces_need_all_the_past_that_they_are_given(wide_encodec, monkeypatch):
    """A frame less and the sound differs: the arithmetic of how far back convolutions hear has nothing to spare."""
    codec, _ = wide_encodec
    codes = codec.encode(noise(320 * 60)[None])
    whole = codec.decode(codes)
    monkeypatch.setattr(torch_models, "ENCODEC_PIECE_FRAMES", 20)
    for network, attribute in ((codec._decoder, "past_frames"), (codec._decoder, "_recent_frames")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, attribute, getattr(network, attribute) - 1)
            assert np.abs(codec.decode(codes) - whole).max() > 1e-5


# ------------------------------------------------------------------------------------------- EnCodec's original package


def original_encodec():
    """The model module of the `encodec` package. It imports torchaudio, for loading files, which need not be there."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("torchaudio") is None:
            patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
        return pytest.importorskip(
            "encodec.model", reason="needs `pip install --no-deps encodec einops`", exc_type=ImportError
        )


@pytest.fixture(scope="module")
def full_encodec():
    return encodec_model()


@pytest.fixture(scope="module")
def original_checkpoint(tmp_path_factory, full_encodec):
    """At full size, as the package saves its own: the weights of `full_encodec` under the package's names."""
    path = tmp_path_factory.mktemp("original") / "encodec_24khz-00000000.th"
    torch.save({original_name(name): value for name, value in full_encodec.state_dict().items()}, path)
    return path


def original_name(name: str) -> str:
    """The other way round than the function under test, and written on its own; the package checks it too (below)."""
    parts = name.split(".")
    if parts[0] == "quantizer":  # quantizer.layers.3.codebook.embed
        return f"quantizer.vq.layers.{parts[2]}._codebook.{parts[4]}"
    where, layer, inside, leaf = parts[0], parts[2], parts[3:-1], parts[-1]
    leaf = {"original0": "weight_g", "original1": "weight_v"}.get(leaf, leaf)
    inside = [part for part in inside if part not in ("parametrizations", "weight")]
    if inside[-1] == "conv":
        upsamples = where == "decoder" and len(inside) == 1 and layer not in ("0", "15")
        inside[-1:] = ["convtr", "convtr"] if upsamples else ["conv", "conv"]
    return ".".join([where, "model", layer, *inside, leaf])


def test_the_original_checkpoint_is_the_same_model(original_checkpoint, full_encodec, tmp_path):
    codec = torch_models.EncodecCodec(original_checkpoint)
    full_encodec.save_pretrained(tmp_path)
    assert codec.weights_sha256() == torch_models.EncodecCodec(tmp_path).weights_sha256()
    audio = noise(320 * 40)[None]
    with torch.no_grad():
        expected = full_encodec.encode(torch.tensor(audio[:, None]), bandwidth=6.0).audio_codes[0]
    np.testing.assert_array_equal(codec.encode(audio), expected.permute(0, 2, 1).numpy())


def test_codes_and_sound_are_those_of_the_original_package(original_checkpoint, monkeypatch):
    module = original_encodec()
    original = module.EncodecModel.encodec_model_24khz(pretrained=False)
    original.load_state_dict(torch.load(original_checkpoint, weights_only=True))
    original.set_target_bandwidth(6.0)
    audio = np.stack([noise(320 * 150, seed) for seed in range(2)])
    with torch.no_grad():
        ((codes, scale),) = original.encode(torch.tensor(audio[:, None]))
        sound = original.decode([(codes, scale)])[:, 0].numpy()
    codec = torch_models.EncodecCodec(original_checkpoint)
    monkeypatch.setattr(torch_models, "ENCODEC_PIECE_FRAMES", 100)
    assert len(np.unique(codes)) > 500
    np.testing.assert_array_equal(codec.encode(audio), codes.permute(0, 2, 1).numpy())
    np.testing.assert_allclose(codec.decode(codec.encode(audio)), sound, atol=1e-4)


def test_other_files_are_no_original_checkpoint(original_checkpoint, tmp_path):
    state = torch.load(original_checkpoint, weights_only=True)
    contents = {
        "not all tensors": {"a": torch.zeros(1), "b": "text"},
        "no dict": [torch.zeros(1)],
        "another model": {"a": torch.zeros(1)},
        "one missing": dict(list(state.items())[1:]),
        "another shape": {**state, "encoder.model.0.conv.conv.bias": torch.zeros(31)},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / "x.th")
        with pytest.raises(InputError, match=r"use encodec_24khz-\*\.th"):
            torch_models.EncodecCodec(tmp_path / "x.th")
            pytest.fail(name)
    (tmp_path / "x.th").write_bytes(original_checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        torch_models.EncodecCodec(tmp_path / "x.th")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    victim = tmp_path / "victim"
    with (tmp_path / "x.th").open("wb") as file:
        pickle.dump({"a": Malicious(str(victim))}, file)
    with pytest.raises(InputError, match="cannot be read"):
        torch_models.EncodecCodec(tmp_path / "x.th")
    torch.save({"a": Malicious(str(victim))}, tmp_path / "y.th")
    with pytest.raises(InputError, match="cannot be read"):
        torch_models.EncodecCodec(tmp_path / "y.th")
    assert not victim.exists()


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_encodec_decodes_the_first_books_alone(encodec_folder):
    codec = torch_models.EncodecCodec(encodec_folder)
    model = transformers.EncodecModel.from_pretrained(encodec_folder).eval()
    codes = np.random.default_rng(0).integers(0, 1024, (1, 6, 8))
    for books in (1, 4, 8):
        with torch.no_grad():
            expected = model.decode(torch.tensor(codes[None, :, :, :books]).permute(0, 1, 3, 2), [None]).audio_values
        np.testing.assert_allclose(codec.decode(codes[..., :books]), expected[:, 0].numpy(), atol=1e-5)


def test_encodecs_codebooks_add_up_to_what_its_quantizer_decodes(encodec_folder):
    codec = torch_models.EncodecCodec(encodec_folder)
    model = transformers.EncodecModel.from_pretrained(encodec_folder).eval()
    codes = np.random.default_rng(0).integers(0, 1024, (2, 6, 8))  # [B, F, K]
    with torch.no_grad():
        expected = model.quantizer.decode(torch.tensor(codes).permute(2, 0, 1))  # [B, D, F]
    assert codec.codebooks.shape[:2] == (8, 1024)
    found = sum(codec.codebooks[k][codes[..., k]] for k in range(8))
    np.testing.assert_allclose(found.transpose(0, 2, 1), expected.numpy(), atol=1e-6)


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
        ({"use_causal_conv": False}, "causal"),
        ({"norm_type": "time_group_norm"}, "norm"),
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
