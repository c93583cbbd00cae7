"""Semantic tokens: features of the sound at 50 Hz, each frame replaced by the index of its nearest centroid.

Two kinds of features (DESIGN.md section 6): `hubert`, the paper's, through hafm_jax.audio.torch_models, and `chroma`
(hafm_jax.audio.chroma), which needs no weights. A tokenizer is a folder with two files:

    config.json     {"format_version": 1, "features": "chroma" | "hubert", "clusters": 500, "dimensions": D,
                     "centroids_sha256": ..., and for hubert "source": folder or Hub id, "layer": 9}
    centroids.npy   float32 [clusters, D]

Axes: C channels, S samples, F frames (2 a cell), D feature dimensions, K clusters.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.atomic import write_bytes
from hafm_jax.audio.files import pad_to_cells, resample, to_mono
from hafm_jax.errors import InputError
from hafm_jax.streams import SEMANTIC_SAMPLE_RATE_HZ, STREAMS, samples_per_cell

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
CENTROIDS_FILE = "centroids.npy"
VOCAL_NOISE_SIGMA = 0.01  # Gaussian noise on the vocal that hides what a separator left of the band [authors' code]
FRAMES_AT_ONCE = 4096  # distances of one block: 4096 x 500 float32 are 8 MB, whatever the file's length
MAKE_IT = "make it with tokenize/fit_kmeans.py"


class SemanticTokenizer:
    """Audio -> semantic tokens. `features_name`, `vocabulary` and `centroids_sha256` say which; `config` is the file's.

    A HuBERT model is loaded when audio is first encoded, not before.
    """

    def __init__(self, config: dict[str, Any], centroids: np.ndarray) -> None:
        self.config = dict(config)
        self.centroids = np.ascontiguousarray(centroids, np.float32)  # [K, D]
        self.features_name: str = config["features"]
        self.vocabulary: int = self.centroids.shape[0]
        self.centroids_sha256 = sha256_of_centroids(self.centroids)

    @functools.cached_property
    def _extractor(self) -> FeatureExtractor:
        extractor = FeatureExtractor(self.features_name, self.config.get("source"), self.config.get("layer"))
        if extractor.dimensions != self.centroids.shape[1]:
            raise InputError(
                f"{extractor.description} gives {extractor.dimensions} features a frame, the centroids have "
                f"{self.centroids.shape[1]}; expected the model they were fitted on: correct the source, or {MAKE_IT}"
            )
        return extractor

    def features(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [S] at 16 kHz, whole cells -> float32 [F, D] with F = 2 * cells."""
        return self._extractor(audio)

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Audio float32 [S] at 16 kHz, whole cells -> int32 [2 * cells]. Raises ValueError on another shape."""
        return nearest_centroids(self.features(audio), self.centroids)


class FeatureExtractor:
    """Features by name: audio float32 [S] at 16 kHz, whole cells -> float32 [2 * cells, dimensions]."""

    def __init__(self, features_name: str, source: str | None = None, layer: int | None = None) -> None:
        if features_name == "chroma":
            from hafm_jax.audio import chroma

            self.dimensions, self.description, self._compute = chroma.DIMENSIONS, "chroma", chroma.chroma_features
        elif features_name == "hubert":
            if source is None or layer is None:
                raise InputError(
                    "HuBERT features need a source (a folder, or a Hub id such as facebook/hubert-base-ls960) and a "
                    f"layer; found source {source!r} and layer {layer!r}: name both"
                )
            from hafm_jax.audio.torch_models import HubertFeatures

            hubert = HubertFeatures(source, layer)
            self.dimensions, self.description, self._compute = hubert.dimensions, str(source), hubert.features
        else:
            raise InputError(f"no features are called {features_name!r}; expected chroma or hubert")

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        cell = samples_per_cell(SEMANTIC_SAMPLE_RATE_HZ)
        if audio.ndim != 1 or audio.size == 0 or audio.size % cell:
            raise ValueError(f"audio has shape {audio.shape}; expected [S] with S a multiple of {cell} (pad_to_cells)")
        return self._compute(np.asarray(audio, np.float32))


def nearest_centroids(features: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Features [F, D], centroids [K, D] -> int32 [F]: the nearest by squared distance, ties to the lowest index.

    The centroids' mean is taken off both sides first: it changes no distance, and without it float32 would lose the
    differences between frames that all lie far from the origin.
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


def semantic_audio(audio: np.ndarray, rate_hz: int, noise_sigma: float, seed: int) -> np.ndarray:
    """float32 [S] or [C, S] at any rate -> mono at 16 kHz, whole cells, with Gaussian noise of `noise_sigma` (0: none).

    The noise covers the padding too: the end of a song must not be the only place where silence is digital.
    """
    mono = pad_to_cells(resample(to_mono(audio), rate_hz, SEMANTIC_SAMPLE_RATE_HZ), SEMANTIC_SAMPLE_RATE_HZ)
    if noise_sigma == 0:
        return mono
    return mono + np.float32(noise_sigma) * np.random.default_rng(seed).standard_normal(mono.shape, np.float32)


def vocal_tokens(
    tokenizer: SemanticTokenizer,
    vocal: np.ndarray,
    rate_hz: int,
    noise_sigma: float = VOCAL_NOISE_SIGMA,
    seed: int = 0,
) -> np.ndarray:
    """A vocal, float32 [S] or [C, S] at any rate -> vocal_semantic int32 [2 * cells], noise as in `semantic_audio`.

    Training and sampling both call this: what the model hears when it accompanies is made as what it learnt from.
    """
    return tokenizer.encode(semantic_audio(vocal, rate_hz, noise_sigma, seed))


def instrumental_tokens(tokenizer: SemanticTokenizer, instrumental: np.ndarray, rate_hz: int) -> np.ndarray:
    """An instrumental, float32 [S] or [C, S] at any rate -> instrumental_semantic int32 [2 * cells]; no noise."""
    return tokenizer.encode(semantic_audio(instrumental, rate_hz, noise_sigma=0.0, seed=0))


def sha256_of_centroids(centroids: np.ndarray) -> str:
    """Hash of shape and values (little-endian float32): the same on every machine, whatever the file's header."""
    array = np.ascontiguousarray(centroids, "<f4")
    return hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest()


