"""HuBERT and EnCodec, the paper's tokenizers, through transformers: the only file that imports torch.

Both load a local folder (as `save_pretrained` writes it; no network is touched) or a Hugging Face Hub id, and read only
safetensors. Models run in float32, in eval mode, without gradients.

Axes: B batch, S samples, F frames, K codebooks, D hidden size of HuBERT.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.errors import InputError
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CODEC_SAMPLE_RATE_HZ, SEMANTIC_SAMPLE_RATE_HZ, STREAMS

INSTALL = 'install the extra: pip install "hafm_jax[torch]"'
SEMANTIC_HOP = SEMANTIC_SAMPLE_RATE_HZ // STREAMS["vocal_semantic"].rate_hz  # 320 samples
ACOUSTIC_HOP = CODEC_SAMPLE_RATE_HZ // STREAMS["coarse"].rate_hz  # 320 samples
ENCODEC_BANDWIDTH_KBPS = 6.0  # 8 codebooks of 10 bits at 75 Hz [paper]

# Self-attention is quadratic, so HuBERT hears long files in pieces of 30 s (ours; trained on at most 15.6 s): 26 s
# that are kept, and 2 s of sound on either side that are heard only.
HUBERT_MAX_FRAMES = 1500
HUBERT_CONTEXT_FRAMES = 100
ENCODEC_SAMPLES_AT_ONCE = (
    120 * CODEC_SAMPLE_RATE_HZ
)  # rows of a batch beyond this go one after the other; bounds memory


class HubertFeatures:
    """Hidden states of one layer of a `HubertModel`: 0 is the input of the first layer, n the output of the n-th."""

    def __init__(self, source: str | os.PathLike, layer: int) -> None:
        self.source, self.layer = str(source), layer
        torch, transformers = _import()
        self._torch = torch
        model = _load(transformers.HubertModel, source, "HuBERT")
        config = model.config
        if not 0 <= layer <= config.num_hidden_layers:
            raise InputError(
                f"layer {layer} was asked of {source}; expected 0 to {config.num_hidden_layers}, the layers it has: "
                "choose another"
            )
        hop = math.prod(config.conv_stride)
        # samples that one frame sees: each layer widens it by (kernel - 1) of its input's hops
        strides = [math.prod(config.conv_stride[:i]) for i in range(len(config.conv_stride))]
        field = 1 + sum((kernel - 1) * stride for kernel, stride in zip(config.conv_kernel, strides, strict=True))
        if hop != SEMANTIC_HOP or field < hop:
            raise InputError(
                f"{source} makes a frame every {hop} samples; expected every {SEMANTIC_HOP} (50 Hz at 16 kHz)"
            )
        # F frames need (F - 1) * hop + field samples: 80 more than whole cells have, half of them on each side
        self._padding = (field - hop) // 2, field - hop - (field - hop) // 2
        # Later layers are not needed. One is kept: a final norm (transformers 4, large models) must not reach ours.
        model.encoder.layers = model.encoder.layers[: layer + 1]
        self._model = model
        self._normalize = _wants_normalized(transformers, source)
        self.dimensions: int = config.hidden_size

    def features(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [S] at 16 kHz, S a multiple of 320 -> float32 [S / 320, D], frames centred on their 20 ms.

        Where the checkpoint's preprocessor says so, the clip comes to mean 0 and variance 1 as a whole. Beyond 30 s
        it is heard in overlapping pieces: frames next to a seam then differ a little from those of one pass.
        """
        if audio.ndim != 1 or audio.size == 0 or audio.size % SEMANTIC_HOP:
            raise ValueError(f"audio has shape {audio.shape}; expected [S] with S a multiple of {SEMANTIC_HOP}")
        num_frames = audio.size // SEMANTIC_HOP
        audio = np.asarray(audio, np.float32)
        if self._normalize:
            audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)  # transformers' zero_mean_unit_var_norm
        audio = np.pad(audio, self._padding)
        if num_frames <= HUBERT_MAX_FRAMES:
            return self._hidden(audio)
        kept = HUBERT_MAX_FRAMES - 2 * HUBERT_CONTEXT_FRAMES
        pieces = []
        for start in range(0, num_frames, kept):
            stop = min(start + kept, num_frames)
            first, last = max(start - HUBERT_CONTEXT_FRAMES, 0), min(stop + HUBERT_CONTEXT_FRAMES, num_frames)
            hidden = self._hidden(audio[first * SEMANTIC_HOP : last * SEMANTIC_HOP + sum(self._padding)])
            pieces.append(hidden[start - first : stop - first])
        return np.concatenate(pieces)

    def _hidden(self, audio: np.ndarray) -> np.ndarray:
        """Padded audio [S] -> [F, D]."""
        with self._torch.inference_mode():
            out = self._model(self._torch.from_numpy(audio)[None], output_hidden_states=True)
        return out.hidden_states[self.layer][0].numpy()


