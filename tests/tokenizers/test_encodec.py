"""Small EnCodec models of the real class with random weights, and the original package at full size."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import types

import numpy as np
import pytest
from helpers.pickles import Malicious
from helpers.torch_models import ENCODEC, encodec_folder, encodec_model, noise, torch, transformers  # noqa: F401 (fixtures)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import encodec


def ours_and_theirs(folder):
    return encodec.EncodecCodec(folder), transformers.EncodecModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def small_encodec(encodec_folder):
    return ours_and_theirs(encodec_folder)


@torch.no_grad()
def encode(model, audio: np.ndarray) -> np.ndarray:
    """Codes [B, F, K] of audio [B, S], by transformers' model."""
    return model.encode(torch.tensor(audio[:, None]), bandwidth=6.0).audio_codes[0].permute(0, 2, 1).numpy()


@torch.no_grad()
def decode(model, codes: np.ndarray) -> np.ndarray:
    """Audio [B, S] of codes [B, F, K], by transformers' model."""
    return model.decode(torch.tensor(codes).permute(0, 2, 1)[None], [None]).audio_values[:, 0].numpy()


def test_encodec_is_the_model_at_six_kbps(small_encodec, monkeypatch):
    codec, model = small_encodec
    audio = np.stack([noise(320 * 9, seed) for seed in range(3)])
    codes = codec.encode(audio)
    assert codes.shape == (3, 9, 8) and codes.dtype == np.int32
    np.testing.assert_array_equal(codes, encode(model, audio))
    assert len(np.unique(codes)) > 20
    decoded = codec.decode(codes)
    assert decoded.shape == audio.shape and decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, decode(model, codes), atol=1e-5)

    monkeypatch.setitem(encodec.BATCH_CLIPS, "cpu", 2)  # a GPU takes more than one at a time
    np.testing.assert_array_equal(codec.encode(audio), codes)
    np.testing.assert_allclose(codec.decode(codes), decoded, atol=1e-5)


@pytest.fixture(scope="module")
def wide_encodec(tmp_path_factory):
    """All that reaches back in time doubled: residual layers with dilation, longer kernels, two LSTM layers."""
    folder = tmp_path_factory.mktemp("wide_encodec")
    config = {"num_residual_layers": 2, "kernel_size": 9, "last_kernel_size": 11, "num_lstm_layers": 2}
    encodec_model(**{**ENCODEC, **config}).save_pretrained(folder)
    return ours_and_theirs(folder)


# Always the same examples: with 16 frames, pieces of 12 and seed 18 two ids are equally near to 1e-7: rounding decides.
@settings(max_examples=25, derandomize=True)
@given(num_frames=st.integers(1, 60), piece=st.integers(12, 40), seed=st.integers(0, 99))
def test_encodec_in_pieces_is_one_pass(wide_encodec, num_frames, piece, seed):
    codec, model = wide_encodec
    audio = noise(320 * num_frames, seed)[None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodec, "PIECE_FRAMES", piece)
        codes = codec.encode(audio)
        np.testing.assert_array_equal(codes, encode(model, audio))
        np.testing.assert_allclose(codec.decode(codes), decode(model, codes), atol=1e-5)


def test_encodec_pieces_need_all_the_past_that_they_are_given(wide_encodec, monkeypatch):
    """With a frame less the sound differs: the computed reach of the convolutions has nothing to spare."""
    codec, _ = wide_encodec
    codes = codec.encode(noise(320 * 60)[None])
    whole = codec.decode(codes)
    monkeypatch.setattr(encodec, "PIECE_FRAMES", 20)
    for attribute in ("past_frames", "_recent_frames"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec._decoder, attribute, getattr(codec._decoder, attribute) - 1)
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
    codec = encodec.EncodecCodec(original_checkpoint)
    full_encodec.save_pretrained(tmp_path)
    assert codec.weights_sha256() == encodec.EncodecCodec(tmp_path).weights_sha256()
    audio = noise(320 * 40)[None]
    np.testing.assert_array_equal(codec.encode(audio), encode(full_encodec, audio))


