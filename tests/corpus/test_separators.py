"""Small networks of the real forms, with weights that the test makes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import tracemalloc
import types
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import separators
from hafm_jax.corpus.separators import in_segments, load_separator

RATE_HZ = 44_100


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (2, num_samples)).astype(np.float32)


def snr_db(reference: np.ndarray, found: np.ndarray) -> float:
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum())


# ---------------------------------------------------------------------------------------------------------- segments


@given(st.integers(1, 500), st.integers(8, 90), st.integers(0, 3), st.integers(1, 8))
def test_segments_of_the_identity_are_the_audio(num_samples, segment, edge, hop):
    audio = noise(num_samples)
    np.testing.assert_allclose(in_segments(audio, lambda piece: piece, segment, edge, hop), audio, atol=1e-6)


@given(st.integers(1, 300), st.integers(8, 90), st.integers(0, 3))
def test_every_segment_hears_its_own_place(num_samples, segment, edge):
    audio = np.arange(1, num_samples + 1, dtype=np.float32) * np.ones((2, 1), np.float32)
    last = 0.0

    def process(piece):
        nonlocal last
        assert piece.shape == (2, segment)
        heard = piece[0][piece[0] > 0]
        np.testing.assert_array_equal(np.diff(heard), 1)
        assert heard[0] <= last + 1  # no gap after the one before
        last = heard[-1]
        return piece

    in_segments(audio, process, segment, edge, 1)
    assert last == num_samples


def test_neighbours_that_disagree_fade_into_each_other():
    """Each segment says its own number: a line between the numbers is the smoothest that a fade can be."""
    said = iter(np.resize([0.0, 1.0], 100))
    out = in_segments(noise(5000), lambda piece: np.full_like(piece, next(said)), 420, 10, 1)
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
    """A network that gives what it hears, and keeps it."""

    sample_rate_hz, sha256, segment_samples, edge_samples, hop_samples = RATE_HZ, "0" * 64, 1000, 100, 1

    def __init__(self, normalizes_song: bool) -> None:
        self.normalizes_song, self.heard = normalizes_song, []

    def vocals(self, segment):
        self.heard.append(segment[:, 100:900])
        return segment


@pytest.mark.parametrize("normalizes_song", [False, True])
def test_a_song_is_normalized_as_a_whole_and_back(normalizes_song):
    loud_at_the_end = (3 * noise(3200, seed=1) * np.linspace(0.1, 1, 3200) + 0.5).astype(np.float32)
    network = Repeats(normalizes_song)
    vocals = separators.Separator(network).separate(loud_at_the_end)
    np.testing.assert_allclose(vocals, loud_at_the_end, atol=1e-5)
    once = [*(piece[:, :600] for piece in network.heard[:-1]), network.heard[-1]]  # the next repeats the rest
    mono = np.concatenate(once, axis=1).mean(axis=0)
    expected = (0, 1) if normalizes_song else (loud_at_the_end.mean(), loud_at_the_end.mean(axis=0).std())
    assert (mono.mean(), mono.std()) == pytest.approx(expected, abs=1e-3)


# --------------------------------------------------------------------------------------------------------------- mdx

N_FFT, BINS, FRAMES, HOP = 2048, 512, 24, 1024


def write_onnx(path, bins=BINS, frames=FRAMES, mask=None, shape=None, dtype="FLOAT"):
    """A graph of MDX-Net's form: the input times a mask [F], or as it is."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, getattr(onnx.TensorProto, dtype)
    shape = shape or ["batch_size", 4, bins, frames]
    mask = np.ones(bins, np.float32) if mask is None else mask
    initializers = [onnx.numpy_helper.from_array(mask.astype(np.float32)[:, None], "mask")]
    node = helper.make_node("Mul", ["input", "mask"], ["output"])
    if dtype != "FLOAT" or shape != ["batch_size", 4, bins, frames]:
        node, initializers = helper.make_node("Identity", ["input"], ["output"]), []
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in ("input", "output")]
    graph = helper.make_graph([node], "mdx", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def mdx(path, mask=None, n_fft=N_FFT, **config):
    pytest.importorskip("onnxruntime")
    write_onnx(path, mask=mask)
    path.with_suffix(".json").write_text(json.dumps({"n_fft": n_fft, **config}))
    return load_separator("mdx", str(path), device="cpu")


def test_what_onnx_runtime_fails_with_is_a_runtime_error(tmp_path, monkeypatch):
    """As torch's errors are, which the command can turn into advice."""
    separator = mdx(tmp_path / "a.onnx")

    class Fail(Exception):
        pass

    def run(*_):
        raise Fail("Failed to allocate memory")

    monkeypatch.setattr(separator._network, "_session", types.SimpleNamespace(run=run))
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


def test_the_identity_keeps_what_lies_below_its_bins(identity):
    """Bin 512 of 2048 is 11,025 Hz."""
    low, high = tone(3000.0, 60_000), tone(14_000.0, 60_000)
    vocals = identity.separate(low + high)
    inside = slice(2048, -2048)  # a tone that begins is heard in all bins
    np.testing.assert_allclose(vocals[:, inside], low[:, inside], atol=2e-4)
    assert vocals.dtype == np.float32 and identity.sample_rate_hz == RATE_HZ


def test_the_network_hears_what_it_was_trained_with(tmp_path, monkeypatch):
    """torch.stft as its authors call it: left real, left imaginary, right real, right imaginary."""
    torch = pytest.importorskip("torch")
    network = mdx(tmp_path / "a.onnx")._network
    heard = []

    class Session:
        def run(self, _, feed):
            heard.append(feed["input"])
            return [feed["input"]]

    monkeypatch.setattr(network, "_session", Session())
    segment = noise(network.segment_samples)
    network.vocals(segment)
    spectrum = torch.stft(torch.tensor(segment), N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)
    left, right = spectrum[:, :BINS].numpy()
    expected = np.stack([left.real, left.imag, right.real, right.imag])[None]
    assert expected.shape == heard[0].shape == (1, 4, BINS, FRAMES) and heard[0].dtype == np.float32
    np.testing.assert_allclose(heard[0], expected, atol=1e-4)


@pytest.mark.parametrize("n_fft", [2048, 2560, 4096])
def test_a_mask_in_segments_is_the_mask_in_one_pass(tmp_path, n_fft):
    mask = np.random.default_rng(1).uniform(0.2, 1, BINS).astype(np.float32)
    separator = mdx(tmp_path / "mask.onnx", mask, n_fft)
    mixture = noise(100_000, seed=2)
    assert snr_db(masked_in_one_pass(mixture, mask, n_fft), separator.separate(mixture)) > 60


def test_channels_stay_apart(tmp_path):
    mixture = noise(30_000)
    mixture[1] = 0
    vocals = mdx(tmp_path / "a.onnx", np.linspace(1, 0, BINS)).separate(mixture)
    assert np.abs(vocals[0]).max() > 0.01 and not vocals[1].any()


def test_a_network_of_the_instrumental_leaves_the_vocals(tmp_path):
    """Of a tone below the bins' end the network takes 0.75, with gain 0.5 * 1.5; one above it is nobody's."""
    separator = mdx(tmp_path / "a.onnx", np.full(BINS, 0.5), stem="instrumental", gain=1.5)
    low, high = tone(3000.0, 60_000), tone(14_000.0, 60_000)
    inside = slice(2048, -2048)
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


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("{", "no description"),
        ("[1]", "no description"),
        ('{"stem": "vocals"}', "no description"),
        ('{"n_fft": 2048, "dim_f": 512}', "no description"),
        ('{"n_fft": 2048, "stem": "drums"}', "stem one of vocals, instrumental"),
        ('{"n_fft": "2048"}', "n_fft"),
        ('{"n_fft": 2048, "gain": null}', "gain"),
        ('{"n_fft": 1000}', "n_fft is 1000; expected an even number from 2048 to 11776"),
        ('{"n_fft": 2049}', "expected an even number"),
        ('{"n_fft": 16384}', "expected an even number"),
    ],
)
def test_wrong_descriptions_are_named(tmp_path, document, found):
    pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "a.onnx")
    (tmp_path / "a.json").write_text(document)
    with pytest.raises(InputError, match=found):
        load_separator("mdx", str(tmp_path / "a.onnx"))


