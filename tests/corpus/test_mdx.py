"""MDX-Net: small graphs of the real form against torch's STFT."""

from __future__ import annotations

import hashlib
import json
import types

import numpy as np
import pytest
from helpers.separators import BINS, FRAMES, HOP, N_FFT, RATE_HZ, noise, write_onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.separators import load_separator


def snr_db(reference: np.ndarray, found: np.ndarray) -> float:
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum())


pytest.importorskip("onnxruntime")


def mdx(path, mask=None, n_fft=N_FFT, **config):
    write_onnx(path, mask=mask)
    path.with_suffix(".json").write_text(json.dumps({"n_fft": n_fft, **config}))
    return load_separator("mdx", str(path), device="cpu")


def session(run) -> types.SimpleNamespace:
    """In place of ONNX Runtime's, with this function of the network's input."""
    return types.SimpleNamespace(run=lambda _, feed: [run(feed["input"])])


def test_an_error_of_onnx_runtime_becomes_a_runtime_error(tmp_path, monkeypatch):
    """As torch's errors are, which the command can turn into advice."""
    separator = mdx(tmp_path / "a.onnx")

    def run(_):
        raise Exception("Failed to allocate memory")

    monkeypatch.setattr(separator._network, "_session", session(run))
    with pytest.raises(RuntimeError, match="Failed to allocate memory"):
        separator.separate(noise(1000))


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return mdx(tmp_path_factory.mktemp("mdx") / "identity.onnx")


def tone(f_hz: float, num_samples: int, level: float = 0.3) -> np.ndarray:
    phase = 2 * np.pi * f_hz * np.arange(num_samples) / RATE_HZ
    return (level * np.stack([np.sin(phase), np.cos(phase)])).astype(np.float32)


