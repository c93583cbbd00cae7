"""Semantic tokens: features of the sound at 50 Hz, each frame replaced by the index of its nearest centroid.

There are two kinds of features: `hubert`, the paper's (hafm_jax.tokenizers.hubert), and `chroma`, which needs no
weights (hafm_jax.tokenizers.chroma). A tokenizer is a folder with two files:

    config.json             {"format_version": 1, "features": "chroma" | "hubert", "clusters": 500, "dimensions": D,
                            "centroids_sha256": ..., and for hubert "source": folder or Hub id, "layer": 9}
    centroids.safetensors   float32 [clusters, D], called "centroids"

Axes: C channels, S samples, F frames (2 a cell), D feature dimensions, K clusters.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from hafm_jax.audio import voice
from hafm_jax.audio.files import pad_to_cells, resample, to_mono
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_bounded, read_json, sealed, write_bytes, write_json
from hafm_jax.streams import SEMANTIC_SAMPLE_RATE_HZ, STREAMS, samples_per_cell
from hafm_jax.tokenizers.choices import VOCAL_NOISE_SIGMA

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
CENTROIDS_FILE = "centroids.safetensors"
MOST_CENTROID_BYTES = 2**26  # ours: 500 centroids of 16,000 dimensions in float64
FRAMES_AT_ONCE = 4096  # distances of one block: 4096 x 500 float32 are 8 MB, for any length of a file
MAKE_IT = "make it with tokenize/fit_kmeans.py"
PICKLE_SUFFIXES = (".bin", ".joblib", ".pickle", ".pkl")
CONVERT_PICKLE = (
    "a scikit-learn KMeans becomes npy in the environment that made the file, by "
    "numpy.save('centroids.npy', joblib.load('FILE').cluster_centers_)"
)


class SemanticTokenizer:
    """Audio -> semantic tokens. `features_name`, `vocabulary`, `centroids_sha256` identify it; `config` is config.json.

    A HuBERT model is loaded only when audio is first encoded, with `device` and `dtype` (HubertFeatures).
    """

    def __init__(
        self, config: dict[str, Any], centroids: np.ndarray, device: str | None = None, dtype: str | None = None
    ) -> None:
        self.config = dict(config)
        self.centroids = np.ascontiguousarray(centroids, np.float32)  # [K, D]
        self.features_name: str = config["features"]
        self.vocabulary: int = self.centroids.shape[0]
        self.centroids_sha256 = sha256_of_centroids(self.centroids)
        self._device, self._dtype = device, dtype

    @functools.cached_property
    def extractor(self) -> FeatureExtractor:
        extractor = FeatureExtractor(
            self.features_name, self.config.get("source"), self.config.get("layer"), self._device, self._dtype
        )
        extractor.check_centroids(self.centroids)
        return extractor

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [S] at 16 kHz, whole cells -> int32 [2 * cells]. Raises ValueError on another shape, and
        InputError where its features are NaN or infinite."""
        (tokens,) = self.encode_all([audio])
        if tokens is None:
            raise self.extractor.not_finite()
        return tokens

    def encode_all(self, clips: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """Clips float32 [S], each at 16 kHz and whole cells -> int32 [2 * cells] each, the tokens of `encode`; None for
        a clip with features that are NaN or infinite, as where they exceed the range of float16.

        Clips of one length go through HuBERT together where that is faster on the device. Features become tokens at
        once, so that only the tokens grow with the clips.
        """
        tokens: list[np.ndarray | None] = [np.empty(num_frames(clip), np.int32) for clip in clips]
        for number, first, features in self.extractor.blocks(clips):
            if not np.isfinite(features).all():
                tokens[number] = None
            elif tokens[number] is not None:
                tokens[number][first : first + len(features)] = nearest_centroids(features, self.centroids)
        return tokens


class FeatureExtractor:
    """Features by name, `dimensions` of them a frame; `device` and `dtype` are those of HubertFeatures.

    They are computed in `self.dtype`; in another one a frame may become another token. `weights_sha256` is that of
    HubertFeatures, None for chroma.
    """

    def __init__(
        self,
        features_name: str,
        source: str | None = None,
        layer: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if features_name == "chroma":
            from hafm_jax.tokenizers import chroma

            if dtype not in (None, "float32"):
                raise InputError(f"chroma features in {dtype}; expected float32, their only dtype: leave out --dtype")
            self.weights_sha256 = None
            self.dimensions, self.description, self.dtype = chroma.DIMENSIONS, "chroma", "float32"
            self._blocks = lambda clips: ((n, 0, chroma.chroma_features(clip)) for n, clip in enumerate(clips))
        elif features_name == "hubert":
            if source is None or layer is None:
                raise InputError(
                    "HuBERT features need a source (a folder, or a Hub id such as facebook/hubert-base-ls960) and a "
                    f"layer; found source {source!r} and layer {layer!r}: name both"
                )
            from hafm_jax.tokenizers.hubert import HubertFeatures

            hubert = HubertFeatures(source, layer, device, dtype)
            self.dimensions, self.dtype, self.weights_sha256 = hubert.dimensions, hubert.dtype, hubert.weights_sha256
            self.description = f"layer {layer} of {source}"
            self._blocks = hubert.blocks
        else:
            raise InputError(f"features are {features_name!r}; expected chroma or hubert: name one of them")

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [S] at 16 kHz, whole cells -> float32 [2 * cells, dimensions]. InputError where not finite."""
        out = np.empty((num_frames(audio), self.dimensions), np.float32)
        for _, first, features in self.blocks([audio]):
            out[first : first + len(features)] = features
        if not np.isfinite(out).all():
            raise self.not_finite()
        return out

    def blocks(self, clips: Sequence[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
        """Features of clips, float32 [S] at 16 kHz and whole cells each, in parts that come in any order.

        A part is (number of the clip, number of its first frame, float32 [F, dimensions]). Parts of HuBERT's cover at
        most half a minute, so that memory does not grow with a clip. Raises ValueError unless clips are whole cells.
        """
        cell = samples_per_cell(SEMANTIC_SAMPLE_RATE_HZ)
        for clip in clips:
            if clip.ndim != 1 or clip.size == 0 or clip.size % cell:
                raise ValueError(
                    f"audio has shape {clip.shape}; expected [S] with S a multiple of {cell} (pad_to_cells)"
                )
        return self._blocks([np.asarray(clip, np.float32) for clip in clips])

    def not_finite(self) -> InputError:
        """The error for features that are NaN or infinite."""
        return InputError(
            f"{self.description} gives NaN or infinity in {self.dtype}; expected numbers: bfloat16 and float32 have "
            "the range for any sane level (--dtype)"
        )

    def check_centroids(self, centroids: np.ndarray) -> None:
        """Raises InputError unless centroids [K, D] have as many dimensions as these features."""
        if self.dimensions != centroids.shape[1]:
            raise InputError(
                f"{self.description} gives {self.dimensions} features a frame, the centroids have "
                f"{centroids.shape[1]}; expected the model they were fitted on: correct the source, or {MAKE_IT}"
            )


def num_frames(audio: np.ndarray) -> int:
    """Frames of audio [S] at 16 kHz, whole cells."""
    return audio.size * STREAMS["vocal_semantic"].rate_hz // SEMANTIC_SAMPLE_RATE_HZ


def nearest_centroids(features: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Features [F, D], centroids [K, D] -> int32 [F]: the nearest by squared distance, ties to the lowest index.

    The centroids' mean is subtracted from both first. This changes no distance, and without it float32 would lose the
    differences between frames that are all far from the origin.
    """
    origin = centroids.mean(axis=0, dtype=np.float64)
    centred = (centroids - origin).astype(np.float32)  # [K, D]
    half_norms = 0.5 * np.square(centred, dtype=np.float64).sum(axis=1).astype(np.float32)  # [K]
    out = np.empty(len(features), np.int32)
    for start in range(0, len(features), FRAMES_AT_ONCE):
        block = (features[start : start + FRAMES_AT_ONCE] - origin).astype(np.float32)
        # argmin of |x - c|^2 = argmin of |c|^2 / 2 - x.c, the frame's own norm being the same for every centroid
        out[start : start + len(block)] = np.argmin(half_norms - block @ centred.T, axis=1)
    return out


def semantic_audio(audio: np.ndarray, rate_hz: int) -> np.ndarray:
    """float32 [S] or [C, S] at any rate -> mono float32 [S'] at 16 kHz, whole cells."""
    return pad_to_cells(resample(to_mono(audio), rate_hz, SEMANTIC_SAMPLE_RATE_HZ), SEMANTIC_SAMPLE_RATE_HZ)


def clean_vocal(vocal: np.ndarray, rate_hz: int) -> np.ndarray:
    """As `semantic_audio`, but without DC and at VOICE_LUFS (hafm_jax.audio.voice)."""
    return pad_to_cells(voice.level(voice.one_channel(vocal, rate_hz)), SEMANTIC_SAMPLE_RATE_HZ)


def with_noise(audio: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """float32 [S] with Gaussian noise of `sigma` (0: none). It covers padding too: the end of a song must not be the
    only place of digital silence."""
    if sigma == 0:
        return audio
    return audio + np.float32(sigma) * np.random.default_rng(seed).standard_normal(audio.shape, np.float32)


def vocal_audio(vocal: np.ndarray, rate_hz: int, noise_sigma: float, seed: int) -> np.ndarray:
    """`clean_vocal` with noise, as training and sampling both read it."""
    return with_noise(clean_vocal(vocal, rate_hz), noise_sigma, seed)


def vocal_tokens(
    tokenizer: SemanticTokenizer,
    vocal: np.ndarray,
    rate_hz: int,
    noise_sigma: float = VOCAL_NOISE_SIGMA,
    seed: int = 0,
) -> np.ndarray:
    """A vocal, float32 [S] or [C, S] at any rate -> vocal_semantic int32 [2 * cells], of `vocal_audio`.

    The tokens of a silent vocal are those of the noise.
    """
    return tokenizer.encode(vocal_audio(vocal, rate_hz, noise_sigma, seed))


def instrumental_tokens(tokenizer: SemanticTokenizer, instrumental: np.ndarray, rate_hz: int) -> np.ndarray:
    """An instrumental, float32 [S] or [C, S] at any rate -> instrumental_semantic int32 [2 * cells]; no noise."""
    return tokenizer.encode(semantic_audio(instrumental, rate_hz))


def sha256_of_centroids(centroids: np.ndarray) -> str:
    """Hash of shape and values (little-endian float32), the same on every machine and for every file format."""
    array = np.ascontiguousarray(centroids, "<f4")
    return hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest()


def save_semantic(directory: str | os.PathLike, config: dict[str, Any], centroids: np.ndarray) -> None:
    """Write a tokenizer's folder; `config` needs "features" (and "source", "layer" for hubert), the rest is added.

    Each file is renamed into place, the config last; it holds the centroids' hash, which reveals a mixture of two runs.
    Raises InputError where the parts do not fit the token streams.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    centroids = np.ascontiguousarray(centroids, np.float32)
    document = {
        **config,
        "format_version": FORMAT_VERSION,
        "clusters": centroids.shape[0],
        "dimensions": centroids.shape[1],
        "frame_rate_hz": STREAMS["vocal_semantic"].rate_hz,
        "sample_rate_hz": SEMANTIC_SAMPLE_RATE_HZ,
        "centroids_sha256": sha256_of_centroids(centroids),
    }
    _check(document, centroids, directory)
    write_bytes(directory / CENTROIDS_FILE, safetensors.numpy.save({"centroids": centroids}))
    write_json(directory / CONFIG_FILE, sealed(document))


def load_semantic(directory: str | os.PathLike, dtype: str | None = None) -> SemanticTokenizer:
    """The tokenizer of a folder, HuBERT with `dtype` (HubertFeatures).

    Raises InputError where a part is missing, damaged, or does not fit the config.
    """
    directory = Path(directory)
    document = read_json(directory / CONFIG_FILE, f"a semantic tokenizer's config: {MAKE_IT}")
    centroids = read_centroids(directory / CENTROIDS_FILE)
    _check(document, centroids, directory)
    return SemanticTokenizer(document, centroids, dtype=dtype)


def read_centroids(path: str | os.PathLike) -> np.ndarray:
    """Centroids float32 [K, D] of an npy file, or of safetensors with one array, or one called "centroids".

    Raises InputError on anything else. A pickle is never loaded, since that would run whatever code it names.
    """
    try:
        data = read_bounded(Path(path), MOST_CENTROID_BYTES)
        if data.startswith(b"\x93NUMPY"):
            array = np.load(io.BytesIO(data), allow_pickle=False)
        elif data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data):
            arrays = safetensors.numpy.load(data)
            if len(arrays) != 1 and "centroids" not in arrays:
                raise ValueError(f"it holds {len(arrays)} arrays, none of them called centroids")
            array = arrays.get("centroids", next(iter(arrays.values())))
        else:
            raise ValueError("it is neither npy nor safetensors")
        if array.dtype.kind != "f" or array.ndim != 2:
            raise ValueError(f"it holds {array.dtype} of shape {array.shape}")
    except Exception as error:  # safetensors raises its own error, and bare ones from its header parser
        reason = getattr(error, "strerror", None) or error
        remedy = CONVERT_PICKLE if Path(path).suffix in PICKLE_SUFFIXES else MAKE_IT
        raise InputError(
            f"{path} cannot be read as centroids ({reason}); expected floats [clusters, dimensions] in npy or "
            f"safetensors: {remedy}"
        ) from error
    return np.ascontiguousarray(array, np.float32)


def _check(document: dict[str, Any], centroids: np.ndarray, directory: Path) -> None:
    """Raises InputError unless config and centroids belong together and fit the token streams."""

    def expect(what: str, found: Any, expected: Any, remedy: str = MAKE_IT) -> None:
        if found != expected:
            raise InputError(f"{directory}: {what} is {found!r}; expected {expected!r}: {remedy}")

    expect("format_version", document.get("format_version"), FORMAT_VERSION)
    if document.get("features") not in ("chroma", "hubert"):
        raise InputError(
            f'{directory}: features are {document.get("features")!r}; expected "chroma" or "hubert": {MAKE_IT}'
        )
    source, layer = document.get("source"), document.get("layer")
    if document["features"] == "hubert" and not (isinstance(source, str) and isinstance(layer, int)):
        raise InputError(
            f"{directory}: source is {source!r}, layer {layer!r}; expected a folder or Hub id and a layer number: "
            f"correct {CONFIG_FILE}"
        )
    expect("the centroids' axes", centroids.ndim, 2)
    expect("the centroids' shape", list(centroids.shape), [document.get("clusters"), document.get("dimensions")])
    if not np.isfinite(centroids).all():
        raise InputError(f"{directory}: the centroids hold NaN or infinity; expected numbers: {MAKE_IT}")
    vocabulary = STREAMS["vocal_semantic"].vocabulary
    if not 1 <= len(centroids) <= vocabulary:
        raise InputError(
            f"{directory}: {len(centroids)} clusters; expected 1 to {vocabulary}, the vocabulary: {MAKE_IT}"
        )
    expect("the centroids' sha256", sha256_of_centroids(centroids), document.get("centroids_sha256"))
