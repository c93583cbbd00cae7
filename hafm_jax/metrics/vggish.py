"""VGGish, the network of the usual FAD, in JAX: log-mel patches of 0.96 s -> 128 numbers.

Hershey et al. 2017 (arXiv 1609.09430) as released for AudioSet (github.com/tensorflow/models,
research/audioset/vggish): six convolutions, three dense layers. The embedding is the last layer's output as in the
release, before any non-linearity, and without the PCA, whitening and quantisation to 8 bits of the embeddings published
with AudioSet: fadtk and the package frechet-audio-distance use the same. (The torch port ends in a ReLU, which is left
out here.) Patches do not overlap; Google's own FAD program steps by 0.5 s.

Weights are those of the torch port (github.com/harritaylor/torchvggish), under its names.

Axes: S samples, F frames, N patches, T time, M mel bands, C channels, W frequency bins.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.common import safetensors_io
from hafm_jax.common.download import check_sha256, find_weights
from hafm_jax.common.errors import InputError

# vggish_params.py of the release
SAMPLE_RATE_HZ = 16_000
WINDOW = 400  # 25 ms
HOP = 160  # 10 ms
FFT = 512
MEL_BANDS = 64
MEL_RANGE_HZ = (125.0, 7500.0)
LOG_OFFSET = 0.01
PATCH_FRAMES = 96  # 0.96 s
MIN_SAMPLES = WINDOW + (PATCH_FRAMES - 1) * HOP
PATCHES_AT_ONCE = 10  # a clip of 10 s; one shape is compiled once

# vggish_slim.py of the release: layer of the torch port -> channels in and out
CONVOLUTIONS = {
    "features.0": (1, 64),
    "features.3": (64, 128),
    "features.6": (128, 256),
    "features.8": (256, 256),
    "features.11": (256, 512),
    "features.13": (512, 512),
}
POOLED = ("features.0", "features.3", "features.8", "features.13")  # each followed by a 2 x 2 maximum
DENSE = {"embeddings.0": (6 * 4 * 512, 4096), "embeddings.2": (4096, 4096), "embeddings.4": (4096, 128)}
SHAPES = {
    **{f"{name}.weight": (out, into, 3, 3) for name, (into, out) in CONVOLUTIONS.items()},
    **{f"{name}.weight": (out, into) for name, (into, out) in DENSE.items()},
    **{f"{name}.bias": (out,) for name, (_, out) in {**CONVOLUTIONS, **DENSE}.items()},
}

USE = "use vggish-10086976.pth of torchvggish"

Params = Mapping[str, jax.Array]


def load(weights: str, sha256: str | None = None) -> tuple[Params, str]:
    """The parameters and the file's SHA-256. `weights`: a .pth or .safetensors file, a folder with one, an https URL.

    Raises InputError where the file is missing or has another hash, or a tensor is missing, unknown or misshapen.
    """
    path = find_weights(weights, ("*.pth", "*.safetensors"))
    if path.is_dir():
        files = sorted([*path.glob("*.pth"), *path.glob("*.safetensors")])
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "neither"
            raise InputError(f"{path} holds {names}; expected one .pth or .safetensors file: give the path of a file")
        path = files[0]
    found = check_sha256([path], sha256)
    return {name: jnp.asarray(tensor) for name, tensor in _read(path).items()}, found


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return safetensors_io.read_arrays(path, SHAPES, owner="VGGish", remedy=USE)
    from hafm_jax.metrics.torch_embeddings import read_tensors

    tensors = read_tensors(path)
    found = {name: (tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}
    for name in sorted(SHAPES.keys() | found.keys()):
        expected = (SHAPES[name], "float32") if name in SHAPES else None
        if found.get(name) != expected:
            raise InputError(
                f"{path} holds {name} {found.get(name, 'not at all')}; VGGish expects {expected or 'no such array'}: "
                f"{USE}"
            )
    return tensors


def embed(params: Params, audio: np.ndarray) -> np.ndarray:
    """Audio float32 [S] at 16 kHz, S at least MIN_SAMPLES -> float32 [N, 128]; an incomplete patch is left out."""
    patches = log_mel_patches(audio)
    out = []
    for start in range(0, len(patches), PATCHES_AT_ONCE):
        batch = patches[start : start + PATCHES_AT_ONCE]
        padded = np.pad(batch, ((0, PATCHES_AT_ONCE - len(batch)), (0, 0), (0, 0)))
        out.append(np.asarray(_forward(params, padded))[: len(batch)])
    return np.concatenate(out)


def log_mel_patches(audio: np.ndarray) -> np.ndarray:
    """Audio [S] at 16 kHz -> float32 [N, 96, 64]: log(mel magnitude + 0.01) of complete frames."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(audio, np.float64), WINDOW)[::HOP]  # [F, WINDOW]
    mel = np.abs(np.fft.rfft(frames * hann, FFT)) @ _mel_filters()  # [F, M]
    num_patches = len(mel) // PATCH_FRAMES
    patches = np.log(mel[: num_patches * PATCH_FRAMES] + LOG_OFFSET).reshape(num_patches, PATCH_FRAMES, MEL_BANDS)
    return patches.astype(np.float32)


@functools.cache
def _mel_filters() -> np.ndarray:
    """float64 [W, M]: triangles in mel (HTK's: 1127 ln(1 + f / 700)), peak 1, without 0 Hz.

    hafm_jax.audio.stft's triangles are linear in Hz instead.
    """

    def to_mel(hz: np.ndarray) -> np.ndarray:
        return 1127.0 * np.log(1 + hz / 700)

    bins = to_mel(np.linspace(0, SAMPLE_RATE_HZ / 2, FFT // 2 + 1))[:, None]  # [W, 1]
    edges = np.linspace(*to_mel(np.array(MEL_RANGE_HZ)), MEL_BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    filters[0] = 0
    return filters


def forward(params: Params, patches: jax.Array) -> jax.Array:
    """Patches float32 [N, 96, 64] -> float32 [N, 128]; `params` determine the sizes of all layers."""
    exact = jax.lax.Precision.HIGHEST  # float32 even where the hardware's default is less
    x = jnp.asarray(patches)[..., None]  # [N, T, M, C]
    for name in CONVOLUTIONS:
        x = jax.lax.conv_general_dilated(
            x, params[f"{name}.weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC"), precision=exact
        )
        x = jax.nn.relu(x + params[f"{name}.bias"])
        if name in POOLED:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)  # time, mel, channel: TensorFlow's order, which the torch port keeps
    for name in DENSE:
        x = jnp.dot(x, params[f"{name}.weight"].T, precision=exact) + params[f"{name}.bias"]
        if name != "embeddings.4":
            x = jax.nn.relu(x)
    return x


_forward = jax.jit(forward)
