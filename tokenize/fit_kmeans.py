"""Fit the semantic tokenizer: k-means on features of vocals and instrumentals, half of the frames from each.

    python tokenize/fit_kmeans.py --songs SONGS --features chroma --out TOKENIZERS
    python tokenize/fit_kmeans.py --songs SONGS --features hubert --source facebook/hubert-base-ls960 --out TOKENIZERS
    python tokenize/fit_kmeans.py --centroids km_500.bin --features hubert --source DIR_OR_HUB_ID --out TOKENIZERS

reads    SONGS/train/ID/vocals and instrumental, .wav or .flac; SONGS/validation, where it exists, for the report
writes   TOKENIZERS/semantic/config.json, with a report on the clusters, and centroids.safetensors

`chroma` needs no weights. `hubert` is the paper's, and needs the extra: pip install "hafm_jax[torch]".
The vocals get the same noise as in extraction. Equal arguments on one machine give equal centroids.

With --centroids nothing is fitted: the file is npy, safetensors, or a scikit-learn KMeans as joblib or pickle wrote it,
which is read without being run; with --songs the report says how it fits them.

Memory does not grow with --hours: the frames lie in TOKENIZERS while they are needed, an hour of 1024 features in
0.74 GB.

Axes: F frames, D feature dimensions, K clusters.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import hafm_jax
from hafm_jax.audio.files import read_audio, song_folders, stem_file
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.work import on_device
from hafm_jax.corpus.screening import HOPELESS_SONGS, Limits
from hafm_jax.streams import STREAMS
from hafm_jax.tokenizers.hub import DTYPES
from hafm_jax.tokenizers.semantic import (
    VOCAL_NOISE_SIGMA,
    FeatureExtractor,
    nearest_centroids,
    num_frames,
    read_centroids,
    save_semantic,
    semantic_audio,
)

STEMS = ("vocals", "instrumental")
FRAMES_PER_HOUR = 3600 * STREAMS["vocal_semantic"].rate_hz
MIN_FRAMES_PER_SONG = 500  # 10 s: of a large collection some songs are heard, not a little of every one
BATCH_FRAMES = 4096  # of MiniBatchKMeans: some frames for each of 500 clusters
MAX_PASSES = 100  # it stops earlier when inertia no longer falls
FRAMES_AT_ONCE = 8192  # of the report: 34 MB of 1024 features


class Sample(NamedTuple):
    """Frames float32 [F, D] of both stems, one after the other, in a file on disk; `rows` says which are whose."""

    frames: np.ndarray
    rows: dict[str, slice]
    num_songs: int


def take_frames(
    extractor: FeatureExtractor, path: Path, noise_sigma: float, rng: np.random.Generator, room: np.ndarray
) -> int:
    """Fill `room` [F, D] with random frames of a file, or with all that it has; returns how many.

    Of a file longer than any song of `extract_tokens.py` the rest is not heard. Raises InputError where it cannot be
    read or has no features.
    """
    audio = semantic_audio(*read_audio(path, Limits().max_s), noise_sigma, int(rng.integers(1 << 32)))
    if audio.size == 0:
        raise InputError(f"{path} is shorter than a sample at 16 kHz; expected a song: remove it")
    taken = min(len(room), num_frames(audio))
    chosen = np.sort(rng.choice(num_frames(audio), taken, replace=False))
    with on_device("computing features"):
        for _, first, features in extractor.blocks([audio]):
            if not np.isfinite(features).all():
                raise extractor.not_finite()
            here = np.flatnonzero((first <= chosen) & (chosen < first + len(features)))
            room[here] = features[chosen[here] - first]
    return taken


def sample_frames(
    extractor: FeatureExtractor, folders: list[Path], hours: float, noise_sigma: float, seed: int, scratch: Path
) -> Sample:
    """Random frames of each stem, `hours` in all at most, kept in a new file in the folder `scratch`.

    A song of no use is passed over. Raises InputError where none of the first ones is of any.
    """
    rng = np.random.default_rng(seed)
    wanted = round(hours * FRAMES_PER_HOUR / len(STEMS))
    per_song = max(MIN_FRAMES_PER_SONG, -(-wanted // len(folders)))
    order = rng.permutation(len(folders))
    split = folders[0].parent.name
    shape = (wanted * len(STEMS), extractor.dimensions)
    frames = np.memmap(scratch / f"{split}.float32", np.float32, "w+", shape=shape)
    rows: dict[str, slice] = {}
    filled = num_songs = 0
    with tqdm(total=len(frames), desc=f"features of {split}", unit="frame", unit_scale=True) as bar:
        for stem in STEMS:
            start, songs = filled, 0
            passed_over: list[str] = []
            for number in order:
                if filled - start == wanted or (filled == start and len(passed_over) >= HOPELESS_SONGS):
                    break
                sigma = noise_sigma if stem == "vocals" else 0.0
                room = frames[filled : min(filled + per_song, start + wanted)]
                try:
                    taken = take_frames(extractor, stem_file(folders[number], stem), sigma, rng, room)
                except InputError as error:
                    passed_over.append(str(error))
                    bar.write(f"passed over {folders[number].name}: {error}")
                    continue
                filled, songs = filled + taken, songs + 1
                bar.update(taken)
            if filled == start:
                raise InputError(f"no {stem} of {folders[0].parent} are of use, for one because {passed_over[-1]}")
            rows[stem], num_songs = slice(start, filled), max(num_songs, songs)
        bar.total = bar.n  # songs may be over before the bar is
    return Sample(frames[:filled], rows, num_songs)


def fit(frames: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Frames [F, D] -> centroids float32 [K, D]."""
    from sklearn.cluster import MiniBatchKMeans  # here: seconds of import that --help does without

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
    """How well the centroids fit each stem, and both together, and how evenly they are used.

    inertia_per_frame is the mean squared distance to the centroid; entropy_bits that of the clusters' use, at most
    log2 K; perplexity 2 to the entropy, the number of clusters that would be used so evenly.
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


def print_report(reports: dict[str, dict[str, dict[str, float | int]]]) -> None:
    print(f"{'':24}{'frames':>12}{'inertia':>12}{'in use':>8}{'entropy':>9}{'perplexity':>12}")
    for split, stems in reports.items():
        for stem, row in stems.items():
            print(
                f"{f'{split} {stem}':24}{row['frames']:>12,}{row['inertia_per_frame']:>12.4g}"
                f"{row['clusters_in_use']:>8}{row['entropy_bits']:>9.2f}{row['perplexity']:>12.1f}"
            )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    vocabulary = STREAMS["vocal_semantic"].vocabulary
    add("--songs", type=Path, help="songs folder with a split train; only --centroids does without")
    add("--features", choices=("chroma", "hubert"), required=True, help="what the frames are described by")
    made_by = parser.add_mutually_exclusive_group()
    made_by.add_argument(
        "--clusters", type=int, default=vocabulary, help=f"ids of a token, at most {vocabulary} (default: %(default)s)"
    )
    made_by.add_argument("--centroids", type=Path, help="file of centroids to take instead of fitting")
    add("--out", type=Path, required=True, help="tokenizers folder; semantic/ is written in it")
    add("--source", help="hubert: folder or Hub id of a transformers HubertModel")
    add("--layer", type=int, default=9, help="hubert: hidden layer, 0 is the first one's input (default: %(default)s)")
    add("--dtype", choices=DTYPES, help="hubert: to compute in (default: float16 on a GPU, else float32)")
    add("--hours", type=float, default=2.0, help="frames to fit on, as hours of audio (default: %(default)s)")
    add(
        "--vocal-noise", type=float, default=VOCAL_NOISE_SIGMA, help="sigma of the vocals' noise (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="of noise, choice of frames and k-means (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.songs is None and arguments.centroids is None:
        raise InputError("neither --songs nor --centroids; expected songs to fit to, or centroids: give one of them")
    if not 1 <= arguments.clusters <= vocabulary:
        raise InputError(f"--clusters is {arguments.clusters}; expected 1 to {vocabulary}, the streams' vocabulary")
    if not arguments.hours * FRAMES_PER_HOUR >= len(STEMS):
        raise InputError(f"--hours is {arguments.hours}; expected a frame (20 ms) of each stem, or more")
    if arguments.vocal_noise < 0:
        raise InputError(f"--vocal-noise is {arguments.vocal_noise}; expected 0 or more")
    if arguments.features == "hubert" and arguments.source is None:
        raise InputError("--features hubert without --source; expected a folder or a Hub id: add --source")
    return arguments


def make_tokenizer(arguments: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], np.ndarray]:
    """(config, centroids [K, D]) of the tokenizer; frames are kept in the folder `scratch` meanwhile."""
    import sklearn

    folders = {}
    if arguments.songs is not None:
        folders["train"] = song_folders(arguments.songs, "train")
        if (arguments.songs / "validation").is_dir():
            folders["validation"] = song_folders(arguments.songs, "validation")
    model = {"source": arguments.source, "layer": arguments.layer} if arguments.features == "hubert" else {}
    extractor = FeatureExtractor(arguments.features, dtype=arguments.dtype, **model)
    computed = {"dtype": extractor.dtype, "weights_sha256": extractor.weights_sha256}
    if arguments.centroids is not None:
        centroids = read_centroids(arguments.centroids)
        extractor.check_centroids(centroids)
        file_sha256 = hashlib.sha256(arguments.centroids.read_bytes()).hexdigest()
        made_by: dict[str, Any] = {"file": arguments.centroids.name, "file_sha256": file_sha256}
    sampling = arguments.hours, arguments.vocal_noise, arguments.seed, scratch
    samples = {split: sample_frames(extractor, songs, *sampling) for split, songs in folders.items()}
    if arguments.centroids is None:
        frames = samples["train"].frames
        print(f"k-means: {len(frames):,} frames of {frames.shape[1]} dimensions, {arguments.clusters} clusters")
        centroids = fit(frames, arguments.clusters, arguments.seed)
        made_by = {"songs": samples["train"].num_songs, "frames": len(frames)}
    reports = {split: describe(sample, centroids) for split, sample in samples.items()}
    print_report(reports)
    config = {
        "features": arguments.features,
        **model,
        "fit": {
            **made_by,
            **{name: value for name, value in computed.items() if value is not None},
            "vocal_noise_sigma": arguments.vocal_noise,
            "seed": arguments.seed,
            **reports,
            "versions": {
                "hafm_jax": hafm_jax.__version__,
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
                "python": platform.python_version(),
            },
        },
    }
    return config, centroids


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fit_kmeans-", dir=arguments.out) as scratch:
        config, centroids = make_tokenizer(arguments, Path(scratch))
    save_semantic(arguments.out / "semantic", config, centroids)
    print(f"{arguments.out / 'semantic'}: {len(centroids)} clusters of {centroids.shape[1]} dimensions")


if __name__ == "__main__":
    run_command(main)
