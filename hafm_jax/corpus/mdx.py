"""MDX-Net: the vocals of a mixture by a network on its short-time spectrum, as ONNX through ONNX Runtime (no torch).

KUIELab-MDX-Net, which the HAFM paper uses, and Ultimate Vocal Remover's models that have its form. The graph has one
input and one output, float32 [B, 4, F, T]: real and imaginary part of the left, then of the right channel, of an STFT
with a periodic Hann window, hop 1024, centred frames. The graph states F and T; the rest is in a JSON beside the model
(MODEL.onnx, MODEL.json), which models need that are not in PUBLISHED:

    {"n_fft": 6144, "stem": "vocals", "gain": 1.0}

Axes: C channels (2), S samples, N n_fft, F bins of the network's input, T frames of a segment.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal

from hafm_jax.common.download import check_sha256, find_weights
from hafm_jax.common.errors import InputError, first_line, install, needed_for
from hafm_jax.common.files import reading

INSTALL = f"install the extra: {install('separate')}"
SAMPLE_RATE_HZ = 44_100
HOP = 1024
STEMS = ("vocals", "instrumental")


@dataclass(frozen=True)
class MdxConfig:
    """What a graph does not state. n_fft: samples of a frame; stem: the network's output, one of STEMS; gain: factor on
    its output (Ultimate Vocal Remover's "compensate")."""

    n_fft: int
    stem: str = "vocals"
    gain: float = 1.0


# SHA-256 of the file -> its facts. KUIELab: the pointers and models.py of github.com/kuielab/mdx-net-submission,
# branches leaderboard_A and _B; the others: the model list of Ultimate Vocal Remover.
PUBLISHED = {
    "daba83c2ee1afee9139766ad64c9b6808d6b6f092fff04bed3338be50baac721": MdxConfig(6144),  # KUIELab, MUSDB18-HQ only
    "9b7dcb9d878acb0f3e64ff3fd27750faae96577013f6d50f5996875bf4250713": MdxConfig(6144),  # KUIELab, more data
    "ce74ef3b6a6024ce44211a07be9cf8bc6d87728cc852a68ab34eb8e58cde9c8b": MdxConfig(7680, gain=1.009),  # Kim_Vocal_2
    "534b2070fcc7df514b13ef660dc8cbb328679c2374d04354a5c42bb14ecce111": MdxConfig(7680, gain=1.021),  # Voc_FT
}


class MdxNetwork:
    """The vocals of an MDX-Net, a network of hafm_jax.corpus.separators.

    Above the bins of the graph there are no vocals, whichever stem it was trained for.
    """

    sample_rate_hz = SAMPLE_RATE_HZ
    hop_samples = HOP
    normalizes_song = False

    def __init__(self, weights: str, sha256: str | None = None, device: str | None = None) -> None:
        path = _file(find_weights(weights, ("*.onnx", "*.json")))
        self.sha256 = check_sha256([path], sha256)
        self.config = _config(path, self.sha256)
        self._session = _session(path, device)
        self._input, self._bins, num_frames = _sizes(path, self._session)
        self._n_fft = self.config.n_fft
        self.segment_samples = HOP * (num_frames - 1)
        # Frames nearer than half a window to an end contain mirrored samples. Whole hops, so that the frames of all
        # segments lie on one grid.
        self.edge_samples = HOP * -(-self._n_fft // (2 * HOP))
        least, most = max(2 * (self._bins - 1), 2 * HOP), self.segment_samples // 2
        if self._n_fft % 2 or not least <= self._n_fft <= most:
            raise InputError(
                f"{path} has {self._bins} bins and {num_frames} frames, and n_fft is {self._n_fft}; expected an even "
                f"number from {least} to {most}: correct {path.with_suffix('.json').name}"
            )
        self._window = scipy.signal.windows.hann(self._n_fft, sym=False).astype(np.float32)
        self._window_power = self._overlap_add(np.broadcast_to(self._window, (1, num_frames, self._n_fft)))

    def vocals(self, segment: np.ndarray) -> np.ndarray:
        """Mixture float32 [2, segment_samples] -> vocals float32 [2, segment_samples]."""
        spectrum = self._spectrum(segment)  # [C, F, T]
        planes = np.stack([spectrum.real, spectrum.imag], axis=1)  # [C, 2, F, T]
        try:
            (out,) = self._session.run(None, {self._input: planes.reshape(1, 4, *spectrum.shape[1:])})
        except Exception as error:  # a class for each of ONNX Runtime's status codes, and no common one
            raise RuntimeError(str(error)) from error
        estimate = np.float32(self.config.gain) * out.reshape(planes.shape)
        vocals = estimate if self.config.stem == "vocals" else planes - estimate
        return self._waveform(vocals[:, 0] + 1j * vocals[:, 1])

    def _spectrum(self, audio: np.ndarray) -> np.ndarray:
        """float32 [C, S] -> complex64 [C, F, T]."""
        half = self._n_fft // 2
        padded = np.pad(audio, ((0, 0), (half, half)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self._n_fft, axis=1)[:, ::HOP]  # [C, T, N]
        return scipy.fft.rfft(frames * self._window)[..., : self._bins].transpose(0, 2, 1)

    def _waveform(self, spectrum: np.ndarray) -> np.ndarray:
        """complex64 [C, F, T] -> float32 [C, S]: least squares; bins outside the network are zero."""
        frames = scipy.fft.irfft(spectrum.transpose(0, 2, 1), n=self._n_fft)  # [C, T, N]
        return self._overlap_add(frames) / self._window_power

    def _overlap_add(self, frames: np.ndarray) -> np.ndarray:
        """Frames [C, T, N], windowed once more, each centred a hop after the one before -> [C, S]."""
        num_frames = frames.shape[1]
        out = np.zeros((frames.shape[0], (num_frames - 1) * HOP + self._n_fft), np.float32)
        for number in range(num_frames):
            out[:, number * HOP : number * HOP + self._n_fft] += frames[:, number] * self._window
        half = self._n_fft // 2
        return out[:, half : half + self.segment_samples]


def _file(source: Path) -> Path:
    if source.is_file():
        return source
    models = sorted(source.glob("*.onnx"))
    if len(models) != 1:
        names = ", ".join(path.name for path in models) or "no .onnx file"
        raise InputError(f"{source} holds {names}; expected one .onnx file: give the path of one")
    return models[0]


def _sizes(path: Path, session: Any) -> tuple[str, int, int]:
    """(name of the input, F, T) of a graph."""
    nodes = [*session.get_inputs(), *session.get_outputs()]
    batch, *sizes = nodes[0].shape
    out_sizes = nodes[-1].shape[1:]
    fits = (
        len(nodes) == 2
        and all(node.type == "tensor(float)" for node in nodes)
        and (batch == 1 or not isinstance(batch, int))
        and len(sizes) == len(out_sizes) == 3
        and all(isinstance(size, int) for size in sizes)
        and sizes[0] == 4
        # of an output's sizes an exporter may know only the names
        and all(not isinstance(out, int) or out == size for out, size in zip(out_sizes, sizes, strict=True))
    )
    if not fits:
        found = ", ".join(f"{node.name} {node.type} {list(node.shape)}" for node in nodes)
        raise InputError(
            f"{path} has the inputs and outputs {found}; expected one of each, both tensor(float) [batch, 4, bins, "
            "frames] with numbers of bins and frames: use an MDX-Net model"
        )
    return nodes[0].name, sizes[1], sizes[2]


def _config(path: Path, sha256: str) -> MdxConfig:
    """From the JSON beside the model, else from PUBLISHED."""
    beside = path.with_suffix(".json")
    form = '{"n_fft": 6144, "stem": "vocals", "gain": 1.0}'
    if not beside.is_file():
        if sha256 in PUBLISHED:
            return PUBLISHED[sha256]
        raise InputError(
            f"{path} is not a model that is known by its SHA-256, and there is no {beside}; expected the n_fft of its "
            f"training (Ultimate Vocal Remover: mdx_n_fft_scale_set): write {form} there, with its numbers"
        )
    with reading(beside, f"a description of an MDX-Net, {form}: correct it"):
        config = MdxConfig(**json.loads(beside.read_bytes()))
    sound = isinstance(config.n_fft, int) and config.n_fft > 0 and isinstance(config.gain, int | float)
    if not sound or config.stem not in STEMS:
        raise InputError(f"{beside} holds {config}; expected {form}, stem one of {', '.join(STEMS)}: correct it")
    return config


def _session(path: Path, device: str | None) -> Any:
    with needed_for("MDX-Net models need onnxruntime", INSTALL):
        import onnxruntime
    on_gpu = "CUDAExecutionProvider"
    if device is None:
        device = "cuda" if on_gpu in onnxruntime.get_available_providers() else "cpu"
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        name, _, number = device.partition(":")
        if name != "cuda" or on_gpu not in onnxruntime.get_available_providers():
            raise InputError(
                f"no device {device} for ONNX Runtime, which has {', '.join(onnxruntime.get_available_providers())}; "
                "expected cpu, or cuda with onnxruntime-gpu installed in place of onnxruntime"
            )
        providers.insert(0, (on_gpu, {"device_id": number or "0"}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # as torch does; 0: all cores
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime has a class for each of its status codes, and no common one
        raise InputError(
            f"{path} cannot be loaded ({first_line(error)}); expected an ONNX model: get it again"
        ) from error