def test_codes_and_sound_are_those_of_the_original_package(original_checkpoint, monkeypatch):
    module = original_encodec()
    original = module.EncodecModel.encodec_model_24khz(pretrained=False)
    original.load_state_dict(torch.load(original_checkpoint, weights_only=True))
    original.set_target_bandwidth(6.0)
    audio = np.stack([noise(320 * 150, seed) for seed in range(2)])
    with torch.no_grad():
        ((codes, scale),) = original.encode(torch.tensor(audio[:, None]))
        sound = original.decode([(codes, scale)])[:, 0].numpy()
    codec = encodec.EncodecCodec(original_checkpoint)
    monkeypatch.setattr(encodec, "PIECE_FRAMES", 100)
    assert len(np.unique(codes)) > 500
    np.testing.assert_array_equal(codec.encode(audio), codes.permute(0, 2, 1).numpy())
    np.testing.assert_allclose(codec.decode(codec.encode(audio)), sound, atol=1e-4)


def test_other_files_are_not_original_checkpoints(original_checkpoint, tmp_path):
    state = torch.load(original_checkpoint, weights_only=True)
    state = {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}  # a small file
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
            encodec.EncodecCodec(tmp_path / "x.th")
            pytest.fail(name)
    (tmp_path / "x.th").write_bytes(original_checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        encodec.EncodecCodec(tmp_path / "x.th")


@settings(max_examples=100, derandomize=True, database=None)
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(list(b"(){}[]ab}tu.cosqQhjNKIJUXVSR01\n\x80\x02")), max_size=30).map(bytes)
)
@example(b"root:x:0:0:root:/root:/bin/bash\n")  # as /etc/passwd begins: torch's unpickler pops from an empty stack
@example(b"")
def test_any_file_that_is_no_checkpoint_is_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.th"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"any\.th (cannot be read|holds a)"):
        encodec.load_encodec(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    victim = tmp_path / "victim"
    (tmp_path / "x.th").write_bytes(pickle.dumps({"a": Malicious(victim)}))
    torch.save({"a": Malicious(victim)}, tmp_path / "y.th")
    for name in ("x.th", "y.th"):
        with pytest.raises(InputError, match="cannot be read"):
            encodec.EncodecCodec(tmp_path / name)
    assert not victim.exists()


def test_encodec_decodes_the_first_books_alone(small_encodec):
    codec, model = small_encodec
    codes = np.random.default_rng(0).integers(0, 1024, (1, 6, 8))
    for books in (1, 4, 8):
        np.testing.assert_allclose(codec.decode(codes[..., :books]), decode(model, codes[..., :books]), atol=1e-5)


def test_encodecs_codebooks_add_up_to_what_its_quantizer_decodes(small_encodec):
    codec, model = small_encodec
    codes = np.random.default_rng(0).integers(0, 1024, (2, 6, 8))  # [B, F, K]
    with torch.no_grad():
        expected = model.quantizer.decode(torch.tensor(codes).permute(2, 0, 1))  # [B, D, F]
    assert codec.codebooks.shape[:2] == (8, 1024)
    found = sum(codec.codebooks[k][codes[..., k]] for k in range(8))
    np.testing.assert_allclose(found.transpose(0, 2, 1), expected.numpy(), atol=1e-6)


def test_encodec_refuses_what_does_not_fit(small_encodec):
    codec, _ = small_encodec
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
        encodec.EncodecCodec(tmp_path)


def test_encodec_hash_follows_the_weights(small_encodec, encodec_folder, tmp_path):
    first = small_encodec[0].weights_sha256()
    assert first == encodec.EncodecCodec(encodec_folder).weights_sha256() and len(first) == 64
    model = transformers.EncodecModel.from_pretrained(encodec_folder)
    model.quantizer.layers[7].codebook.embed[3, 5] += 1
    model.save_pretrained(tmp_path)
    assert encodec.EncodecCodec(tmp_path).weights_sha256() != first
