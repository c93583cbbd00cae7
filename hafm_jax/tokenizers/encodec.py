"""EnCodec, the paper's codec, through transformers; needs torch.

It runs in eval mode, without gradients, on CUDA where there is one, and needs no more memory for an hour than for a
minute: long files go through in pieces.

Axes: B batch, S samples, F frames, K codebooks, V ids of a codebook, D hidden size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CODEC_SAMPLE_RATE_HZ, STREAMS, check_codes
from hafm_jax.tokenizers.hub import (
    choose_device,
    fold_weight_norm,
    import_torch,
    load_pretrained,
    read_tensors,
    sha256_of_weights,
)

HOP = CODEC_SAMPLE_RATE_HZ // STREAMS["coarse"].rate_hz  # 320 samples
BANDWIDTH_KBPS = 6.0  # 8 codebooks of 10 bits at 75 Hz [paper]
BATCH_CLIPS = {"cuda": 16}  # clips that go through together; other devices: 1, since a CPU is slower on a batch
PIECE_FRAMES = 375  # 5 s, the fastest on a CPU; ours, see docs/notebook.md


class EncodecCodec:
    """EnCodec at 6 kbps behind the codec interface of hafm_jax.tokenizers.codecs, in float32.

    `source` is a folder, a Hub id, or the original checkpoint of the `encodec` package; `device` is a torch device
    (None: CUDA where there is one, else the CPU). Files go through in pieces of 5 s, and codes and sound are those of
    one pass. Raises InputError where the model cannot be loaded or is of another kind.
    """

    sample_rate_hz = CODEC_SAMPLE_RATE_HZ
    frame_rate_hz = STREAMS["coarse"].rate_hz
    num_codebooks = ACOUSTIC_CODEBOOKS
    vocabulary = STREAMS["coarse"].vocabulary

    def __init__(self, source: str | os.PathLike, device: str | None = None) -> None:
        self.source = str(source)
        torch, _ = import_torch()
        self._torch = torch
        self._device = choose_device(torch, device)
        model = load_encodec(source)
        config = model.config
        # name -> (found, expected); the 48 kHz model is stereo, normalises and works in chunks with scales of their own
        facts = {
            "sample rate in Hz": (config.sampling_rate, self.sample_rate_hz),
            "channels": (config.audio_channels, 1),
            "ids a codebook": (config.codebook_size, self.vocabulary),
            "samples a frame": (config.hop_length, HOP),
            "loudness normalisation": (config.normalize, False),
            "chunk length in s": (config.chunk_length_s, None),
            "a bandwidth of 6 kbps": (BANDWIDTH_KBPS in config.target_bandwidths, True),
            "codebooks at 6 kbps": (
                model.quantizer.get_num_quantizers_for_bandwidth(BANDWIDTH_KBPS),
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
        """Audio float32 [B, S] at 24 kHz -> codes int32 [B, S / 320, 8].

        Raises ValueError unless S is a multiple of 320, above 0.
        """
        if audio.ndim != 2 or audio.shape[1] == 0 or audio.shape[1] % HOP:
            raise ValueError(f"audio has shape {audio.shape}; expected [B, S] with S a multiple of {HOP}")
        codes = np.empty((len(audio), audio.shape[1] // HOP, self.num_codebooks), np.int32)

        def sound(rows: slice, first: int, stop: int) -> Any:
            values = np.ascontiguousarray(audio[rows, None, first * HOP : stop * HOP], np.float32)
            return self._torch.from_numpy(values).to(self._device)  # [B, 1, S]

        with self._torch.inference_mode():
            for rows, start, stop, latents in self._run(self._encoder, sound, *codes.shape[:2]):
                books = self._quantizer.encode(latents, BANDWIDTH_KBPS)  # [K, B, F]
                codes[rows, start:stop] = books.permute(1, 2, 0).cpu().numpy()
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [B, F, K] of the first K books, K in 1..8 -> audio float32 [B, F * 320].

        Raises ValueError on an invalid id, and where there is no frame.
        """
        codes = check_codes(codes, self.num_codebooks, self.vocabulary)
        if codes.shape[1] == 0:
            raise ValueError(f"codes have shape {codes.shape}; expected a frame or more")
        audio = np.empty((len(codes), codes.shape[1] * HOP), np.float32)

        def latents(rows: slice, first: int, stop: int) -> Any:
            books = np.ascontiguousarray(codes[rows, first:stop].transpose(2, 0, 1), np.int64)  # [K, B, F]
            return self._quantizer.decode(self._torch.from_numpy(books).to(self._device))  # [B, D, F]

        with self._torch.inference_mode():
            for rows, start, stop, sound in self._run(self._decoder, latents, *codes.shape[:2]):
                audio[rows, start * HOP : stop * HOP] = sound[:, 0].cpu().numpy()
        return audio

    @property
    def codebooks(self) -> np.ndarray:
        """float32 [K, V, D]: the vector that each code adds."""
        layers = self._quantizer.layers[: self.num_codebooks]
        return np.stack([layer.codebook.embed.detach().cpu().numpy() for layer in layers])

    def weights_sha256(self) -> str:
        """Hash of the names and values of all weights: the same from the Hub, a folder or the original file."""
        return self._weights_sha256

    def _run(
        self, network: _CausalNetwork, inputs: Callable[[slice, int, int], Any], num_clips: int, num_frames: int
    ) -> Iterator[tuple[slice, int, int, Any]]:
        """Run a network over clips and pieces: (rows of the batch, first frame, end frame, output [B, D, n])."""
        size = BATCH_CLIPS.get(self._device.type, 1)
        for clip in range(0, num_clips, size):
            rows, memory = slice(clip, clip + size), None
            for start in range(0, num_frames, PIECE_FRAMES):
                stop = min(start + PIECE_FRAMES, num_frames)
                first = max(start - network.past_frames, 0)
                out, memory = network(inputs(rows, first, stop), stop - start, memory)
                yield rows, start, stop, out


