"""Fit the semantic tokenizer: k-means on features of vocals and instrumentals, half of the frames from each.

    python tokenize/fit_kmeans.py --songs SONGS --features chroma --out TOKENIZERS
    python tokenize/fit_kmeans.py --songs SONGS --features hubert --source facebook/hubert-base-ls960 --out TOKENIZERS

reads    SONGS/train/ID/vocals.wav and instrumental.wav; SONGS/validation, where it exists, to count clusters in use
writes   TOKENIZERS/semantic/config.json and centroids.npy

`chroma` needs no weights. `hubert` is the paper's, and needs the extra: pip install "hafm_jax[torch]".
The vocals get the same noise as in extraction. Equal arguments on one machine give equal centroids.

Axes: F frames, D feature dimensions, K clusters.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
from tqdm import tqdm

import hafm_jax
from hafm_jax.audio.files import read_audio, song_folders
from hafm_jax.audio.semantic import (
    VOCAL_NOISE_SIGMA,
    FeatureExtractor,
    nearest_centroids,
    save_semantic,
    semantic_audio,
)
from hafm_jax.errors import InputError, run_command
from hafm_jax.streams import STREAMS

STEMS = ("vocals", "instrumental")
MIN_FRAMES_PER_SONG = 500  # 10 s: of a large collection some songs are heard, not a little of every one
BATCH_FRAMES = 4096  # of MiniBatchKMeans: some frames for each of 500 clusters
MAX_PASSES = 100  # it stops earlier when inertia no longer falls


def sample_frames(
    extractor: FeatureExtractor, folders: list[Path], max_frames: int, noise_sigma: float, seed: int, label: str
) -> tuple[dict[str, np.ndarray], int]:
    """Random frames [F, D] of each stem, `max_frames` in all at most, and the number of songs they come from."""
    rng = np.random.default_rng(seed)
    wanted = max_frames // len(STEMS)
    per_song = max(MIN_FRAMES_PER_SONG, -(-wanted // len(folders)))
    kept: dict[str, list[np.ndarray]] = {stem: [] for stem in STEMS}
    count = dict.fromkeys(STEMS, 0)
    num_songs = 0
    with tqdm(total=wanted * len(STEMS), desc=f"features of {label}", unit="frame", unit_scale=True) as bar:
        for number in rng.permutation(len(folders)):
            if all(count[stem] >= wanted for stem in STEMS):
                break
            for stem in STEMS:
                audio, rate_hz = read_audio(folders[number] / f"{stem}.wav")
                sigma = noise_sigma if stem == "vocals" else 0.0
                features = extractor(semantic_audio(audio, rate_hz, sigma, int(rng.integers(1 << 32))))
                take = min(per_song, len(features), wanted - count[stem])
                kept[stem].append(features[np.sort(rng.choice(len(features), take, replace=False))])
                count[stem] += take
                bar.update(take)
            num_songs += 1
        bar.total = bar.n  # songs may be over before the bar is
    return {stem: np.concatenate(kept[stem]) for stem in STEMS}, num_songs


def fit(frames: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Frames [F, D] -> centroids float32 [K, D]."""
    from sklearn.cluster import MiniBatchKMeans  # here: seconds of import that --help does without

    if len(frames) < num_clusters:
        raise InputError(
            f"{len(frames)} frames for {num_clusters} clusters; expected more frames than clusters: give more songs, "
            "or fewer --clusters"
        )
    kmeans = MiniBatchKMeans(num_clusters, batch_size=BATCH_FRAMES, max_iter=MAX_PASSES, n_init=3, random_state=seed)
    return kmeans.fit(frames).cluster_centers_.astype(np.float32)


def describe(frames: dict[str, np.ndarray], centroids: np.ndarray) -> dict[str, float | int]:
    """Mean squared distance to the centroid, and the clusters that each stem uses at all."""
    out: dict[str, float | int] = {}
    used = {}
    for stem, values in frames.items():
        tokens = nearest_centroids(values, centroids)
        out[f"{stem}_inertia_per_frame"] = float(np.square(values - centroids[tokens]).sum(axis=1).mean())
        used[stem] = np.unique(tokens)
        out[f"{stem}_clusters_in_use"] = len(used[stem])
    return {**out, "clusters_in_use": len(np.union1d(*used.values()))}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    vocabulary = STREAMS["vocal_semantic"].vocabulary
    add("--songs", type=Path, required=True, help="songs folder with a split train")
    add("--features", choices=("chroma", "hubert"), required=True, help="what the frames are described by")
    add("--clusters", type=int, default=vocabulary, help=f"ids of a token, at most {vocabulary} (default: %(default)s)")
    add("--out", type=Path, required=True, help="tokenizers folder; semantic/ is written in it")
    add("--source", help="hubert: folder or Hub id of a transformers HubertModel")
    add("--layer", type=int, default=9, help="hubert: hidden layer, 0 is the first one's input (default: %(default)s)")
    add(
        "--max-frames",
        type=int,
        default=400_000,
        help="frames to fit on; 400000 are 2.2 h of audio (default: %(default)s)",
    )
    add(
        "--vocal-noise", type=float, default=VOCAL_NOISE_SIGMA, help="sigma of the vocals' noise (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="of noise, choice of frames and k-means (default: %(default)s)")
    arguments = parser.parse_args()
    if not 1 <= arguments.clusters <= vocabulary:
        raise InputError(f"--clusters is {arguments.clusters}; expected 1 to {vocabulary}, the streams' vocabulary")
    if arguments.max_frames < 2:
        raise InputError(f"--max-frames is {arguments.max_frames}; expected 2 or more, half of them vocals'")
    if arguments.vocal_noise < 0:
        raise InputError(f"--vocal-noise is {arguments.vocal_noise}; expected 0 or more")
    if arguments.features == "hubert" and arguments.source is None:
        raise InputError("--features hubert without --source; expected a folder or a Hub id: add --source")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    import sklearn

    folders = song_folders(arguments.songs, "train")
    model = {"source": arguments.source, "layer": arguments.layer} if arguments.features == "hubert" else {}
    extractor = FeatureExtractor(arguments.features, **model)
    sampling = arguments.max_frames, arguments.vocal_noise
    frames, num_songs = sample_frames(extractor, folders, *sampling, arguments.seed, "train")
    both = np.concatenate(list(frames.values()))
    print(f"k-means: {len(both):,} frames of {both.shape[1]} dimensions, {arguments.clusters} clusters")
    centroids = fit(both, arguments.clusters, arguments.seed)

    validation = None
    if (arguments.songs / "validation").is_dir():
        held_out = song_folders(arguments.songs, "validation")
        validation = describe(sample_frames(extractor, held_out, *sampling, arguments.seed, "validation")[0], centroids)
    config = {
        "features": arguments.features,
        **model,
        "fit": {
            "songs": num_songs,
            "frames": len(both),
            "vocal_noise_sigma": arguments.vocal_noise,
            "seed": arguments.seed,
            "train": describe(frames, centroids),
            "validation": validation,
            "versions": {
                "hafm_jax": hafm_jax.__version__,
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
                "python": platform.python_version(),
            },
        },
    }
    save_semantic(arguments.out / "semantic", config, centroids)
    shown = validation or config["fit"]["train"]
    print(
        f"{arguments.out / 'semantic'}: of {arguments.clusters} clusters, {shown['clusters_in_use']} are in use on "
        f"{'validation' if validation else 'the training songs (there is no validation split)'} "
        f"({shown['vocals_clusters_in_use']} by vocals, {shown['instrumental_clusters_in_use']} by instrumentals)"
    )


if __name__ == "__main__":
    run_command(main)
