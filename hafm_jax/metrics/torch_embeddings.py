"""The embeddings `clap` and `encodec` by transformers, and tensors of a torch file: the only use of torch in metrics.

Axes: S samples, N embeddings, F frames, D dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import hub
from hafm_jax.tokenizers.encodec import load_encodec
from hafm_jax.tokenizers.hub import choose_device, import_torch, is_local, load_pretrained, sha256_of_weights

ENCODEC_WINDOW_S = 1.0


class Clap:
    """CLAP's audio embedding (Wu et al. 2023, arXiv 2211.06687): windows of 10 s -> [N, 512], each of length 1.

    Windows do not overlap; CLAP's own feature extractor repeats the last one up to 10 s. For music Gui et al. 2024
    recommend it over VGGish, with LAION's music weights, in windows that overlap by 9 s. Models with feature fusion are
    refused, since they draw random crops.
    """

    def __init__(self, source: str, sha256: str | None = None) -> None:
        torch, transformers = import_torch()
        self._torch, self._device = torch, choose_device(torch, None)
        # The text half of the checkpoint is not loaded.
        model = load_pretrained(transformers.ClapAudioModelWithProjection, source, "CLAP")
        try:
            self._extractor = transformers.ClapFeatureExtractor.from_pretrained(
                source, local_files_only=is_local(source)
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{source} has no usable preprocessor_config.json; expected CLAP's: add it") from error
        if model.config.enable_fusion or self._extractor.truncation == "fusion":
            raise InputError(f"{source} fuses random crops; expected a CLAP model without: use laion/larger_clap_music")
        self.sha256 = _check_weights(model, source, sha256)
        self.sample_rate_hz: int = self._extractor.sampling_rate
        self.min_samples = 1
        self._window = self.sample_rate_hz * self._extractor.max_length_s
        self._model = model.to(self._device)

    def embed(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [S] at `sample_rate_hz` -> float32 [N, D], N = S / 10 s rounded up."""
        out = []
        for start in range(0, audio.size, self._window):
            window = audio[start : start + self._window]
            features = self._extractor(window, sampling_rate=self.sample_rate_hz, return_tensors="pt")
            with self._torch.inference_mode():
                values = features["input_features"].to(self._device, self._torch.float32)
                embedding = self._model(values).audio_embeds[0]
                out.append((embedding / embedding.norm()).cpu().numpy())
        return np.stack(out)


class Encodec:
    """The output of EnCodec's encoder before quantisation, averaged over windows of 1 s -> [N, 128].

    Gui et al. 2024 use each of its 75 frames per second. The mean is ours: it keeps clips comparable with those of
    other embeddings, and the kernel distance feasible.
    """

    def __init__(self, source: str, sha256: str | None = None) -> None:
        torch, _ = import_torch()
        self._torch, self._device = torch, choose_device(torch, None)
        model = load_encodec(source)
        if model.config.audio_channels != 1 or model.config.normalize:
            raise InputError(f"{source} is the stereo EnCodec; expected the mono one: use facebook/encodec_24khz")
        self.sha256 = _check_weights(model, source, sha256)
        self.sample_rate_hz: int = model.config.sampling_rate
        self.min_samples = round(ENCODEC_WINDOW_S * self.sample_rate_hz)
        self._frames = self.min_samples // model.config.hop_length
        self._encoder = model.encoder.to(self._device)

    def embed(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [S] at `sample_rate_hz`, 1 s at least -> float32 [N, D], a row per complete second."""
        with self._torch.inference_mode():
            values = self._torch.from_numpy(np.ascontiguousarray(audio, np.float32)).to(self._device)
            latents = self._encoder(values[None, None])[0].T.cpu().numpy()  # [F, D]
        num_windows = len(latents) // self._frames
        return latents[: num_windows * self._frames].reshape(num_windows, self._frames, -1).mean(axis=1)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that torch.save wrote, by name; no code of it is run (weights_only).

    Raises InputError where it is not such a file or holds anything else.
    """
    return {name: value.numpy() for name, value in hub.read_tensors(path, "download it again").items()}


def _check_weights(model: Any, source: str, expected: str | None) -> str:
    """SHA-256 of the names and values of all weights. Raises InputError where it differs from `expected`."""
    found = sha256_of_weights(model)
    if expected is not None and found != expected.lower():
        raise InputError(
            f"the weights of {source} have the SHA-256 {found}; expected {expected}: use the model with that hash, "
            "or correct the SHA-256"
        )
    return found
