"""HuBERT and EnCodec, the paper's tokenizers, through transformers.

Both load a local folder or a Hugging Face Hub id, EnCodec its original checkpoint too. They run in eval mode, without
gradients, on CUDA where there is one, and need no more memory for an hour than for a minute: long files go through in
pieces.

Axes: B batch, S samples, F frames, K codebooks, D hidden size.
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
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CODEC_SAMPLE_RATE_HZ, SEMANTIC_SAMPLE_RATE_HZ, STREAMS
from hafm_jax.tokenizers.hub import (
    choose_device,
    choose_dtype,
    fold_weight_norm,
    import_torch,
    is_local,
    load_original_encodec,
    load_pretrained,
    sha256_of_weights,
)

SEMANTIC_HOP = SEMANTIC_SAMPLE_RATE_HZ // STREAMS["vocal_semantic"].rate_hz  # 320 samples
ACOUSTIC_HOP = CODEC_SAMPLE_RATE_HZ // STREAMS["coarse"].rate_hz  # 320 samples
ENCODEC_BANDWIDTH_KBPS = 6.0  # 8 codebooks of 10 bits at 75 Hz [paper]

# HuBERT hears long files in pieces of 30 s (ours; it was trained on at most 15.6 s): 26 s that are kept, and 2 s of
# sound on either side that are heard only. Shorter pieces repeat more, longer ones pay for attention's square.
HUBERT_MAX_FRAMES = 1500
HUBERT_CONTEXT_FRAMES = 100
HUBERT_CONVOLUTION_FRAMES = 100  # 2 s: 1.7 times the speed of 30 s on a CPU, in the convolutions alone
# What goes through at once: a GPU wants minutes of audio; a CPU is slower on a batch than on its clips one by one.
HUBERT_BATCH_SAMPLES = {"cuda": 240 * SEMANTIC_SAMPLE_RATE_HZ}  # 8 pieces of 30 s; other devices: one clip
ENCODEC_BATCH_CLIPS = {"cuda": 16}  # other devices: 1
ENCODEC_PIECE_FRAMES = 375  # 5 s: on a CPU 1.6 times the speed of a 30 s clip in one pass; 1 s and 10 s are slower


class Piece(NamedTuple):
    """Frames start to stop of clip number `clip`, for which the model hears the clip's frames first to last."""

    clip: int
    start: int
    stop: int
    first: int
    last: int

    @property
    def num_heard(self) -> int:
        return self.last - self.first