@pytest.mark.parametrize(
    "graph",
    [
        {"shape": ["batch_size", 2, BINS, FRAMES]},
        {"shape": ["batch_size", 4, BINS, "frames"]},
        {"shape": ["batch_size", 4, BINS]},
        {"shape": [8, 4, BINS, FRAMES]},
        {"dtype": "FLOAT16"},
    ],
)
def test_graphs_of_another_form_are_named(tmp_path, graph):
    pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "a.onnx", **graph)
    (tmp_path / "a.json").write_text('{"n_fft": 2048}')
    with pytest.raises(InputError, match=r"inputs and outputs.*expected one of each.*\[batch, 4, bins, frames\]"):
        load_separator("mdx", str(tmp_path / "a.onnx"))


def test_damaged_and_missing_onnx_files(tmp_path):
    pytest.importorskip("onnxruntime")
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


# ------------------------------------------------------------------------------------------------------------ demucs

SOURCES = ["drums", "bass", "other", "vocals"]
TINY = {"channels": 8, "t_layers": 1, "t_heads": 2, "segment": Fraction(3, 5)}


@pytest.fixture(scope="module")
def demucs():
    pytest.importorskip("demucs")
    import demucs.apply
    import demucs.hdemucs
    import demucs.htdemucs
    import torch

    torch.set_num_threads(1)  # more are slower for a tiny network
    return demucs