class EncodecCodec:
    """EnCodec at 6 kbps behind the codec interface of hafm_jax.audio.codecs.

    Its LSTM remembers the whole file, so each file is coded and decoded in one piece. Of the published model, the
    widest layer (32 channels at 24 kHz) holds 184 MB a minute, and a few such arrays live at once.
    """

    sample_rate_hz = CODEC_SAMPLE_RATE_HZ
    frame_rate_hz = STREAMS["coarse"].rate_hz
    num_codebooks = ACOUSTIC_CODEBOOKS
    vocabulary = STREAMS["coarse"].vocabulary

    def __init__(self, source: str | os.PathLike) -> None:
        self.source = str(source)
        self._torch, transformers = _import()
        self._model = _load(transformers.EncodecModel, source, "EnCodec")
        config = self._model.config
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
                self._model.quantizer.get_num_quantizers_for_bandwidth(ENCODEC_BANDWIDTH_KBPS),
                self.num_codebooks,
            ),
        }
        for name, (found, expected) in facts.items():
            if found != expected:
                raise InputError(
                    f"{source}: {name} is {found}; expected {expected}: use facebook/encodec_24khz or a model like it"
                )

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [B, S] at 24 kHz, S a multiple of 320 -> codes int32 [B, S / 320, 8]."""
        if audio.ndim != 2 or audio.shape[1] == 0 or audio.shape[1] % ACOUSTIC_HOP:
            raise ValueError(f"audio has shape {audio.shape}; expected [B, S] with S a multiple of {ACOUSTIC_HOP}")
        rows = max(1, ENCODEC_SAMPLES_AT_ONCE // audio.shape[1])
        out = []
        for start in range(0, len(audio), rows):
            values = self._torch.from_numpy(np.ascontiguousarray(audio[start : start + rows, None], np.float32))
            with self._torch.inference_mode():
                codes = self._model.encode(values, bandwidth=ENCODEC_BANDWIDTH_KBPS).audio_codes  # [1, B, K, F]
            out.append(codes[0].transpose(1, 2).numpy().astype(np.int32))
        return np.concatenate(out)  # [B, F, K]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [B, F, K] of the first K books, K in 1..8 -> audio float32 [B, F * 320]."""
        codes = np.asarray(codes)
        if codes.ndim != 3 or codes.shape[1] == 0 or not 1 <= codes.shape[2] <= self.num_codebooks:
            raise ValueError(f"codes have shape {codes.shape}; expected [B, F, K] with K in 1..{self.num_codebooks}")
        if codes.size and not (codes.min() >= 0 and codes.max() < self.vocabulary):
            raise ValueError(f"codes range over {codes.min()}..{codes.max()}; valid are 0..{self.vocabulary - 1}")
        rows = max(1, ENCODEC_SAMPLES_AT_ONCE // (codes.shape[1] * ACOUSTIC_HOP))
        out = []
        for start in range(0, len(codes), rows):
            books = np.ascontiguousarray(codes[start : start + rows].transpose(0, 2, 1), np.int64)
            with self._torch.inference_mode():
                audio = self._model.decode(self._torch.from_numpy(books)[None], [None]).audio_values  # [B, 1, S]
            out.append(audio[:, 0].numpy())
        return np.concatenate(out)  # [B, S]

    def weights_sha256(self) -> str:
        """Hash over the names and values of all weights: the same for one model from the Hub and from a folder."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
        return digest.hexdigest()


def _import() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(f"HuBERT and EnCodec need torch and transformers ({error}): {INSTALL}") from error
    return torch, transformers


def _load(kind: Any, source: str | os.PathLike, name: str) -> Any:
    """The model of a folder or Hub id, float32, in eval mode."""
    local = _is_local(source)
    if local and not (Path(source) / "config.json").is_file():
        raise InputError(
            f"{source} has no config.json; expected a folder that holds a {name} model, or a Hub id: check the path"
        )
    try:
        model, report = kind.from_pretrained(
            source, local_files_only=local, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        where = "the folder" if local else "the name and the network, or give a local folder"
        first_line = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise InputError(
            f"{source} cannot be loaded as a {name} model ({first_line}); expected config.json and model.safetensors: "
            f"check {where}"
        ) from error
    missing = sorted(report["missing_keys"])
    # `masked_spec_embed` serves HuBERT's training only, and some published checkpoints leave it out
    missing = [key for key in missing if key != "masked_spec_embed"]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} weights of a {name} model, {missing[0]} first; expected all of them: "
            "use a checkpoint of that kind"
        )
    return model.float().eval()


def _wants_normalized(transformers: Any, source: str | os.PathLike) -> bool:
    """What the checkpoint's preprocessor says; False where a local folder has none."""
    local = _is_local(source)
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


def _is_local(source: str | os.PathLike) -> bool:
    """A folder, or what looks like a path: a Hub id is NAME or OWNER/NAME and never starts with a dot or a slash."""
    text = str(source)
    return Path(text).exists() or text.startswith((".", "/", "~")) or text.count("/") > 1
