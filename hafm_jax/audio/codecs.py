"""Neural audio codecs behind one interface: `spectral` (ours, JAX) and `encodec` (the paper's, PyTorch).

A codec is a directory with a `config.json` that names it; `load_codec` reads it. Weights are safetensors, never pickle.

Axes: B batch, S samples, F frames, K codebooks, V codes of a codebook, D latent.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax import arrays
from hafm_jax.atomic import write_bytes
from hafm_jax.audio import phases, spectral
from hafm_jax.audio.spectra import spectral_distance_db
from hafm_jax.errors import InputError
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CODEC_SAMPLE_RATE_HZ, STREAMS

FORMAT_VERSION = 2  # 1 was of codes that held phases
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "codec.safetensors"
# Frames of one call of the network, halo not counted: more than 2 s and 10 s by what the phases' samples are late. One
# compilation each serves every length, and a file of any length needs the memory of 10 s.
CHUNK_FRAMES = (160, 760)
CONTRACT = {  # what the token streams expect of any codec
    "sample_rate_hz": CODEC_SAMPLE_RATE_HZ,
    "frame_rate_hz": STREAMS["coarse"].rate_hz,
    "num_codebooks": ACOUSTIC_CODEBOOKS,
    "vocabulary": STREAMS["coarse"].vocabulary,
}


@runtime_checkable
class Codec(Protocol):
    """Mono audio <-> tokens. Arrays in and out are numpy."""

    sample_rate_hz: int
    frame_rate_hz: int
    num_codebooks: int
    vocabulary: int
    codebooks: np.ndarray  # float32 [K, V, D]: the vector that each code adds

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [B, S] in -1..1, S whole frames -> codes int32 [B, F, num_codebooks]."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [B, F, K] of the first K books, K in 1..num_codebooks (fewer = coarser) -> float32 [B, S]."""


@functools.partial(jax.jit, static_argnums=0)
def _encode_chunk(config: spectral.SpectralConfig, params: dict, audio: jax.Array, mask: jax.Array) -> Any:
    latents = spectral.encode_latents(config, params, audio, mask)
    return latents, spectral.quantize(params["codebooks"], latents)[0]


@functools.partial(jax.jit, static_argnums=0)
def _decode_chunk(
    config: spectral.SpectralConfig, params: dict, latents: jax.Array, mask: jax.Array, state: phases.State
) -> tuple[phases.State, jax.Array]:
    logs = spectral.decode_log_magnitudes(config, params, latents[None], mask[None])[0]
    frames = slice(config.decoder_halo, len(mask) - config.decoder_halo)
    magnitudes = spectral.magnitudes_of(logs[frames]) * mask[frames, None]
    return phases.invert(state, magnitudes, mask[frames], config.window, config.hop)


class SpectralCodec:
    """The `spectral` codec with its weights. Works in chunks of a fixed shape; the result does not depend on them."""

    def __init__(
        self, config: spectral.SpectralConfig, params: dict, chunk_frames: tuple[int, ...] = CHUNK_FRAMES
    ) -> None:
        self.config = config
        self.sample_rate_hz = config.sample_rate_hz
        self.frame_rate_hz = config.frame_rate_hz
        self.num_codebooks = config.codebooks
        self.vocabulary = config.vocabulary
        self._params = jax.tree.map(jnp.asarray, params)
        self.codebooks = np.asarray(params["codebooks"])
        self._chunk_frames = tuple(sorted(chunk_frames))

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [B, S] -> codes int32 [B, F, K]. Raises ValueError where S is no whole number of frames."""
        return self._encode(audio)[1]

    def encode_latents(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [B, S] -> the latents before quantisation, float32 [B, F, D]."""
        return self._encode(audio)[0]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [B, F, K] of the first K books -> float32 [B, F * hop]. Raises ValueError on an invalid id."""
        codes = np.asarray(codes)
        if codes.ndim != 3 or not 1 <= codes.shape[2] <= self.num_codebooks:
            raise ValueError(f"codes have shape {codes.shape}; expected [B, F, K] with K in 1..{self.num_codebooks}")
        if codes.size and not (codes.min() >= 0 and codes.max() < self.vocabulary):
            raise ValueError(f"codes range over {codes.min()}..{codes.max()}; valid are 0..{self.vocabulary - 1}")
        return self.decode_latents(spectral.dequantize(self.codebooks, codes))

    def decode_latents(self, latents: np.ndarray) -> np.ndarray:
        """Latents float32 [B, F, D], quantised or not -> float32 [B, F * hop]."""
        c = self.config
        batch, frames, _ = latents.shape
        late = phases.delay_samples(c.window, c.hop)
        padded, mask, chunk = self._pad(latents, frames, c.decoder_halo, more=-(-late // c.hop))
        audio = np.empty((batch, frames * c.hop), np.float32)
        for row in range(batch):
            state, pieces = phases.start(c.window, c.hop), []
            for first in range(0, len(mask) - 2 * c.decoder_halo, chunk):
                window = slice(first, first + chunk + 2 * c.decoder_halo)
                state, samples = _decode_chunk(c, self._params, padded[row, window], mask[window], state)
                pieces.append(np.asarray(samples))
            audio[row] = np.concatenate([*pieces, np.empty(0, np.float32)])[late : late + frames * c.hop]
        return audio

    def _encode(self, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hop, halo = self.config.hop, self.config.encoder_halo
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2 or audio.shape[1] % hop:
            raise ValueError(f"audio has shape {audio.shape}; expected [B, S] with S a multiple of {hop} samples")
        batch, frames = audio.shape[0], audio.shape[1] // hop
        latents = np.zeros((batch, frames, self.config.latent), np.float32)
        codes = np.zeros((batch, frames, self.num_codebooks), np.int32)
        side = (self.config.window - hop) // 2  # samples that the first and last STFT window reach beyond their hop
        padded, mask, chunk = self._pad(audio.reshape(batch, frames, hop), frames, halo)
        samples = np.pad(padded.reshape(batch, -1), ((0, 0), (side, side)))
        for row in range(batch):
            for start in range(0, frames, chunk):
                window = slice(start, start + chunk + 2 * halo)
                piece = samples[row, None, window.start * hop : window.stop * hop + 2 * side]
                out = _encode_chunk(self.config, self._params, piece, mask[None, window])
                for target, values in zip((latents, codes), out, strict=True):
                    kept = target[row, start : start + chunk]
                    kept[:] = np.asarray(values)[0, halo : halo + len(kept)]
        return latents, codes

    def _pad(self, values: np.ndarray, frames: int, halo: int, more: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
        """Frames [B, F, X], `more` behind them, with a halo and up to whole chunks; the mask of those that exist; the
        chunk's frames."""
        wanted = frames + more if frames else 0
        chunk = next((c for c in self._chunk_frames if c >= wanted), self._chunk_frames[-1])
        after = halo + wanted - frames + -wanted % chunk
        mask = np.pad(np.ones(frames, np.float32), (halo, after))
        return np.pad(values, ((0, 0), (halo, after), (0, 0))), mask, chunk


