"""Fit the semantic tokenizer: k-means on features of vocals and instrumentals, half of the frames from each.

    hafm tokenize fit-kmeans --songs SONGS --features chroma --out TOKENIZERS
    hafm tokenize fit-kmeans --songs SONGS --features hubert --source facebook/hubert-base-ls960 --out TOKENIZERS
    hafm tokenize fit-kmeans --centroids km_500.npy --features hubert --source DIR_OR_HUB_ID --out TOKENIZERS

reads    SONGS/train/ID/vocals and instrumental, .wav or .flac; SONGS/validation, where it exists, for the report
writes   TOKENIZERS/semantic/config.json, with a report on the clusters, and centroids.safetensors

`chroma` needs no weights. `hubert` is the paper's, and needs the extra: pip install "hafm_jax[torch]".
The vocals get the same noise as in extraction. Equal arguments on one machine give equal centroids. A tokenizer that is
there is not replaced.

With --centroids nothing is fitted: they are read from an npy or safetensors file, and with --songs the report measures
how well they fit. A scikit-learn KMeans that joblib or pickle wrote becomes npy in the environment that made it:

    python -c "import joblib, numpy; numpy.save('km_500.npy', joblib.load('km_500.bin').cluster_centers_)"

Memory does not grow with --hours: the frames are in TOKENIZERS while they are needed, an hour of 1024 features in
0.74 GB.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hafm_jax
from hafm_jax.common.errors import InputError, needs_extra, run_command
from hafm_jax.common.files import make_folder, reading, sha256_of
from hafm_jax.common.options import check_at_least, local_path
from hafm_jax.streams import STREAMS
from hafm_jax.tokenizers.choices import DTYPES, VOCAL_NOISE_SIGMA

if TYPE_CHECKING:
    import numpy as np


def print_report(reports: dict[str, dict[str, dict[str, float | int]]]) -> None:
    print(f"{'':24}{'frames':>12}{'inertia':>12}{'in use':>8}{'entropy':>9}{'perplexity':>12}")
    for split, stems in reports.items():
        for stem, row in stems.items():
            print(
                f"{f'{split} {stem}':24}{row['frames']:>12,}{row['inertia_per_frame']:>12.4g}"
                f"{row['clusters_in_use']:>8}{row['entropy_bits']:>9.2f}{row['perplexity']:>12.1f}"
            )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm tokenize fit-kmeans", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    vocabulary = STREAMS["vocal_semantic"].vocabulary
    add("--songs", type=local_path, help="songs folder with a split train; needed unless there are --centroids")
    add("--features", choices=("chroma", "hubert"), required=True, help="features of a frame")
    made_by = p.add_mutually_exclusive_group()
    made_by.add_argument(
        "--clusters", type=int, default=vocabulary, help=f"ids of a token, at most {vocabulary} (default: %(default)s)"
    )
    made_by.add_argument("--centroids", type=local_path, help="centroids instead of fitting, npy or safetensors")
    add("--out", type=local_path, required=True, help="tokenizers folder; semantic/ is written in it")
    add("--source", help="hubert: folder or Hub id of a transformers HubertModel")
    add("--layer", type=int, default=9, help="hubert: hidden layer, 0 is the first one's input (default: %(default)s)")
    add("--dtype", choices=DTYPES, help="hubert: to compute in (default: float16 on a GPU, else float32)")
    add("--hours", type=float, default=2.0, help="frames to fit on, as hours of audio (default: %(default)s)")
    add(
        "--vocal-noise", type=float, default=VOCAL_NOISE_SIGMA, help="sigma of the vocals' noise (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="of noise, choice of frames and k-means (default: %(default)s)")
    return p


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments, vocabulary = parser().parse_args(argv), STREAMS["vocal_semantic"].vocabulary
    from hafm_jax.tokenizers.clusters import FRAMES_PER_HOUR, STEMS

    if arguments.songs is None and arguments.centroids is None:
        raise InputError("neither --songs nor --centroids; expected songs to fit to, or centroids: give one of them")
    if not 1 <= arguments.clusters <= vocabulary:
        raise InputError(f"--clusters is {arguments.clusters}; expected 1 to {vocabulary}, the streams' vocabulary")
    if not arguments.hours * FRAMES_PER_HOUR >= len(STEMS):
        raise InputError(f"--hours is {arguments.hours}; expected a frame (20 ms) of each stem, or more")
    check_at_least(arguments, hours=0, vocal_noise=0, layer=0, seed=0)
    if arguments.features == "hubert" and arguments.source is None:
        raise InputError("--features hubert without --source; expected a folder or a Hub id: add --source")
    return arguments


def songs_of(arguments: argparse.Namespace) -> dict[str, list[Path]]:
    """Split -> folders of its songs."""
    from hafm_jax.audio.files import song_folders

    if arguments.songs is None:
        return {}
    splits = ("train", "validation") if (arguments.songs / "validation").is_dir() else ("train",)
    return {split: song_folders(arguments.songs, split) for split in splits}


def made_with(arguments: argparse.Namespace, folders: dict[str, list[Path]]) -> dict[str, Any]:
    """All that decides about the tokenizer, beside the songs' sound."""
    from hafm_jax.tokenizers.folder import names_sha256

    names = ["features", "clusters", "hours", "vocal_noise", "seed", "dtype"]
    if arguments.features == "hubert":
        names += ["source", "layer"]
    if arguments.centroids is not None:
        names = [name for name in names if name != "clusters"]
    return {
        **{name: getattr(arguments, name) for name in names},
        "centroids_file_sha256": arguments.centroids and read_sha256(arguments.centroids),
        "songs_sha256": names_sha256(folder for of_split in folders.values() for folder in of_split),
    }


