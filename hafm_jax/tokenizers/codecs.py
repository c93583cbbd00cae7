"""Neural audio codecs behind one interface: `spectral` (ours, JAX) and `encodec` (the paper's, PyTorch).

A codec is a directory with a `config.json` that names it; `load_codec` reads it. Weights are safetensors, never pickle.

Axes: B batch, S samples, F frames, K codebooks, V codes of a codebook, D latent.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.audio.stft import spectral_distance_db
from hafm_jax.common import safetensors_io
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, reading, sealed, sha256_of, write_json
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CODEC_SAMPLE_RATE_HZ, STREAMS, check_codes
from hafm_jax.tokenizers import phases, spectral_codec

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "codec.safetensors"
# Frames of one call of the networks without the halo: 2.1 s. Every path uses this one length, since programs of other
# shapes round differently, and the search for phases amplifies that until it is audible.
CHUNK_FRAMES = 160
CONTRACT = {  # the token streams expect this of any codec
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
def _encode_chunk(config: spectral_codec.SpectralConfig, params: dict, audio: jax.Array, mask: jax.Array) -> Any:
    latents = spectral_codec.encode_latents(config, params, audio, mask)
    return latents, spectral_codec.quantize(params["codebooks"], latents)[0]


@functools.partial(jax.jit, static_argnums=0)
def _decode_chunk(
    config: spectral_codec.SpectralConfig, params: dict, latents: jax.Array, mask: jax.Array
) -> jax.Array:
    """Latents [F, D] and mask [F], halo included -> magnitudes [F, W] without it; 0 where a frame does not exist."""
    logs = spectral_codec.decode_log_magnitudes(config, params, latents[None], mask[None])[0]
    frames = slice(config.decoder_halo, len(mask) - config.decoder_halo)
    return spectral_codec.magnitudes_of(logs[frames]) * mask[frames, None]


_invert = jax.jit(phases.invert, static_argnums=(3, 4))


class SpectralCodec:
    """The `spectral` codec with its weights.

    It works in chunks of `chunk_frames`, counted from the first frame, so that a frame's result depends on its place
    and its neighbours, and not on the length of the file or on the pieces in which it came.
    """

    def __init__(self, config: spectral_codec.SpectralConfig, params: dict, chunk_frames: int = CHUNK_FRAMES) -> None:
        self.config = config
        self.sample_rate_hz = config.sample_rate_hz
        self.frame_rate_hz = config.frame_rate_hz
        self.num_codebooks = config.codebooks
        self.vocabulary = config.vocabulary
        self.params = jax.tree.map(jnp.asarray, params)
        self.codebooks = np.asarray(params["codebooks"])
        self.chunk_frames = chunk_frames

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [B, S] -> codes int32 [B, F, K]. Raises ValueError unless S is a whole number of frames."""
        return self._encode(audio)[1]

    def encode_latents(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [B, S] -> the latents before quantisation, float32 [B, F, D]."""
        return self._encode(audio)[0]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [B, F, K] of the first K books -> float32 [B, F * hop]. Raises ValueError on an invalid id."""
        codes = check_codes(codes, self.num_codebooks, self.vocabulary)
        return self.decode_latents(spectral_codec.dequantize(self.codebooks, codes))

    def decode_latents(self, latents: np.ndarray) -> np.ndarray:
        """Latents float32 [B, F, D], quantised or not -> float32 [B, F * hop]."""
        batch, frames, _ = latents.shape
        audio = np.empty((batch, frames * self.config.hop), np.float32)
        for row, song in zip(audio, latents, strict=True):
            decoder = SpectralDecoder(self)
            row[:] = np.concatenate([decoder.feed(song), decoder.finish()])
        return audio

    def _encode(self, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hop, halo, chunk = self.config.hop, self.config.encoder_halo, self.chunk_frames
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2 or audio.shape[1] % hop:
            raise ValueError(f"audio has shape {audio.shape}; expected [B, S] with S a multiple of {hop} samples")
        batch, frames = audio.shape[0], audio.shape[1] // hop
        latents = np.zeros((batch, frames, self.config.latent), np.float32)
        codes = np.zeros((batch, frames, self.num_codebooks), np.int32)
        side = (self.config.window - hop) // 2  # samples that the first and last STFT window reach beyond their hop
        after = halo + -frames % chunk
        mask = np.pad(np.ones(frames, np.float32), (halo, after))
        samples = np.pad(audio, ((0, 0), (halo * hop + side, after * hop + side)))
        for row in range(batch):
            for start in range(0, frames, chunk):
                window = slice(start, start + chunk + 2 * halo)
                piece = samples[row, None, window.start * hop : window.stop * hop + 2 * side]
                out = _encode_chunk(self.config, self.params, piece, mask[None, window])
                for target, values in zip((latents, codes), out, strict=True):
                    kept = target[row, start : start + chunk]
                    kept[:] = np.asarray(values)[0, halo : halo + len(kept)]
        return latents, codes


class SpectralDecoder:
    """One song's latents, fed in pieces of any length -> its samples: the same bits for any cuts."""

    def __init__(self, codec: SpectralCodec) -> None:
        c = codec.config
        self._codec = codec
        self._state = phases.start(c.window, c.hop)
        self._latents = np.zeros((c.decoder_halo, c.latent), np.float32)  # those to decode, with the halo before them
        self._mask = np.zeros(c.decoder_halo, np.float32)
        self._frames = 0
        self._first_sample = -phases.delay_samples(c.window, c.hop)  # of the next chunk; samples below 0 are dropped

    def feed(self, latents: np.ndarray) -> np.ndarray:
        """The next latents, float32 [F, D] -> float32 [S]: the samples that later latents cannot change."""
        self._frames += len(latents)
        return self._push(latents, 1.0)

    def finish(self) -> np.ndarray:
        """The rest of the song's samples, float32 [S]: frames * hop in all."""
        c = self._codec.config
        last = self._frames * c.hop
        pieces = []
        while self._first_sample < last:
            missing = self._codec.chunk_frames + 2 * c.decoder_halo - len(self._mask)
            pieces.append(self._push(np.zeros((missing, c.latent), np.float32), 0.0))
        return np.concatenate([*pieces, np.empty(0, np.float32)])

    def _push(self, latents: np.ndarray, exists: float) -> np.ndarray:
        c, chunk = self._codec.config, self._codec.chunk_frames
        self._latents = np.concatenate([self._latents, latents])
        self._mask = np.concatenate([self._mask, np.full(len(latents), exists, np.float32)])
        pieces = [np.empty(0, np.float32)]
        while len(self._mask) >= chunk + 2 * c.decoder_halo:
            window = slice(chunk + 2 * c.decoder_halo)
            magnitudes = _decode_chunk(c, self._codec.params, self._latents[window], self._mask[window])
            exists = self._mask[c.decoder_halo :][:chunk]
            self._state, samples = _invert(self._state, magnitudes, exists, c.window, c.hop)
            self._latents, self._mask = self._latents[chunk:], self._mask[chunk:]
            kept = slice(max(0, -self._first_sample), max(0, self._frames * c.hop - self._first_sample))
            pieces.append(np.asarray(samples)[kept])
            self._first_sample += chunk * c.hop
        return np.concatenate(pieces)


def save_spectral(
    directory: str | os.PathLike, config: spectral_codec.SpectralConfig, params: dict, **facts: Any
) -> None:
    """Write `params` rounded to float16, and `config` with `facts` about the weights and their SHA-256, to `directory`.

    Both files are written under a temporary name and renamed, the weights first. Raises InputError where a weight is
    not finite or the place cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "format_version": FORMAT_VERSION,
        "codec": "spectral",
        **{name: getattr(config, "codebooks" if name == "num_codebooks" else name) for name in CONTRACT},
        "spectral": dataclasses.asdict(config),
        **facts,
        "weights_sha256": safetensors_io.save(directory / WEIGHTS_FILE, params, "float16"),
    }
    write_json(directory / CONFIG_FILE, sealed(document))


def load_codec(directory: str | os.PathLike) -> Codec:
    """The codec of a directory. Raises InputError where a part is missing, damaged or does not fit the config."""
    directory = Path(directory)
    document = read_config(directory)
    kind = document.get("codec")
    if kind == "spectral":
        config = _spectral_config(directory / CONFIG_FILE, document)
        shapes, sha256 = spectral_codec.shapes(config), document.get("weights_sha256")
        return SpectralCodec(config, safetensors_io.load(directory / WEIGHTS_FILE, shapes, sha256))
    if kind == "encodec":
        if not isinstance(document.get("source"), str):
            raise InputError(
                f'{directory / CONFIG_FILE} has no "source"; expected a local directory or a Hub id such as '
                "facebook/encodec_24khz: add it"
            )
        from hafm_jax.tokenizers.encodec import EncodecCodec  # torch is needed by this codec only

        return EncodecCodec(document["source"])
    raise InputError(
        f'{directory / CONFIG_FILE} names codec {kind!r}; expected "spectral" or "encodec": correct it, or make a '
        "codec with tokenize/train_codec.py"
    )


def codec_sha256(directory: str | os.PathLike, codec: Codec) -> str:
    """Hash of the codec's weights: of the file where its folder holds them, of the loaded model's weights otherwise."""
    if hasattr(codec, "weights_sha256"):
        return codec.weights_sha256()
    return sha256_of(sorted(Path(directory).glob("*.safetensors")))


def read_config(directory: str | os.PathLike) -> dict[str, Any]:
    """The codec directory's config.json as it is. Raises InputError where it is missing or not a JSON object."""
    return read_json(Path(directory) / CONFIG_FILE, "a codec's config: make one with tokenize/train_codec.py")


def measure(
    codec: Codec, clips: Iterable[np.ndarray], books: Sequence[int | None]
) -> tuple[dict[int | None, list[float]], list[int]]:
    """Quality of a codec on clips, each float32 [S]; a part of a frame at the end is left out.

    Each of `books` is the number of books to decode (None, for SpectralCodec only: the latents without quantisation).
    Returns for each of them the `spectral_distance_db` (hafm_jax.audio.stft) of every clip, and the number of ids that
    each book used [K].
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


def _spectral_config(path: Path, document: dict[str, Any]) -> spectral_codec.SpectralConfig:
    if document.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {document.get('format_version')!r}; expected {FORMAT_VERSION}: "
            "train the codec again with this version of hafm_jax"
        )
    with reading(path, 'the sizes of a codec as "spectral": make the codec again'):
        config = spectral_codec.SpectralConfig(**document["spectral"])
        found = {name: getattr(config, "codebooks" if name == "num_codebooks" else name) for name in CONTRACT}
    if found != CONTRACT:
        raise InputError(f"{path} describes a codec with {found}; expected {CONTRACT}: use another codec")
    return config
