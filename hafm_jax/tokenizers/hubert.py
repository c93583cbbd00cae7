"""HuBERT, the paper's semantic features, through transformers; needs torch.

It runs in eval mode, without gradients, on CUDA where there is one, and needs no more memory for an hour than for a
minute: long files go through in pieces.

Axes: B batch, S samples, F frames, D hidden size.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.streams import SEMANTIC_SAMPLE_RATE_HZ, STREAMS
from hafm_jax.tokenizers.hub import (
    choose_device,
    choose_dtype,
    fold_weight_norm,
    import_torch,
    is_local,
    load_pretrained,
    sha256_of_weights,
)

HOP = SEMANTIC_SAMPLE_RATE_HZ // STREAMS["vocal_semantic"].rate_hz  # 320 samples

# Long files go through in pieces of 30 s (ours; HuBERT was trained on at most 15.6 s): 26 s that are kept, with 2 s of
# context on either side. Shorter pieces repeat more context; the cost of attention grows with the square of a piece.
MAX_FRAMES = 1500
CONTEXT_FRAMES = 100
CONVOLUTION_FRAMES = 100  # 2 s: small enough for a CPU's cache; ours, see docs/notebook.md
# What goes through at once: a GPU wants minutes of audio; a CPU is slower on a batch than on its clips one by one.
BATCH_SAMPLES = {"cuda": 240 * SEMANTIC_SAMPLE_RATE_HZ}  # 8 pieces of 30 s; other devices: one clip


class Piece(NamedTuple):
    """Frames `start` to `stop` of clip number `clip`; the model gets the clip's frames `first` to `last` for them."""

    clip: int
    start: int
    stop: int
    first: int
    last: int

    @property
    def num_given(self) -> int:
        return self.last - self.first