def read_sha256(path: Path) -> str:
    with reading(path, "centroids, as npy or safetensors: check --centroids"):
        return sha256_of([path])


def make_tokenizer(
    arguments: argparse.Namespace, folders: dict[str, list[Path]], scratch: Path
) -> tuple[dict[str, Any], np.ndarray]:
    """(config, centroids [K, D]) of the tokenizer; the sampled frames are in the folder `scratch` meanwhile."""
    import numpy as np

    with needs_extra("tokenize", "fitting a tokenizer"):
        import sklearn
    from hafm_jax.corpus.screening import HOPELESS_SONGS, Limits
    from hafm_jax.tokenizers.clusters import Sampling, describe, fit, sample_frames
    from hafm_jax.tokenizers.semantic import FeatureExtractor, read_centroids

    model = {"source": arguments.source, "layer": arguments.layer} if arguments.features == "hubert" else {}
    extractor = FeatureExtractor(arguments.features, dtype=arguments.dtype, **model)
    computed = {"dtype": extractor.dtype, "weights_sha256": extractor.weights_sha256}
    if arguments.centroids is not None:
        centroids = read_centroids(arguments.centroids)
        extractor.check_centroids(centroids)
        made_by: dict[str, Any] = {"file": arguments.centroids.name, "file_sha256": read_sha256(arguments.centroids)}
    sampling = Sampling(arguments.hours, arguments.vocal_noise, arguments.seed, Limits().max_s, HOPELESS_SONGS)
    samples = {split: sample_frames(extractor, songs, sampling, scratch) for split, songs in folders.items()}
    if arguments.centroids is None:
        frames = samples["train"].frames
        print(f"k-means: {len(frames):,} frames of {frames.shape[1]} dimensions, {arguments.clusters} clusters")
        centroids = fit(frames, arguments.clusters, arguments.seed)
        made_by = {"songs": samples["train"].num_songs, "frames": len(frames)}
    reports = {split: describe(sample, centroids) for split, sample in samples.items()}
    print_report(reports)
    versions = {
        "hafm_jax": hafm_jax.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }
    facts = {
        **made_by,
        **{name: value for name, value in computed.items() if value is not None},
        "vocal_noise_sigma": arguments.vocal_noise,
        "seed": arguments.seed,
        **reports,
        "versions": versions,
    }
    return {"features": arguments.features, **model, "fit": facts}, centroids


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    from hafm_jax.tokenizers.folder import MADE_WITH, check_out, is_made
    from hafm_jax.tokenizers.semantic import save_semantic

    check_out(arguments.out, "semantic", arguments.songs, {"--centroids": arguments.centroids})
    folders, directory = songs_of(arguments), arguments.out / "semantic"
    run = made_with(arguments, folders)
    if is_made(directory, run):
        print(f"{directory} is there, made by the same arguments: delete it to make it again")
        return
    make_folder(arguments.out, "--out")
    with tempfile.TemporaryDirectory(prefix=".fit_kmeans-", dir=arguments.out) as scratch:
        config, centroids = make_tokenizer(arguments, folders, Path(scratch))
    save_semantic(directory, {**config, MADE_WITH: run}, centroids)
    print(f"{directory}: {len(centroids)} clusters of {centroids.shape[1]} dimensions")


if __name__ == "__main__":
    run_command(main)