class HubertFeatures:
    """Hidden states of one layer of a `HubertModel`: 0 is the input of the first layer, n the output of the n-th.

    `weights_sha256` is over the names and values of the weights up to that layer, whichever file they came from.

    `device` is a torch device ("cpu", "cuda:1"; None: CUDA where there is one), `dtype` float32, float16 or bfloat16
    (None: float16 on CUDA, else float32). Raises InputError where one of them, the model or the layer is not to be had.
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
                f"layer {layer} was asked of {source}; expected 0 to {config.num_hidden_layers}, the layers it has: "
                "choose another"
            )
        hop, field = _hop_and_field(config)
        if hop != SEMANTIC_HOP or field < hop:
            raise InputError(
                f"{source} makes a frame every {hop} samples; expected every {SEMANTIC_HOP} (50 Hz at 16 kHz)"
            )
        # F frames need (F - 1) * hop + field samples: 80 more than whole cells have, half of them on each side
        self._padding = (field - hop) // 2, field - hop - (field - hop) // 2
        # The layer's output is the last thing computed: none above it, and no norm of the whole stack's output.
        model.encoder.layers = model.encoder.layers[:layer]
        if config.do_stable_layer_norm:
            model.encoder.layer_norm = torch.nn.Identity()
        if hasattr(model, "masked_spec_embed"):  # of training only, and random where a checkpoint leaves it out
            del model.masked_spec_embed
        self.weights_sha256 = sha256_of_weights(model)  # of what is run: layers above are of no matter
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

        Frames are centred on their 20 ms. Where the checkpoint's preprocessor says so, a clip comes to mean 0 and
        variance 1 as a whole. Beyond 30 s it is heard in overlapping pieces: frames next to a seam then differ a little
        from those of one pass. Features of a clip that is too loud for `dtype` are NaN or infinite.
        """
        out = [np.empty((clip.size // SEMANTIC_HOP, self.dimensions), np.float32) for clip in clips]
        for number, first, features in self.blocks(clips):
            out[number][first : first + len(features)] = features
        return out

    def blocks(self, clips: Sequence[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
        """`features_of` in parts, in any order: (number of the clip, first frame, features float32 [F, D]).

        Only pieces of one length go through together. Padding would reach the model: as sound, and in base models as a
        part of the mean and variance over time that their first layer divides by.
        """
        for clip in clips:
            if clip.ndim != 1 or clip.size == 0 or clip.size % SEMANTIC_HOP:
                raise ValueError(f"audio has shape {clip.shape}; expected [S] with S a multiple of {SEMANTIC_HOP}")
        levels = [(clip.mean(), np.sqrt(clip.var() + 1e-7)) for clip in clips] if self._normalize else None
        pieces = [piece for number, clip in enumerate(clips) for piece in _pieces(number, clip.size // SEMANTIC_HOP)]
        pieces.sort(key=lambda piece: piece.num_heard, reverse=True)  # the longest first: if memory fails, then at once
        for num_frames, alike in itertools.groupby(pieces, key=lambda piece: piece.num_heard):
            alike = list(alike)
            size = max(1, HUBERT_BATCH_SAMPLES.get(self._device.type, 1) // (num_frames * SEMANTIC_HOP))
            for start in range(0, len(alike), size):
                batch = alike[start : start + size]
                audio = [self._heard(clips[p.clip], p, levels[p.clip] if levels else None) for p in batch]
                for piece, hidden in zip(batch, self._hidden(np.stack(audio)), strict=True):
                    yield piece.clip, piece.start, hidden[piece.start - piece.first : piece.stop - piece.first]

    def _heard(self, clip: np.ndarray, piece: Piece, level: tuple[np.floating, np.floating] | None) -> np.ndarray:
        """What the model is given of a clip [S] for one piece: the sound around it where there is some, else zeros."""
        start = piece.first * SEMANTIC_HOP - self._padding[0]
        stop = piece.last * SEMANTIC_HOP + self._padding[1]
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
    """Inputs from one frame to the next, and inputs that a frame sees, of HuBERT's convolutions from a layer on."""
    strides, kernels = config.conv_stride[first_layer:], config.conv_kernel[first_layer:]
    # each layer widens the field by (kernel - 1) of its input's hops
    hops = [math.prod(strides[:n]) for n in range(len(strides) + 1)]
    return hops[-1], 1 + sum((kernel - 1) * hop for kernel, hop in zip(kernels, hops, strict=False))


def _in_pieces(torch: Any, layers: Any, config: Any) -> Callable[[Any], Any]:
    """HuBERT's convolutions, [B, S] -> [B, D, F], over a little of the sound at a time: the same numbers.

    They make 100 times as many numbers as go in, and in pieces these stay in the cache. The first layer of base models
    has a norm over all of the time and is run on the whole.
    """
    first_layer = 1 if config.feat_extract_norm == "group" else 0
    hop, field = _hop_and_field(config, first_layer)

    def run(values: Any) -> Any:
        values = values[:, None]
        for layer in layers[:first_layer]:
            values = layer(values)
        num_frames = (values.shape[-1] - field) // hop + 1
        pieces = []
        for start in range(0, num_frames, HUBERT_CONVOLUTION_FRAMES):
            stop = min(start + HUBERT_CONVOLUTION_FRAMES, num_frames)
            piece = values[..., start * hop : (stop - 1) * hop + field]
            for layer in layers[first_layer:]:
                piece = layer(piece)
            pieces.append(piece)
        return torch.cat(pieces, dim=-1)

    return run


def _pieces(clip: int, num_frames: int) -> list[Piece]:
    """Clip number `clip` in pieces that the model can hear."""
    if num_frames <= HUBERT_MAX_FRAMES:
        return [Piece(clip, 0, num_frames, 0, num_frames)]
    kept = HUBERT_MAX_FRAMES - 2 * HUBERT_CONTEXT_FRAMES
    out = []
    for start in range(0, num_frames, kept):
        stop = min(start + kept, num_frames)
        heard = max(start - HUBERT_CONTEXT_FRAMES, 0), min(stop + HUBERT_CONTEXT_FRAMES, num_frames)
        out.append(Piece(clip, start, stop, *heard))
    return out


class EncodecCodec:
    """EnCodec at 6 kbps behind the codec interface of hafm_jax.tokenizers.codecs, in float32.

    `source` is a folder, a Hub id, or the original checkpoint of the `encodec` package; `device` as for HubertFeatures.
    Files go through in pieces of 5 s, with the codes and the sound of one pass.
    """

    sample_rate_hz = CODEC_SAMPLE_RATE_HZ
    frame_rate_hz = STREAMS["coarse"].rate_hz
    num_codebooks = ACOUSTIC_CODEBOOKS
    vocabulary = STREAMS["coarse"].vocabulary

    def __init__(self, source: str | os.PathLike, device: str | None = None) -> None:
        self.source = str(source)
        torch, transformers = import_torch()
        self._torch = torch
        self._device = choose_device(torch, device)
        if Path(source).is_file():
            model = load_original_encodec(torch, transformers, source)
        else:
            model = load_pretrained(transformers.EncodecModel, source, "EnCodec")
        config = model.config
        # name -> (found, expected); the 48 kHz model is stereo, normalises and works in chunks with scales of their own
        facts = {
            "sample rate in Hz": (config.sampling_rate, self.sample_rate_hz),
            "channels": (config.audio_channels, 1),
            "ids a codebook": (config.codebook_size, self.vocabulary),
            "samples a frame": (config.hop_length, ACOUSTIC_HOP),
            "loudness normalisation": (config.normalize, False),
            "chunk length in s": (config.chunk_length_s, None),
            "a bandwidth of 6 kbps": (ENCODEC_BANDWIDTH_KBPS in config.target_bandwidths, True),
            "codebooks at 6 kbps": (
                model.quantizer.get_num_quantizers_for_bandwidth(ENCODEC_BANDWIDTH_KBPS),
                self.num_codebooks,
            ),
            "causal convolution": (config.use_causal_conv and config.trim_right_ratio == 1.0, True),
            "the convolutions' norm": (config.norm_type, "weight_norm"),
        }
        for name, (found, expected) in facts.items():
            if found != expected:
                raise InputError(
                    f"{source}: {name} is {found}; expected {expected}: use facebook/encodec_24khz or a model like it"
                )
        self._weights_sha256 = sha256_of_weights(model)
        fold_weight_norm(torch, model)
        model = model.to(self._device)
        self._quantizer = model.quantizer
        past = _past_frames(config)
        self._encoder = _CausalNetwork(torch, model.encoder.layers, past, config.last_kernel_size - 1)
        self._decoder = _CausalNetwork(torch, model.decoder.layers, config.kernel_size - 1, past)

    @property
    def device(self) -> str:
        return str(self._device)

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [B, S] at 24 kHz, S a multiple of 320 -> codes int32 [B, S / 320, 8]."""
        if audio.ndim != 2 or audio.shape[1] == 0 or audio.shape[1] % ACOUSTIC_HOP:
            raise ValueError(f"audio has shape {audio.shape}; expected [B, S] with S a multiple of {ACOUSTIC_HOP}")
        codes = np.empty((len(audio), audio.shape[1] // ACOUSTIC_HOP, self.num_codebooks), np.int32)

        def sound(rows: slice, first: int, stop: int) -> Any:
            values = np.ascontiguousarray(audio[rows, None, first * ACOUSTIC_HOP : stop * ACOUSTIC_HOP], np.float32)
            return self._torch.from_numpy(values).to(self._device)  # [B, 1, S]

        with self._torch.inference_mode():
            for rows, start, stop, latents in self._run(self._encoder, sound, *codes.shape[:2]):
                books = self._quantizer.encode(latents, ENCODEC_BANDWIDTH_KBPS)  # [K, B, F]
                codes[rows, start:stop] = books.permute(1, 2, 0).cpu().numpy()
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [B, F, K] of the first K books, K in 1..8 -> audio float32 [B, F * 320]."""
        codes = np.asarray(codes)
        if codes.ndim != 3 or codes.shape[1] == 0 or not 1 <= codes.shape[2] <= self.num_codebooks:
            raise ValueError(f"codes have shape {codes.shape}; expected [B, F, K] with K in 1..{self.num_codebooks}")
        if codes.size and not (codes.min() >= 0 and codes.max() < self.vocabulary):
            raise ValueError(f"codes range over {codes.min()}..{codes.max()}; valid are 0..{self.vocabulary - 1}")
        audio = np.empty((len(codes), codes.shape[1] * ACOUSTIC_HOP), np.float32)

        def latents(rows: slice, first: int, stop: int) -> Any:
            books = np.ascontiguousarray(codes[rows, first:stop].transpose(2, 0, 1), np.int64)  # [K, B, F]
            return self._quantizer.decode(self._torch.from_numpy(books).to(self._device))  # [B, D, F]

        with self._torch.inference_mode():
            for rows, start, stop, sound in self._run(self._decoder, latents, *codes.shape[:2]):
                audio[rows, start * ACOUSTIC_HOP : stop * ACOUSTIC_HOP] = sound[:, 0].cpu().numpy()
        return audio

    @property
    def codebooks(self) -> np.ndarray:
        """float32 [K, V, D]: the vector that each code adds."""
        layers = self._quantizer.layers[: self.num_codebooks]
        return np.stack([layer.codebook.embed.detach().cpu().numpy() for layer in layers])

    def weights_sha256(self) -> str:
        """Hash over the names and values of all weights: one for a model, be it from Hub, folder or original file."""
        return self._weights_sha256

    def _run(
        self, network: _CausalNetwork, inputs: Callable[[slice, int, int], Any], num_clips: int, num_frames: int
    ) -> Iterator[tuple[slice, int, int, Any]]:
        """A network over clips and pieces: (rows of the batch, first frame, frame after the last, output [B, D, n])."""
        size = ENCODEC_BATCH_CLIPS.get(self._device.type, 1)
        for clip in range(0, num_clips, size):
            rows, memory = slice(clip, clip + size), None
            for start in range(0, num_frames, ENCODEC_PIECE_FRAMES):
                stop = min(start + ENCODEC_PIECE_FRAMES, num_frames)
                first = max(start - network.past_frames, 0)
                out, memory = network(inputs(rows, first, stop), stop - start, memory)
                yield rows, start, stop, out


class _CausalNetwork:
    """EnCodec's encoder or decoder, piece by piece: the outputs are those of one pass over the whole.

    Its convolutions hear the past only, and little of it: before the LSTM `past_frames`, which the caller gives again
    with each piece but the first; after the LSTM `recent_frames` of its outputs, which are handed on with its state.
    """

    def __init__(self, torch: Any, layers: Any, past_frames: int, recent_frames: int) -> None:
        middle = next(number for number, layer in enumerate(layers) if hasattr(layer, "lstm"))
        self._torch = torch
        self._before = torch.nn.Sequential(*layers[:middle])
        self._lstm = layers[middle].lstm
        self._after = torch.nn.Sequential(*layers[middle + 1 :])
        self.past_frames, self._recent_frames = past_frames, recent_frames

    def __call__(self, values: Any, num_frames: int, memory: tuple[Any, Any] | None) -> tuple[Any, tuple[Any, Any]]:
        """Input [B, X, past and piece], frames of the piece, memory of the last piece -> output [B, Y, piece], memory.

        Input and output have their own rates; only what lies between is in frames.
        """
        state, recent = memory or (None, None)
        hidden = self._before(values)[..., -num_frames:]  # [B, D, F]
        out, state = self._lstm(hidden.permute(2, 0, 1), state)  # [F, B, D]
        hidden = hidden + out.permute(1, 2, 0)
        if recent is not None:
            hidden = self._torch.cat([recent, hidden], dim=-1)
        out = self._after(hidden)
        rate = out.shape[-1] // hidden.shape[-1]
        recent = hidden[..., max(hidden.shape[-1] - self._recent_frames, 0) :].clone()
        return out[..., -num_frames * rate :], (state, recent)


def _past_frames(config: Any) -> int:
    """How far back the convolutions between the samples and the LSTM hear, in frames, rounded up."""
    samples, hop = max(config.kernel_size, config.last_kernel_size) - 1, 1
    for ratio in reversed(config.upsampling_ratios):
        dilations = (config.dilation_growth_rate**n for n in range(config.num_residual_layers))
        samples += hop * sum((config.residual_kernel_size - 1) * dilation for dilation in dilations)
        samples += hop * ratio  # a kernel of two strides
        hop *= ratio
    return -(-samples // hop)


def _wants_normalized(transformers: Any, source: str | os.PathLike) -> bool:
    """What the checkpoint's preprocessor says; False where a local folder has none."""
    local = is_local(source)
    if local and not (Path(source) / "preprocessor_config.json").is_file():
        return False
    try:
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError) as error:
        raise InputError(f"{source} has no usable preprocessor_config.json; expected HuBERT's: add it") from error
    if extractor.sampling_rate != SEMANTIC_SAMPLE_RATE_HZ:
        raise InputError(
            f"{source} hears {extractor.sampling_rate} Hz; expected {SEMANTIC_SAMPLE_RATE_HZ} Hz: use another model"
        )
    return bool(extractor.do_normalize)