def tiny_htdemucs(demucs, seed=0, sources=SOURCES, **kwargs):
    import torch

    torch.manual_seed(seed)
    return demucs.htdemucs.HTDemucs(sources, **{**TINY, **kwargs}).eval()


def checkpoint(model) -> dict:
    """As demucs publishes it: half precision, and numbers of numpy among the scores."""
    args, kwargs = model._init_args_kwargs
    return {
        "klass": type(model),
        "args": args,
        "kwargs": kwargs,
        "state": {name: value.half() for name, value in model.state_dict().items()},
        "training_args": {"epochs": 360, "dset": {"sources": SOURCES}},
        "metrics": {"test": {"nsdr": np.float64(9.0)}, "best": np.array([1.0, 2.0]).max()},
    }


def rounded(model):
    """The network with its weights as a checkpoint holds them."""
    return model.half().float()


def as_demucs_does(demucs, model, mixture: np.ndarray) -> np.ndarray:
    """The package's own way through a song, without its random shifts, to the vocals."""
    import torch

    audio = torch.tensor(mixture)
    mono = audio.mean(0)
    audio = (audio - mono.mean()) / (mono.std() + 1e-8)
    out = demucs.apply.apply_model(model, audio[None], shifts=0, split=True, overlap=0.25)
    return (out * (mono.std() + 1e-8) + mono.mean())[0, SOURCES.index("vocals")].numpy()


@pytest.fixture(scope="module")
def checkpoint_file(demucs, tmp_path_factory):
    import torch

    path = tmp_path_factory.mktemp("demucs") / "0123abcd-ffffffff.th"
    torch.save(checkpoint(tiny_htdemucs(demucs)), path)
    return path


def write_safetensors(path, model):
    from safetensors.torch import save_file

    args, kwargs = model._init_args_kwargs
    fraction = {"_type": "fraction", "numerator": TINY["segment"].numerator, "denominator": TINY["segment"].denominator}
    facts = {
        "klass": f"{type(model).__module__}.{type(model).__qualname__}",
        "args": json.dumps(args),
        "kwargs": json.dumps({**kwargs, "segment": fraction}),
    }
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path, facts)
    return path


# whole segments of 26,460 samples, three quarters of one apart: demucs places a last, shorter one otherwise than we do
SEGMENT, STRIDE = 26_460, 19_845