class _CausalNetwork:
    """EnCodec's encoder or decoder, piece by piece: the outputs are those of one pass over the whole.

    Its convolutions see only a little of the past. Before the LSTM that is `past_frames`, which the caller passes
    again with each piece but the first; after the LSTM it is `recent_frames` of its outputs, which are kept with the
    LSTM's state.
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

        Input and output have their own rates; only `hidden`, between them, is in frames.
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
    """How far back the convolutions between the samples and the LSTM reach, in frames, rounded up."""
    samples, hop = max(config.kernel_size, config.last_kernel_size) - 1, 1
    for ratio in reversed(config.upsampling_ratios):
        dilations = (config.dilation_growth_rate**n for n in range(config.num_residual_layers))
        samples += hop * sum((config.residual_kernel_size - 1) * dilation for dilation in dilations)
        samples += hop * ratio  # a kernel of two strides
        hop *= ratio
    return -(-samples // hop)


def load_encodec(source: str | os.PathLike) -> Any:
    """The transformers EncodecModel of a folder, a Hub id or an original checkpoint file; float32, in eval mode.

    Raises InputError where it cannot be loaded.
    """
    _, transformers = import_torch()
    if Path(source).is_file():
        return _load_original(transformers, source)
    return load_pretrained(transformers.EncodecModel, source, "EnCodec")


def _load_original(transformers: Any, path: str | os.PathLike) -> Any:
    """The 24 kHz model of the `encodec` package, encodec_24khz-d7cc33bc.th. Raises InputError on any other file."""
    use = "use encodec_24khz-*.th of the encodec package, or facebook/encodec_24khz"
    tensors = {transformers_name(name): value for name, value in read_tensors(path, use).items()}
    model = transformers.EncodecModel(transformers.EncodecConfig())  # its defaults are the 24 kHz model
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path} holds {name} {found.get(name, 'not at all')}; expected {expected.get(name, 'no such tensor')} "
                f"of the 24 kHz model: {use}"
            )
    model.load_state_dict(tensors)
    return model.float().eval()


def transformers_name(original: str) -> str:
    """The name in transformers of a tensor of the `encodec` package's model. Both number the layers alike."""
    name = original.replace(".model.", ".layers.").replace("vq.layers.", "layers.").replace("._codebook.", ".codebook.")
    name = re.sub(r"\.(conv|convtr)\.\1\.", ".conv.", name)
    return name.replace(".weight_g", ".parametrizations.weight.original0").replace(
        ".weight_v", ".parametrizations.weight.original1"
    )
