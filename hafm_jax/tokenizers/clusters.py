"""Fitting the semantic tokenizer's clusters: random frames of many songs, k-means, and a report on the result.

Axes: F frames, D feature dimensions, K clusters.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from hafm_jax.audio.files import read_audio, stem_file
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import writing
from hafm_jax.common.work import on_device
from hafm_jax.streams import STREAMS
from hafm_jax.tokenizers.semantic import FeatureExtractor, nearest_centroids, num_frames, semantic_audio

STEMS = ("vocals", "instrumental")
FRAMES_PER_HOUR = 3600 * STREAMS["vocal_semantic"].rate_hz
# All ours.
MIN_FRAMES_PER_SONG = 500  # 10 s: of a large collection some songs are read, instead of a little of each
BATCH_FRAMES = 4096  # of MiniBatchKMeans: some frames for each of 500 clusters
MAX_PASSES = 100  # it stops earlier when inertia no longer falls
FRAMES_AT_ONCE = 8192  # of the report: 34 MB of 1024 features


class Sample(NamedTuple):
    """Frames float32 [F, D] of both stems, one after the other, in a file on disk; `rows` are the slices by stem."""

    frames: np.ndarray
    rows: dict[str, slice]
    num_songs: int


class Sampling(NamedTuple):
    """What to sample: frames of `hours` of audio in all, half of each stem, at most `max_s` seconds of a file.

    `vocal_noise_sigma` as for `semantic_audio`; `max_unusable`: so many songs in a row at the start end the sampling.
    """

    hours: float
    vocal_noise_sigma: float
    seed: int
    max_s: float
    max_unusable: int


def sample_frames(extractor: FeatureExtractor, folders: list[Path], sampling: Sampling, scratch: Path) -> Sample:
    """Random frames of each stem of the songs in `folders`, in a new file in the folder `scratch`.

    Songs that cannot be used are skipped. Raises InputError where none of the first ones can.
    """
    rng = np.random.default_rng(sampling.seed)
    wanted = round(sampling.hours * FRAMES_PER_HOUR / len(STEMS))
    per_song = max(MIN_FRAMES_PER_SONG, -(-wanted // len(folders)))
    order = rng.permutation(len(folders))
    split = folders[0].parent.name
    # Written, and only then mapped: where the disk is full, writing raises, but a store to a mapped page is a SIGBUS.
    path, frame_bytes = scratch / f"{split}.float32", 4 * extractor.dimensions
    rows: dict[str, slice] = {}
    filled = num_songs = 0
    with (
        writing(path),
        path.open("wb") as file,
        tqdm(total=wanted * len(STEMS), desc=f"features of {split}", unit="frame", unit_scale=True) as bar,
    ):
        for stem in STEMS:
            start, songs = filled, 0
            skipped: list[str] = []
            for number in order:
                if filled - start == wanted or (filled == start and len(skipped) >= sampling.max_unusable):
                    break
                sigma = sampling.vocal_noise_sigma if stem == "vocals" else 0.0
                try:
                    song = stem_file(folders[number], stem)
                    audio, rate_hz = read_audio(song, sampling.max_s)
                    audio = semantic_audio(audio, rate_hz, sigma, int(rng.integers(1 << 32)))
                    if audio.size == 0:
                        raise InputError(f"{song} is shorter than a sample at 16 kHz; expected a song: remove it")
                    taken = min(per_song, start + wanted - filled, num_frames(audio))
                    _write_frames(extractor, audio, rng, taken, file)
                except InputError as error:
                    skipped.append(str(error))
                    bar.write(f"skipped {folders[number].name}: {error}")
                    file.seek(filled * frame_bytes)  # the next song overwrites what was written of this one
                    continue
                filled, songs = filled + taken, songs + 1
                bar.update(taken)
            if filled == start:
                raise InputError(
                    f"no {stem} of {folders[0].parent} can be used, for one because {skipped[-1]}; expected songs: "
                    "make them again"
                )
            rows[stem], num_songs = slice(start, filled), max(num_songs, songs)
        bar.total = bar.n  # there may be fewer frames than wanted
    return Sample(np.memmap(path, np.float32, "r+", shape=(filled, extractor.dimensions)), rows, num_songs)


def _write_frames(
    extractor: FeatureExtractor, audio: np.ndarray, rng: np.random.Generator, taken: int, file: BinaryIO
) -> None:
    """Write `taken` random frames of audio [S] at 16 kHz. Raises InputError where features are not finite."""
    chosen = np.sort(rng.choice(num_frames(audio), taken, replace=False))
    with on_device("computing features"):
        for _, first, features in extractor.blocks([audio]):
            if not np.isfinite(features).all():
                raise extractor.not_finite()
            here = chosen[(first <= chosen) & (chosen < first + len(features))]
            file.write(features[here - first].astype(np.float32).tobytes())


def fit(frames: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Frames [F, D] -> centroids float32 [K, D] by k-means. Raises InputError with fewer frames than clusters."""
    from sklearn.cluster import MiniBatchKMeans  # here: it takes seconds to import, and --help does without

    if len(frames) < num_clusters:
        raise InputError(
            f"{len(frames)} frames for {num_clusters} clusters; expected more frames than clusters: give more songs, "
            "more --hours or fewer --clusters"
        )
    kmeans = MiniBatchKMeans(
        num_clusters,
        batch_size=BATCH_FRAMES,
        max_iter=MAX_PASSES,
        n_init=3,
        compute_labels=False,
        random_state=seed,
    )
    return kmeans.fit(frames).cluster_centers_.astype(np.float32)


def describe(sample: Sample, centroids: np.ndarray) -> dict[str, dict[str, float | int]]:
    """How well the centroids [K, D] fit each stem, and both together, and how evenly they are used.

    inertia_per_frame is the mean squared distance to the centroid; entropy_bits is that of the clusters' use, at most
    log2 K; perplexity is 2 to the entropy, the number of clusters that would have this entropy if used evenly.
    """
    counts = {stem: np.zeros(len(centroids), np.int64) for stem in STEMS}
    inertia = dict.fromkeys(STEMS, 0.0)
    for stem, rows in sample.rows.items():
        for start in range(rows.start, rows.stop, FRAMES_AT_ONCE):
            values = sample.frames[start : min(start + FRAMES_AT_ONCE, rows.stop)]
            tokens = nearest_centroids(values, centroids)
            counts[stem] += np.bincount(tokens, minlength=len(centroids))
            inertia[stem] += float(np.square(values - centroids[tokens]).sum(dtype=np.float64))
    counts["both"], inertia["both"] = sum(counts.values()), sum(inertia.values())
    out = {}
    for stem, count in counts.items():
        share = count[count > 0] / count.sum()
        entropy_bits = float(-(share * np.log2(share)).sum())
        out[stem] = {
            "frames": int(count.sum()),
            "inertia_per_frame": inertia[stem] / int(count.sum()),
            "clusters_in_use": len(share),
            "entropy_bits": entropy_bits,
            "perplexity": 2**entropy_bits,
        }
    return out
