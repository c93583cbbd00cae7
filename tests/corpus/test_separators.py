"""What all separators share: segments, levels, and how one is loaded."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest
from helpers.separators import RATE_HZ, demucs, demucs_file, noise, write_onnx  # noqa: F401 (fixtures)
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import separators
from hafm_jax.corpus.separators import in_segments, load_separator

# ---------------------------------------------------------------------------------------------------------- segments


@given(st.integers(1, 500), st.integers(8, 90), st.integers(0, 3), st.integers(1, 8))
def test_segments_of_the_identity_are_the_audio(num_samples, segment, edge, hop):
    audio = noise(num_samples)
    np.testing.assert_allclose(in_segments(audio, lambda piece: piece, segment, edge, hop), audio, atol=1e-6)


@given(st.integers(1, 300), st.integers(8, 90), st.integers(0, 3))
def test_every_segment_is_of_its_own_place(num_samples, segment, edge):
    audio = np.arange(1, num_samples + 1, dtype=np.float32) * np.ones((2, 1), np.float32)
    last = 0.0

    def process(piece):
        nonlocal last
        assert piece.shape == (2, segment)
        samples = piece[0][piece[0] > 0]
        np.testing.assert_array_equal(np.diff(samples), 1)
        assert samples[0] <= last + 1  # no gap after the one before
        last = samples[-1]
        return piece

    in_segments(audio, process, segment, edge, 1)
    assert last == num_samples


def test_neighbours_that_disagree_fade_into_each_other():
    """Each segment is its own number: a straight line between the numbers is the smoothest fade."""
    values = iter(np.resize([0.0, 1.0], 100))
    out = in_segments(noise(5000), lambda piece: np.full_like(piece, next(values)), 420, 10, 1)
    fade = 100  # a quarter of 400
    assert np.abs(np.diff(out)).max() == pytest.approx(1 / (fade + 1), rel=1e-4)
    np.testing.assert_array_equal(out[:, :300], 0)
    np.testing.assert_array_equal(out[:, 400:600], 1)
    np.testing.assert_allclose(out[0, 299:401], np.linspace(0, 1, 102), atol=1e-6)


def test_memory_does_not_grow_with_the_length():
    def beside(num_samples: int) -> int:
        audio = noise(num_samples)
        tracemalloc.start()
        out = in_segments(audio, lambda piece: piece * 2, 4000, 100, 1)
        peak = tracemalloc.get_traced_memory()[1] - out.nbytes
        tracemalloc.stop()
        return peak

    assert beside(400_000) < 1.5 * beside(20_000)


class Repeats:
    """A network that returns its input, and keeps it."""

    sample_rate_hz, sha256, segment_samples, edge_samples, hop_samples = RATE_HZ, "0" * 64, 1000, 100, 1

    def __init__(self, normalizes_song: bool) -> None:
        self.normalizes_song, self.inputs = normalizes_song, []

    def vocals(self, segment):
        self.inputs.append(segment[:, 100:900])
        return segment


@pytest.mark.parametrize("normalizes_song", [False, True])
def test_a_song_is_normalized_as_a_whole_and_back(normalizes_song):
    loud_at_the_end = (3 * noise(3200, seed=1) * np.linspace(0.1, 1, 3200) + 0.5).astype(np.float32)
    network = Repeats(normalizes_song)
    vocals = separators.Separator(network).separate(loud_at_the_end)
    np.testing.assert_allclose(vocals, loud_at_the_end, atol=1e-5)
    once = [*(piece[:, :600] for piece in network.inputs[:-1]), network.inputs[-1]]  # the next repeats the rest
    mono = np.concatenate(once, axis=1).mean(axis=0)
    expected = (0, 1) if normalizes_song else (loud_at_the_end.mean(), loud_at_the_end.mean(axis=0).std())
    assert (mono.mean(), mono.std()) == pytest.approx(expected, abs=1e-3)


# ----------------------------------------------------------------------------------------------------------- loading


def test_unknown_kinds_and_devices(demucs_file, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match="no separator is called 'spleeter'; expected one of demucs, mdx"):
        load_separator("spleeter", "x")
    assert separators.KINDS == ("demucs", "mdx")
    with pytest.raises(InputError, match="device 'tpu' cannot be used"):
        load_separator("demucs", str(demucs_file), device="tpu")
    write_onnx(tmp_path / "a.onnx").with_suffix(".json").write_text('{"n_fft": 2048}')
    with pytest.raises(InputError, match="no device tpu"):
        load_separator("mdx", str(tmp_path / "a.onnx"), device="tpu")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda:1' cannot be used"):
            load_separator("demucs", str(demucs_file), device="cuda:1")


@pytest.mark.parametrize(("kind", "package"), [("demucs", "demucs"), ("demucs", "torch"), ("mdx", "onnxruntime")])
def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.onnx").write_bytes(b"")
    (tmp_path / "a.json").write_text('{"n_fft": 2048}')
    with pytest.raises(InputError, match=r'pip install "hafm_jax\[separate\]"'):
        load_separator(kind, str(tmp_path / "a.onnx"))
