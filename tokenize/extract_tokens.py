"""Turn songs into token records: the data set that training reads.

    hafm tokenize extract-tokens --songs SONGS --tokenizers TOKENIZERS --out TOKENS

reads    SONGS/SPLIT/ID/vocals and instrumental, .wav or .flac, of any rate and number of channels
         TOKENIZERS/semantic (from fit-kmeans) and TOKENIZERS/codec (from train-codec, or with
         just a config.json: {"codec": "encodec", "source": "facebook/encodec_24khz"}); a model directory will do
writes   TOKENS/hafm_tokens-SPLIT.tfrecord-*, dataset_info.json and features.json, tokens.json, and card.html, a page
         with hours, songs left out, licences and how evenly the tokens are used

From each song come vocal_semantic, of the vocal with a little noise; instrumental_semantic, of the instrumental at
16 kHz; and acoustic, of the instrumental at 24 kHz. A song is left out if its files cannot be read, differ in length by
more than a cell (40 ms), or are shorter than a cell or longer than --max-seconds; tokens.json holds the reasons.

A worker's memory is bounded: it holds 12 minutes of songs and three songs more, at 0.22 MB a second: 0.2 GB of short
songs, 1 GB of the longest, and the two files that it is reading.

The work is cut into sets of songs, one shard each. Stopped or killed, the same command resumes with the shards that are
missing. Equal arguments give equal tokens, however many workers or machines of one kind share the shards: --workers on
this machine (one GPU each in turn, two threads of torch); --part 1/8 to 8/8 for eight machines that see the same
folders, of which the last completes the data set; or --ray for a Ray cluster. A worker with another dtype or other
weights is refused.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.options import check_at_least, local_path
from hafm_jax.common.outputs import check_apart, check_folder
from hafm_jax.common.shipped import local_or_shipped
from hafm_jax.common.work import RAY_GPUS
from hafm_jax.corpus.choices import Part
from hafm_jax.corpus.screening import Limits
from hafm_jax.streams import CELLS_PER_S
from hafm_jax.tokenizers.choices import DTYPES, VOCAL_NOISE_SIGMA

if TYPE_CHECKING:
    from hafm_jax.corpus.extraction import ShardTask


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm tokenize extract-tokens", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("--songs", type=local_path, required=True, help="songs folder: SPLIT/ID/vocals and instrumental, .wav or .flac")
    add("--tokenizers", type=local_or_shipped, required=True, help="folder with semantic/ and codec/")
    add("--out", type=local_path, required=True, help="folder for the token set; a finished one is not replaced")
    add("--splits", nargs="+", help="splits to extract (default: all that SONGS has)")
    add(
        "--num-shards",
        type=int,
        help="files a split, fewer where it has fewer songs (default: one for 256 songs, at least 8)",
    )
    add(
        "--vocal-noise", type=float, default=VOCAL_NOISE_SIGMA, help="sigma of the vocals' noise (default: %(default)s)"
    )
    add(
        "--augment-vocals",
        action="store_true",
        help="pass the training split's vocals through a random equaliser and room: one version of each",
    )
    add("--dtype", choices=DTYPES, help="HuBERT's (default: float16 on a GPU, else float32); the codec has float32")
    add("--seed", type=int, default=0, help="of noise and augmentation (default: %(default)s)")
    add("--max-seconds", type=float, default=Limits().max_s, help="longer songs are left out (default: %(default)s)")
    add("--workers", type=int, help="processes (default: one a GPU, or one for two cores where there is none)")
    add("--part", type=Part.parse, default=Part(), help="I/N: every N-th shard from the I-th (default: all)")
    add("--ray", action="store_true", help="extract on the Ray cluster of RAY_ADDRESS; all see the same folders")
    add("--ray-gpus", type=float, help=f"of a shard on Ray, 0.5 for two at once (default: {RAY_GPUS})")
    return p


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser().parse_args(argv)
    from hafm_jax.audio.files import song_splits

    check_at_least(arguments, num_shards=1, workers=1, vocal_noise=0, max_seconds=0, ray_gpus=0, seed=0)
    if arguments.splits is None:
        arguments.splits = song_splits(arguments.songs)
        for path in sorted(arguments.songs.iterdir()):
            if path.is_dir() and not path.name.startswith(".") and path.name not in arguments.splits:
                print(f"{path} holds no ID/vocals.wav or .flac, so it is not a split")
    for split in arguments.splits:
        if not re.fullmatch(r"\w+", split):  # it becomes part of file names that tensorflow-datasets reads
            raise InputError(
                f"split {split!r}; expected letters, digits and underscores: rename {arguments.songs / split}"
            )
    return arguments


def extract(arguments: argparse.Namespace, tasks: list[ShardTask]) -> None:
    """Make the shards of this part that are not done."""
    from tqdm import tqdm

    from hafm_jax.common import work
    from hafm_jax.corpus import extraction

    mine = arguments.part.share(tasks)
    missing = [task for task in mine if extraction.read_done(task) is None]
    gpus = work.gpus_here()
    workers = arguments.workers or gpus or max(1, (os.cpu_count() or 1) // 2)
    done = sum(len(task.names) for task in mine) - sum(len(task.names) for task in missing)
    with tqdm(total=sum(len(task.names) for task in mine), initial=done, desc="extract", unit="song") as bar:
        options = {"num_gpus": gpus, "on_ray": arguments.ray, "ray_gpus": arguments.ray_gpus}
        with closing(work.do_all(extraction.extract_shard, missing, workers, **options)) as results:
            for task, of_shard in results:
                bar.update(len(task.names))
                for one in of_shard["rejects"]:
                    bar.write(f"left out {one['split']}/{one['id']}: {one['reason']}, {one['detail']}")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    from hafm_jax.corpus import extraction

    for split in arguments.splits:
        check_apart([arguments.out], {"--songs": arguments.songs / split})
    for part in ("semantic", "codec"):
        check_apart([arguments.out / "tokens.json"], {"--tokenizers": arguments.tokenizers / part})
    check_folder(arguments.out)
    tasks = extraction.plan_tasks(
        arguments.songs,
        arguments.tokenizers,
        arguments.out,
        arguments.splits,
        noise_sigma=arguments.vocal_noise,
        seed=arguments.seed,
        max_s=arguments.max_seconds,
        dtype=arguments.dtype,
        augmented=arguments.augment_vocals,
        num_shards=arguments.num_shards,
    )
    plan = extraction.describe_plan(tasks)
    if extraction.is_complete(arguments.out, plan):
        print(f"{arguments.out} is complete, made by the same arguments: delete it to make it again")
        return
    extraction.start(arguments.out, plan)
    extract(arguments, tasks)
    missing = [task.shard.name for task in tasks if extraction.read_done(task) is None]
    if missing:
        print(
            f"this part is done; {len(missing)} shards are not, such as {missing[0]}: the last part completes the set"
        )
        return
    completed = extraction.complete(arguments.songs, tasks)
    if completed is None:
        return
    for summary in completed.summaries:
        print(
            f"{summary.split}: {summary.num_examples} songs, {summary.num_cells / CELLS_PER_S / 3600:.3f} h in "
            f"{len(summary.shard_lengths)} shards, {completed.rejected[summary.split]} left out"
        )
    for split in completed.empty_splits:
        print(f"{split}: no song that can be used, so no such split")


if __name__ == "__main__":
    run_command(main)