def save_spectral(directory: str | os.PathLike, config: spectral.SpectralConfig, params: dict, **facts: Any) -> None:
    """Write `params` rounded to float16, and `config` with `facts` (what is known of the weights), to `directory`.

    Both files are written under a temporary name and renamed, the weights first.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "format_version": FORMAT_VERSION,
        "codec": "spectral",
        **{name: getattr(config, "codebooks" if name == "num_codebooks" else name) for name in CONTRACT},
        "spectral": dataclasses.asdict(config),
        **facts,
    }
    arrays.save(directory / WEIGHTS_FILE, params, "float16")
    write_bytes(directory / CONFIG_FILE, (json.dumps(document, indent=2) + "\n").encode())


def load_codec(directory: str | os.PathLike) -> Codec:
    """The codec of a directory. Raises InputError where a part is missing, damaged or not what the config says."""
    directory = Path(directory)
    document = read_config(directory)
    kind = document.get("codec")
    if kind == "spectral":
        config = _spectral_config(directory / CONFIG_FILE, document)
        return SpectralCodec(config, arrays.load(directory / WEIGHTS_FILE, spectral.shapes(config)))
    if kind == "encodec":
        if not isinstance(document.get("source"), str):
            raise InputError(
                f'{directory / CONFIG_FILE} has no "source"; expected a local directory or a Hub id such as '
                "facebook/encodec_24khz: add it"
            )
        from hafm_jax.audio.torch_models import EncodecCodec  # torch is needed by this codec only

        return EncodecCodec(document["source"])
    raise InputError(
        f'{directory / CONFIG_FILE} names codec {kind!r}; expected "spectral" or "encodec": correct it, or make a '
        "codec with tokenize/train_codec.py"
    )


def codec_sha256(directory: str | os.PathLike, codec: Codec) -> str:
    """Hash of the codec's weights: of the file where they lie in its folder, of the loaded model's otherwise."""
    if hasattr(codec, "weights_sha256"):
        return codec.weights_sha256()
    digest = hashlib.sha256()
    for path in sorted(Path(directory).glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_config(directory: str | os.PathLike) -> dict[str, Any]:
    """The codec directory's config.json as it is. Raises InputError where there is none or it is no JSON object."""
    path = Path(directory) / CONFIG_FILE
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); expected a codec directory: "
            "make one with tokenize/train_codec.py"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); expected a codec's config: make it again") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds a {type(document).__name__}; expected a JSON object: make the codec again")
    return document


def measure(
    codec: Codec, clips: Iterable[np.ndarray], books: Sequence[int | None]
) -> tuple[dict[int | None, list[float]], list[int]]:
    """Quality of a codec on clips, each float32 [S]; the last part of a frame is left out.

    Each of `books` is how many books are decoded (None, for SpectralCodec only: the latents without quantisation).
    Gives for each number the `spectral_distance_db` (hafm_jax.audio.spectra) of every clip, and how many ids each book
    used at all [K].
    """
    hop = codec.sample_rate_hz // codec.frame_rate_hz
    figures = {number: [] for number in books}
    used = np.zeros((codec.num_codebooks, codec.vocabulary), bool)
    for clip in clips:
        clip = clip[None, : len(clip) // hop * hop]
        codes = codec.encode(clip)
        used[np.arange(codec.num_codebooks), codes.reshape(-1, codec.num_codebooks)] = True
        for number, distances in figures.items():
            copy = (
                codec.decode_latents(codec.encode_latents(clip))
                if number is None
                else codec.decode(codes[:, :, :number])
            )
            distances.append(float(_distance_db(copy, clip, codec.sample_rate_hz)[0]))
    return figures, used.sum(axis=1).tolist()


_distance_db = jax.jit(spectral_distance_db, static_argnums=2)


def _spectral_config(path: Path, document: dict[str, Any]) -> spectral.SpectralConfig:
    if document.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {document.get('format_version')!r}; expected {FORMAT_VERSION}: "
            "train the codec again with this version of hafm_jax"
        )
    try:
        config = spectral.SpectralConfig(**document["spectral"])
        found = {name: getattr(config, "codebooks" if name == "num_codebooks" else name) for name in CONTRACT}
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f'{path} has no usable "spectral" sizes ({error}); make the codec again') from error
    if found != CONTRACT:
        raise InputError(f"{path} describes a codec with {found}; expected {CONTRACT}: use another codec")
    return config