def save_semantic(directory: str | os.PathLike, config: dict[str, Any], centroids: np.ndarray) -> None:
    """Write a tokenizer's folder; `config` needs "features" (and "source", "layer" for hubert), the rest is added.

    Each file is renamed into place, the config last; it holds the centroids' hash, so a mixture of two runs is noticed.
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
    array = io.BytesIO()
    np.save(array, centroids, allow_pickle=False)
    write_bytes(directory / CENTROIDS_FILE, array.getvalue())
    write_bytes(directory / CONFIG_FILE, (json.dumps(document, indent=2) + "\n").encode())


def load_semantic(directory: str | os.PathLike) -> SemanticTokenizer:
    """The tokenizer of a folder. Raises InputError where a part is missing, damaged, or not what the config says."""
    directory = Path(directory)
    path = directory / CONFIG_FILE
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); expected a semantic tokenizer: {MAKE_IT}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); expected a tokenizer's config: {MAKE_IT}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds a {type(document).__name__}; expected a JSON object: {MAKE_IT}")
    try:
        centroids = np.load(directory / CENTROIDS_FILE, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{directory / CENTROIDS_FILE} cannot be read ({reason}); expected float32 centroids: {MAKE_IT}"
        ) from error
    _check(document, centroids, directory)
    return SemanticTokenizer(document, centroids)


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
    expect("the centroids' type", (centroids.dtype.name, centroids.ndim), ("float32", 2))
    expect("the centroids' shape", list(centroids.shape), [document.get("clusters"), document.get("dimensions")])
    if not np.isfinite(centroids).all():
        raise InputError(f"{directory}: the centroids hold NaN or infinity; expected numbers: {MAKE_IT}")
    vocabulary = STREAMS["vocal_semantic"].vocabulary
    if not 1 <= len(centroids) <= vocabulary:
        raise InputError(
            f"{directory}: {len(centroids)} clusters; expected 1 to {vocabulary}, the vocabulary: {MAKE_IT}"
        )
    expect("the centroids' sha256", sha256_of_centroids(centroids), document.get("centroids_sha256"))