class HubertFeatures:
    """Hidden states of one layer of a `HubertModel`: 0 is the input of the first layer, n the output of the n-th.

    `weights_sha256` is the hash of the names and values of the weights up to that layer, whichever file they came from.

    `device` is a torch device ("cpu", "cuda:1"; None: CUDA where there is one), `dtype` float32, float16 or bfloat16
    (None: float16 on CUDA, else float32). Raises InputError where one of them, the model or the layer does not exist.
    """

    def __init__(
        self, source: str | os.PathLike, layer: int, device: str | None = None, dtype: str | None = None
    ) -> None:
        self.source, self.layer = str(source), layer
        torch, transformers = import_torch()
        self._torch = torch
        self._device = choose_device(torch, device)
        self._dtype = choose_dtype(torch, dtype, self._device)
        model = load_pretrained(transformers.HubertModel, source, "HuBERT")
        config = model.config
        if not 0 <= layer <= config.num_hidden_layers:
            raise InputError(
                f"{source} has no layer {layer}; expected 0 to {config.num_hidden_layers}: choose another layer"
            )
        hop, field = _hop_and_field(config)
        if hop != HOP or field < hop:
            raise InputError(
                f"{source} makes a frame every {hop} samples; expected every {HOP} (50 Hz at 16 kHz): use another model"
            )
        # F frames need (F - 1) * hop + field samples: 80 more than whole cells have, half of them on each side.
        self._padding = (field - hop) // 2, field - hop - (field - hop) // 2
        # Nothing above the layer is computed, nor the norm of the whole stack's output.
        model.encoder.layers = model.encoder.layers[:layer]
        if config.do_stable_layer_norm:
            model.encoder.layer_norm = torch.nn.Identity()
        if hasattr(model, "masked_spec_embed"):  # for training only, and random where a checkpoint leaves it out
            del model.masked_spec_embed
        self.weights_sha256 = sha256_of_weights(model)  # of the layers that are run
        model.feature_extractor.forward = _in_pieces(torch, model.feature_extractor.conv_layers, config)
        fold_weight_norm(torch, model)
        self._model = model.to(self._device, self._dtype)
        self._normalize = _wants_normalized(transformers, source)
        self.dimensions: int = config.hidden_size

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def dtype(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def features_of(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Clips float32 [S] at 16 kHz, each S a multiple of 320 -> float32 [S / 320, D] each.

        Frames are centred on their 20 ms. Where the checkpoint's preprocessor asks for it, a clip is normalised to
        mean 0 and variance 1 as a whole. Beyond 30 s a clip goes through in overlapping pieces, and frames next to a
        seam differ a little from those of one pass. Features of a clip that is too loud for `dtype` are NaN or
        infinite.
        """
        out = [np.empty((clip.size // HOP, self.dimensions), np.float32) for clip in clips]
        for number, first, features in self.blocks(clips):
            out[number][first : first + len(features)] = features
        return out

    def blocks(self, clips: Sequence[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
        """`features_of` in parts, in any order: (number of the clip, first frame, features float32 [F, D]).

        Only pieces of one length go through together. Padding would change the result: the model would take it as
        sound, and the first layer of base models normalises by mean and variance over time.
        """
        for clip in clips:
            if clip.ndim != 1 or clip.size == 0 or clip.size % HOP:
                raise ValueError(f"audio has shape {clip.shape}; expected [S] with S a multiple of {HOP}")
        levels = [(clip.mean(), np.sqrt(clip.var() + 1e-7)) for clip in clips] if self._normalize else None
        pieces = [piece for number, clip in enumerate(clips) for piece in _pieces(number, clip.size // HOP)]
        pieces.sort(key=lambda piece: piece.num_given, reverse=True)  # the longest first, to fail early without memory
        for num_frames, alike in itertools.groupby(pieces, key=lambda piece: piece.num_given):
            alike = list(alike)
            size = max(1, BATCH_SAMPLES.get(self._device.type, 1) // (num_frames * HOP))
            for start in range(0, len(alike), size):
                batch = alike[start : start + size]
                audio = [self._input_of(clips[p.clip], p, levels[p.clip] if levels else None) for p in batch]
                for piece, hidden in zip(batch, self._hidden(np.stack(audio)), strict=True):
                    yield piece.clip, piece.start, hidden[piece.start - piece.first : piece.stop - piece.first]

    def _input_of(self, clip: np.ndarray, piece: Piece, level: tuple[np.floating, np.floating] | None) -> np.ndarray:
        """The model's input for one piece of a clip [S]: the sound around it where there is some, else zeros."""
        start = piece.first * HOP - self._padding[0]
        stop = piece.last * HOP + self._padding[1]
        audio = np.asarray(clip[max(start, 0) : stop], np.float32)
        if level is not None:
            audio = (audio - level[0]) / level[1]  # transformers' zero_mean_unit_var_norm
        return np.pad(audio, (max(-start, 0), max(stop - clip.size, 0)))

    def _hidden(self, audio: np.ndarray) -> np.ndarray:
        """Padded audio [B, S] -> float32 [B, F, D]."""
        with self._torch.inference_mode():
            values = self._torch.from_numpy(audio).to(self._device, self._dtype)
            return self._model(values).last_hidden_state.float().cpu().numpy()


def _hop_and_field(config: Any, first_layer: int = 0) -> tuple[int, int]:
    """(hop from one frame to the next, field that a frame sees) of HuBERT's convolutions from a layer on, in inputs."""
    strides, kernels = config.conv_stride[first_layer:], config.conv_kernel[first_layer:]
    # Each layer widens the field by (kernel - 1) of its input's hops.
    hops = [math.prod(strides[:n]) for n in range(len(strides) + 1)]
    return hops[-1], 1 + sum((kernel - 1) * hop for kernel, hop in zip(kernels, hops, strict=False))


def _in_pieces(torch: Any, layers: Any, config: Any) -> Callable[[Any], Any]:
    """HuBERT's convolutions, [B, S] -> [B, D, F], over a little of the sound at a time, with the same result.

    They make 100 times as many numbers as go in, and in pieces these stay in the cache. The first layer of base models
    normalises over time and is run on the whole.
    """
    first_layer = 1 if config.feat_extract_norm == "group" else 0
    hop, field = _hop_and_field(config, first_layer)

    def run(values: Any) -> Any:
        values = values[:, None]
        for layer in layers[:first_layer]:
            values = layer(values)
        num_frames = (values.shape[-1] - field) // hop + 1
        pieces = []
        for start in range(0, num_frames, CONVOLUTION_FRAMES):
            stop = min(start + CONVOLUTION_FRAMES, num_frames)
            piece = values[..., start * hop : (stop - 1) * hop + field]
            for layer in layers[first_layer:]:
                piece = layer(piece)
            pieces.append(piece)
        return torch.cat(pieces, dim=-1)

    return run


def _pieces(clip: int, num_frames: int) -> list[Piece]:
    """Clip number `clip` in pieces of MAX_FRAMES at most, context included."""
    if num_frames <= MAX_FRAMES:
        return [Piece(clip, 0, num_frames, 0, num_frames)]
    kept = MAX_FRAMES - 2 * CONTEXT_FRAMES
    out = []
    for start in range(0, num_frames, kept):
        stop = min(start + kept, num_frames)
        out.append(Piece(clip, start, stop, max(start - CONTEXT_FRAMES, 0), min(stop + CONTEXT_FRAMES, num_frames)))
    return out


def _wants_normalized(transformers: Any, source: str | os.PathLike) -> bool:
    """Whether the checkpoint's preprocessor normalises; False where a local folder has none.

    Raises InputError where it cannot be read or is for another sample rate.
    """
    local = is_local(source)
    if local and not (Path(source) / "preprocessor_config.json").is_file():
        return False
    try:
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError) as error:
        raise InputError(f"{source} has no usable preprocessor_config.json; expected HuBERT's: add it") from error
    if extractor.sampling_rate != SEMANTIC_SAMPLE_RATE_HZ:
        raise InputError(
            f"{source} is for {extractor.sampling_rate} Hz; expected {SEMANTIC_SAMPLE_RATE_HZ} Hz: use another model"
        )
    return bool(extractor.do_normalize)