def test_a_song_in_segments_is_what_demucs_makes_of_it(demucs, checkpoint_file):
    separator = load_separator("demucs", str(checkpoint_file), device="cpu")
    assert separator.sample_rate_hz == RATE_HZ
    assert separator.sha256 == hashlib.sha256(checkpoint_file.read_bytes()).hexdigest()
    mixture = 0.3 + 2 * noise(2 * STRIDE + SEGMENT)
    vocals = separator.separate(mixture)
    expected = as_demucs_does(demucs, rounded(tiny_htdemucs(demucs)), mixture)
    assert vocals.dtype == np.float32
    np.testing.assert_allclose(vocals[:, : 3 * STRIDE], expected[:, : 3 * STRIDE], atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(vocals, separator.separate(mixture))  # no random shifts


def test_the_older_hybrid_models_are_read_too(demucs, tmp_path):
    import torch

    torch.manual_seed(0)
    model = demucs.hdemucs.HDemucs(SOURCES, channels=8, segment=Fraction(3, 5)).eval()
    torch.save(checkpoint(model), tmp_path / "a.th")
    mixture = noise(STRIDE + SEGMENT)
    vocals = load_separator("demucs", str(tmp_path), device="cpu").separate(mixture)
    expected = as_demucs_does(demucs, rounded(model), mixture)
    np.testing.assert_allclose(vocals[:, : 2 * STRIDE], expected[:, : 2 * STRIDE], atol=1e-4 * np.abs(expected).max())


def test_both_published_forms_give_the_same_vocals(demucs, checkpoint_file, tmp_path):
    path = write_safetensors(tmp_path / "0123abcd.safetensors", tiny_htdemucs(demucs))
    mixture = noise(30_000)
    first, second = (load_separator("demucs", str(p), device="cpu") for p in (checkpoint_file, path))
    np.testing.assert_array_equal(first.separate(mixture), second.separate(mixture))
    assert first.sha256 != second.sha256


def test_a_bag_is_the_mean_that_its_description_asks_for(demucs, tmp_path):
    models = [tiny_htdemucs(demucs, seed) for seed in range(3)]
    for number, model in enumerate(models):
        write_safetensors(tmp_path / f"model{number}.safetensors", model)
    shares = [[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 3.0]]
    (tmp_path / "bag.yaml").write_text(f"models: ['model0', 'model1', 'model2']\nweights: {shares}\nsegment: 0.6\n")
    separator = load_separator("demucs", str(tmp_path), device="cpu")
    mixture = noise(STRIDE + SEGMENT)
    expected = as_demucs_does(demucs, demucs.apply.BagOfModels([rounded(m) for m in models], shares), mixture)
    vocals = separator.separate(mixture)
    np.testing.assert_allclose(vocals[:, : 2 * STRIDE], expected[:, : 2 * STRIDE], atol=1e-4 * np.abs(expected).max())
    assert len(separator._network._models) == 2  # one says nothing of the vocals, and is not run


def test_demucs_of_any_length_and_of_silence(checkpoint_file):
    separator = load_separator("demucs", str(checkpoint_file), device="cpu")
    for num_samples in (1, 2, 1000, SEGMENT - 1, SEGMENT, SEGMENT + 1, 50_000):
        vocals = separator.separate(noise(num_samples))
        assert vocals.shape == (2, num_samples) and np.isfinite(vocals).all()
    assert np.abs(separator.separate(np.zeros((2, 30_000), np.float32))).max() < 1e-6


@pytest.mark.parametrize("shape", [(2, 0), (1, 100), (100,), (100, 2), (1, 2, 100)])
def test_mixtures_of_another_shape(checkpoint_file, shape):
    with pytest.raises(ValueError, match="expected \\[2, S\\]"):
        load_separator("demucs", str(checkpoint_file)).separate(np.zeros(shape, np.float32))


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class CallsTheClass:
    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return self.kind, (["vocals"],)


@pytest.mark.parametrize("place", ["klass", "state", "training_args", "whole"])
def test_no_code_of_a_pickle_is_run(demucs, tmp_path, place):
    import torch

    package = checkpoint(tiny_htdemucs(demucs))
    package[place] = RunsCode(tmp_path / "ran")
    torch.save(RunsCode(tmp_path / "ran") if place == "whole" else package, tmp_path / "evil.th")
    with pytest.raises(InputError, match=r"evil.th cannot be loaded as a Demucs model"):
        load_separator("demucs", str(tmp_path / "evil.th"))
    assert not (tmp_path / "ran").exists()


def test_not_even_demucs_is_called_by_a_pickle(demucs, tmp_path, monkeypatch):
    import torch

    package = {**checkpoint(tiny_htdemucs(demucs)), "metrics": CallsTheClass(demucs.htdemucs.HTDemucs)}
    torch.save(package, tmp_path / "a.th")
    made = []
    original = demucs.htdemucs.HTDemucs.__init__

    @functools.wraps(original)
    def init(*args, **kwargs):
        made.append(args)
        original(*args, **kwargs)

    monkeypatch.setattr(demucs.htdemucs.HTDemucs, "__init__", init)
    load_separator("demucs", str(tmp_path / "a.th"))
    assert len(made) == 1  # by us


def test_damaged_and_foreign_checkpoints(demucs, checkpoint_file, tmp_path):
    import torch

    def refused(found, document=None, path=tmp_path / "a.th"):
        if document is not None:
            torch.save(document, path)
        with pytest.raises(InputError, match=found):
            load_separator("demucs", str(path))

    whole = checkpoint(tiny_htdemucs(demucs))
    (tmp_path / "cut.th").write_bytes(checkpoint_file.read_bytes()[:-1000])
    refused("cut.th cannot be loaded", path=tmp_path / "cut.th")
    (tmp_path / "text.th").write_text("not found")
    refused("text.th cannot be loaded", path=tmp_path / "text.th")
    (tmp_path / "text.safetensors").write_text("not found")
    refused("text.safetensors cannot be loaded", path=tmp_path / "text.safetensors")
    refused("cannot be loaded", {"state": whole["state"]})
    refused("cannot be loaded", {**whole, "state": {}})
    refused("cannot be loaded", {**whole, "kwargs": {**TINY, "channels": 16}})
    refused("holds a Tensor; expected one of demucs", {**whole, "klass": torch.Tensor})
    refused("DiffQ", {**whole, "state": {"__quantized": True}})
    refused(
        "into drums, bass; expected 2 channels and vocals", checkpoint(tiny_htdemucs(demucs, sources=["drums", "bass"]))
    )
    refused("separates 1 channels", checkpoint(tiny_htdemucs(demucs, audio_channels=1)))


def test_names_of_demucs_are_looked_up_on_the_hub(demucs, checkpoint_file, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "955717e8.th").write_bytes(checkpoint_file.read_bytes())
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


def test_folders_that_are_no_bag(demucs, checkpoint_file, tmp_path):
    with pytest.raises(InputError, match=r"holds no such file; expected one model"):
        load_separator("demucs", str(tmp_path))
    (tmp_path / "bag.yaml").write_text("models: ['0123abcd', '4567']")
    (tmp_path / checkpoint_file.name).write_bytes(checkpoint_file.read_bytes())
    with pytest.raises(InputError, match=r"names the model 4567, and 0 files"):
        load_separator("demucs", str(tmp_path))
    (tmp_path / "bag.yaml").write_text("models: ['0123abcd']\nweights: [[1, 1]]")
    with pytest.raises(InputError, match=r"models and weights do not fit together"):
        load_separator("demucs", str(tmp_path))
    (tmp_path / "bag.yaml").write_text("models: ['0123abcd']\nweights: [[1, 1, 1, many]]")
    with pytest.raises(InputError, match=r"models and weights do not fit together"):
        load_separator("demucs", str(tmp_path))
    (tmp_path / "bag.yaml").write_text("models: ['0123abcd']\nweights: [[1, 1, 1, 0]]")
    with pytest.raises(InputError, match=r"gives the vocals of no model any weight"):
        load_separator("demucs", str(tmp_path))
    (tmp_path / "bag.yaml").write_text("models: {")
    with pytest.raises(InputError, match=r"describes no bag"):
        load_separator("demucs", str(tmp_path))
    (tmp_path / "bag.yaml").unlink()
    assert load_separator("demucs", str(tmp_path)).sha256 == hashlib.sha256(checkpoint_file.read_bytes()).hexdigest()


# ----------------------------------------------------------------------------------------------------------- loading


def test_unknown_kinds_and_devices(checkpoint_file, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match="no separator is called 'spleeter'; expected one of demucs, mdx"):
        load_separator("spleeter", "x")
    assert separators.KINDS == ("demucs", "mdx")
    with pytest.raises(InputError, match="no device 'tpu'"):
        load_separator("demucs", str(checkpoint_file), device="tpu")
    write_onnx(tmp_path / "a.onnx").with_suffix(".json").write_text('{"n_fft": 2048}')
    with pytest.raises(InputError, match="no device tpu"):
        load_separator("mdx", str(tmp_path / "a.onnx"), device="tpu")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="finds no GPU for device 'cuda:1'"):
            load_separator("demucs", str(checkpoint_file), device="cuda:1")


@pytest.mark.parametrize(("kind", "package"), [("demucs", "demucs"), ("demucs", "torch"), ("mdx", "onnxruntime")])
def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.onnx").write_bytes(b"")
    (tmp_path / "a.json").write_text('{"n_fft": 2048}')
    with pytest.raises(InputError, match=r'pip install "hafm_jax\[separate\]"'):
        load_separator(kind, str(tmp_path / "a.onnx"))
