"""Small separators of the real forms, with random weights: an MDX-Net as ONNX, Demucs models as safetensors."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

RATE_HZ = 44_100
N_FFT, BINS, FRAMES, HOP = 2048, 512, 24, 1024  # of the MDX-Net
SOURCES = ["drums", "bass", "other", "vocals"]
TINY = {"channels": 8, "t_layers": 1, "t_heads": 2, "segment": Fraction(3, 5)}


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (2, num_samples)).astype(np.float32)


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


@pytest.fixture(scope="module")
def demucs():
    """The package, on one thread: more are slower for a tiny network."""
    pytest.importorskip("demucs")
    import demucs.apply
    import demucs.hdemucs
    import demucs.htdemucs
    import torch

    torch.set_num_threads(1)
    return demucs


def tiny_htdemucs(demucs, seed=0, sources=SOURCES, **kwargs):
    import torch

    torch.manual_seed(seed)
    return demucs.htdemucs.HTDemucs(sources, **{**TINY, **kwargs}).eval()


def write_demucs(path: Path, model, state: dict | None = None, **facts: str) -> Path:
    """The model as demucs publishes it, in half precision; `state` and `facts` replace what the file would hold."""
    from safetensors.torch import save_file

    args, kwargs = model._init_args_kwargs
    fraction = {"_type": "fraction", "numerator": TINY["segment"].numerator, "denominator": TINY["segment"].denominator}
    header = {
        "klass": f"{type(model).__module__}.{type(model).__qualname__}",
        "args": json.dumps(args),
        "kwargs": json.dumps({**kwargs, "segment": fraction}),
    }
    state = model.state_dict() if state is None else state
    save_file({name: value.half().contiguous() for name, value in state.items()}, path, {**header, **facts})
    return path


@pytest.fixture(scope="module")
def demucs_file(demucs, tmp_path_factory) -> Path:
    return write_demucs(tmp_path_factory.mktemp("demucs") / "0123abcd.safetensors", tiny_htdemucs(demucs))
