"""Small HuBERT models of the real class with random weights, saved and loaded as the published ones are."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from helpers.torch_models import HUBERT, hubert_folder, noise, torch, transformers  # noqa: F401 (fixtures)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import hubert
from hafm_jax.tokenizers.semantic import SemanticTokenizer, nearest_centroids


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
def loaded(folder, layer: int) -> hubert.HubertFeatures:
    """Loaded once, for all examples of hypothesis."""
    return hubert.HubertFeatures(folder, layer)


@torch.no_grad()
def all_layers(folder, audio: np.ndarray) -> list[np.ndarray]:
    model = transformers.HubertModel.from_pretrained(folder).eval()
    out = model(torch.tensor(audio)[None], output_hidden_states=True)
    return [hidden[0].numpy() for hidden in out.hidden_states]


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_hubert_gives_the_models_own_hidden_states(hubert_folder, layer):
    audio = noise(640 * 5)
    (features,) = hubert.HubertFeatures(hubert_folder, layer).features_of([audio])
    expected = all_layers(hubert_folder, np.pad(audio, 40))[layer]
    assert features.shape == (10, 32) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_hubert_normalises_where_its_preprocessor_does(large_hubert_folder, layer):
    audio = noise(640 * 5)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(large_hubert_folder)
    values = extractor(audio, sampling_rate=16_000, return_tensors="np").input_values[0]
    (features,) = hubert.HubertFeatures(large_hubert_folder, layer).features_of([audio])
    np.testing.assert_allclose(features, all_layers(large_hubert_folder, np.pad(values, 40))[layer], atol=1e-4)


def test_hubert_convolves_in_pieces_without_a_trace(either_hubert_folder, monkeypatch):
    model = loaded(either_hubert_folder, 2)
    audio = noise(320 * 50)
    (whole,) = model.features_of([audio])
    for frames in (1, 7, 49):
        monkeypatch.setattr(hubert, "CONVOLUTION_FRAMES", frames)
        np.testing.assert_allclose(model.features_of([audio])[0], whole, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_hubert_runs_the_layers_it_needs_and_no_other(large_hubert_folder, monkeypatch, layer):
    calls, layer_class = [], transformers.models.hubert.modeling_hubert.HubertEncoderLayerStableLayerNorm
    run_layer = layer_class.forward
    monkeypatch.setattr(layer_class, "forward", lambda *a, **k: calls.append(1) or run_layer(*a, **k))
    hubert.HubertFeatures(large_hubert_folder, layer).features_of([noise(640)])
    assert len(calls) == layer


@settings(max_examples=10)
@given(cells=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
@example([41, 80, 119, 120], 0)
def test_a_hubert_batch_is_its_clips_one_by_one(either_hubert_folder, cells, seed):
    """Two frames a cell, on devices that take one clip at a time or many; silence and loud clips among them."""
    model = loaded(either_hubert_folder, 2)
    clips = [noise(640 * n, seed + k) * np.float32((1, 0, 8)[k % 3]) for k, n in enumerate(cells)]
    singles = [model.features_of([clip])[0] for clip in clips]
    assert [single.shape for single in singles] == [(2 * n, 32) for n in cells]
    centroids = np.concatenate(singles)[::3]
    tokenizer = SemanticTokenizer({"features": "hubert", "source": str(either_hubert_folder), "layer": 2}, centroids)
    for batch_samples in (1, 640 * 20, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(hubert.BATCH_SAMPLES, "cpu", batch_samples)
            together, tokens = model.features_of(clips), tokenizer.encode_all(clips)
        for single, row, row_tokens in zip(singles, together, tokens, strict=True):
            np.testing.assert_allclose(row, single, atol=1e-4)
            np.testing.assert_array_equal(row_tokens, nearest_centroids(single, centroids))


def test_hubert_in_pieces_is_close_to_one_pass_and_keeps_every_frame(large_hubert_folder, monkeypatch):
    model = hubert.HubertFeatures(large_hubert_folder, 2)
    audio = noise(320 * 150)
    (whole,) = model.features_of([audio])
    monkeypatch.setattr(hubert, "MAX_FRAMES", 70)
    monkeypatch.setattr(hubert, "CONTEXT_FRAMES", 20)
    pieces, short = model.features_of([audio, audio[: 320 * 50]])
    assert pieces.shape == whole.shape and short.shape == (50, 32)
    # Frame by frame the nearest of all frames of one pass must be the same frame: nothing is lost, doubled or moved.
    np.testing.assert_array_equal(nearest_centroids(pieces, whole), np.arange(150))


@given(num_frames=st.integers(1, 10_000))
def test_pieces_keep_every_frame_once_with_its_context(num_frames):
    pieces = hubert._pieces(0, num_frames)
    kept = [frame for piece in pieces for frame in range(piece.start, piece.stop)]
    assert kept == list(range(num_frames))
    for piece in pieces:
        assert 0 <= piece.first <= piece.start and piece.stop <= piece.last <= num_frames
        assert piece.num_given <= hubert.MAX_FRAMES
        assert piece.first == 0 or piece.start - piece.first == hubert.CONTEXT_FRAMES
        assert piece.last == num_frames or piece.last - piece.stop == hubert.CONTEXT_FRAMES


def test_centroids_of_another_width_are_refused(hubert_folder):
    config = {"features": "hubert", "source": str(hubert_folder), "layer": 2}
    with pytest.raises(InputError, match="32 features a frame"):
        SemanticTokenizer(config, np.zeros((8, 7), np.float32)).encode(noise(640 * 4))


@pytest.mark.parametrize(
    ("layer", "options", "found"),
    [
        (-1, {}, "expected 0 to 3"),
        (4, {}, "expected 0 to 3"),
        (1, {"device": "cuda:99"}, "device 'cuda:99'"),
        (1, {"device": "abacus"}, "device 'abacus'"),
        (1, {"dtype": "int8"}, "dtype 'int8'"),
    ],
)
def test_layers_devices_and_types_that_do_not_exist(hubert_folder, layer, options, found):
    with pytest.raises(InputError, match=found):
        hubert.HubertFeatures(hubert_folder, layer, **options)


def test_hubert_of_another_rate(hubert_folder, tmp_path):
    config = transformers.HubertConfig(**HUBERT, conv_stride=(5, 2, 2, 2, 2, 2, 1))
    transformers.HubertModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="every 160 samples"):
        hubert.HubertFeatures(tmp_path, 1)


def test_hubert_refuses_part_frames(hubert_folder):
    with pytest.raises(ValueError, match="multiple of 320"):
        hubert.HubertFeatures(hubert_folder, 1).features_of([noise(320), noise(321)])


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.1), ("float16", 0.02)])
def test_hubert_in_half_precision_is_close(large_hubert_folder, dtype, tolerance):
    audio = noise(640 * 10)
    exact = hubert.HubertFeatures(large_hubert_folder, 2, device="cpu")
    half = hubert.HubertFeatures(large_hubert_folder, 2, device="cpu", dtype=dtype)
    assert (exact.device, exact.dtype, half.dtype) == ("cpu", "float32", dtype)
    (expected,), (found,) = exact.features_of([audio]), half.features_of([audio])
    assert found.dtype == np.float32 and 0 < np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_a_clip_beyond_half_precision_has_no_tokens_and_spoils_no_other(hubert_folder):
    config = {"features": "hubert", "source": str(hubert_folder), "layer": 1}
    centroids = np.random.default_rng(0).standard_normal((9, 32), np.float32)
    tokenizer = SemanticTokenizer(config, centroids, device="cpu", dtype="float16")
    good, loud = noise(640 * 3), np.full(640 * 3, 1e6, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hubert.BATCH_SAMPLES, "cpu", 1 << 30)
        first, none, last = tokenizer.encode_all([good, loud, good])
    assert none is None
    for tokens in (first, last):
        np.testing.assert_array_equal(tokens, tokenizer.encode(good))
    with pytest.raises(InputError, match=r"layer 1 of .* in float16; .*bfloat16"):
        tokenizer.encode(loud)


def test_hubert_hash_follows_the_weights_that_are_run(hubert_folder, tmp_path):
    def changed(name: str) -> str:
        model = transformers.HubertModel.from_pretrained(hubert_folder)
        with torch.no_grad():
            model.get_parameter(name).add_(1)
        model.save_pretrained(tmp_path / name)
        return hubert.HubertFeatures(tmp_path / name, 2).weights_sha256

    first = hubert.HubertFeatures(hubert_folder, 2).weights_sha256
    assert len(first) == 64
    assert first != changed("encoder.layers.1.layer_norm.bias")
    assert first == changed("encoder.layers.2.layer_norm.bias") == changed("masked_spec_embed")
    half = hubert.HubertFeatures(hubert_folder, 2, dtype="bfloat16").weights_sha256
    assert half == first != hubert.HubertFeatures(hubert_folder, 3).weights_sha256