def masked_in_one_pass(mixture: np.ndarray, mask: np.ndarray, n_fft: int) -> np.ndarray:
    """torch's STFT of the whole file, times mask [F], and back."""
    torch = pytest.importorskip("torch")
    num_samples, before = mixture.shape[1], 4 * HOP
    after = 4 * HOP + -num_samples % HOP
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(torch.nn.functional.pad(torch.tensor(mixture), (before, after)), n_fft, HOP, window=window,
                          return_complex=True)  # fmt: skip
    gains = torch.zeros(n_fft // 2 + 1)
    gains[: len(mask)] = torch.tensor(mask)
    out = torch.istft(spectrum * gains[:, None], n_fft, HOP, window=window)
    return out[:, before : before + num_samples].numpy()


def test_the_network_receives_the_spectrum_of_its_training(tmp_path, monkeypatch):
    """torch.stft as its authors call it: left real, left imaginary, right real, right imaginary."""
    torch = pytest.importorskip("torch")
    network = mdx(tmp_path / "a.onnx")._network
    inputs = []
    monkeypatch.setattr(network, "_session", session(lambda x: inputs.append(x) or x))
    segment = noise(network.segment_samples)
    network.vocals(segment)
    spectrum = torch.stft(torch.tensor(segment), N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)
    left, right = spectrum[:, :BINS].numpy()
    expected = np.stack([left.real, left.imag, right.real, right.imag])[None]
    assert expected.shape == inputs[0].shape == (1, 4, BINS, FRAMES) and inputs[0].dtype == np.float32
    np.testing.assert_allclose(inputs[0], expected, atol=1e-4)


@pytest.mark.parametrize("n_fft", [2048, 2560, 4096])
def test_a_mask_in_segments_is_the_mask_in_one_pass(tmp_path, n_fft):
    mask = np.random.default_rng(1).uniform(0.2, 1, BINS).astype(np.float32)
    separator = mdx(tmp_path / "mask.onnx", mask, n_fft)
    mixture = noise(100_000, seed=2)
    vocals = separator.separate(mixture)
    assert vocals.dtype == np.float32 and separator.sample_rate_hz == RATE_HZ
    assert snr_db(masked_in_one_pass(mixture, mask, n_fft), vocals) > 60
    mixture[1] = 0
    assert not separator.separate(mixture)[1].any()


def test_a_network_of_the_instrumental_leaves_the_vocals(tmp_path):
    """The network takes 0.75 of a tone below 11,025 Hz, bin 512 of 2048, with gain 0.5 * 1.5. A tone above it is in
    neither stem."""
    separator = mdx(tmp_path / "a.onnx", np.full(BINS, 0.5), stem="instrumental", gain=1.5)
    low, high = tone(3000.0, 60_000), tone(14_000.0, 60_000)
    inside = slice(2048, -2048)  # the start of a tone is in all bins
    np.testing.assert_allclose(separator.separate(low + high)[:, inside], 0.25 * low[:, inside], atol=2e-4)


@settings(max_examples=15)
@given(st.integers(1, 80_000))
def test_mdx_of_any_length(identity, num_samples):
    mixture = tone(2000.0, num_samples)
    vocals = identity.separate(mixture)
    assert vocals.shape == mixture.shape and np.isfinite(vocals).all()
    np.testing.assert_allclose(vocals[:, 2048:-2048], mixture[:, 2048:-2048], atol=2e-4)


def test_published_models_need_no_json(tmp_path, monkeypatch):
    from hafm_jax.corpus import mdx as module

    mixture = noise(20_000)
    expected = mdx(tmp_path / "a.onnx", gain=0.5).separate(mixture)
    (tmp_path / "a.json").unlink()
    with pytest.raises(InputError, match=r"known by its SHA-256.*expected the n_fft"):
        load_separator("mdx", str(tmp_path / "a.onnx"))
    digest = hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest()
    monkeypatch.setitem(module.PUBLISHED, digest, module.MdxConfig(N_FFT, gain=0.5))
    separator = load_separator("mdx", str(tmp_path), digest, "cpu")  # the folder's only model
    assert separator.sha256 == digest
    np.testing.assert_array_equal(separator.separate(mixture), expected)


OTHER_FORM = r"inputs and outputs.*expected one of each.*\[batch, 4, bins, frames\]"


@pytest.mark.parametrize(
    ("graph", "document", "found"),
    [
        ({}, "{", "expected a description"),
        ({}, "[1]", "expected a description"),
        ({}, '{"stem": "vocals"}', "expected a description"),
        ({}, '{"n_fft": 2048, "dim_f": 512}', "expected a description"),
        ({}, '{"n_fft": 2048, "stem": "drums"}', "stem one of vocals, instrumental"),
        ({}, '{"n_fft": "2048"}', "n_fft"),
        ({}, '{"n_fft": 2048, "gain": null}', "gain"),
        ({}, '{"n_fft": 1000}', "n_fft is 1000; expected an even number from 2048 to 11776"),
        ({}, '{"n_fft": 2049}', "expected an even number"),
        ({}, '{"n_fft": 16384}', "expected an even number"),
        ({"shape": ["batch_size", 2, BINS, FRAMES]}, '{"n_fft": 2048}', OTHER_FORM),
        ({"shape": ["batch_size", 4, BINS, "frames"]}, '{"n_fft": 2048}', OTHER_FORM),
        ({"shape": ["batch_size", 4, BINS]}, '{"n_fft": 2048}', OTHER_FORM),
        ({"shape": [8, 4, BINS, FRAMES]}, '{"n_fft": 2048}', OTHER_FORM),
        ({"dtype": "FLOAT16"}, '{"n_fft": 2048}', OTHER_FORM),
    ],
)
def test_wrong_descriptions_and_graphs_are_named(tmp_path, graph, document, found):
    write_onnx(tmp_path / "a.onnx", **graph)
    (tmp_path / "a.json").write_text(document)
    with pytest.raises(InputError, match=found):
        load_separator("mdx", str(tmp_path / "a.onnx"))


def test_damaged_and_missing_onnx_files(tmp_path):
    path = write_onnx(tmp_path / "a.onnx")
    path.with_suffix(".json").write_text('{"n_fft": 2048}')
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a.onnx cannot be loaded.*get it again"):
        load_separator("mdx", str(path))
    with pytest.raises(InputError, match=r"a.onnx has the SHA-256"):
        load_separator("mdx", str(path), "0" * 64)
    write_onnx(tmp_path / "b.onnx")
    with pytest.raises(InputError, match=r"holds a.onnx, b.onnx; expected one"):
        load_separator("mdx", str(tmp_path))
