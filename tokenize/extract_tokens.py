"""Turn songs into token records: the data set that training reads.

    python tokenize/extract_tokens.py --songs SONGS --tokenizers TOKENIZERS --out TOKENS

reads    SONGS/SPLIT/ID/vocals and instrumental, .wav or .flac, of any rate and number of channels
         TOKENIZERS/semantic (from tokenize/fit_kmeans.py) and TOKENIZERS/codec (from tokenize/train_codec.py, or with
         just a config.json: {"codec": "encodec", "source": "facebook/encodec_24khz"}); a model directory will do
writes   TOKENS/hafm_tokens-SPLIT.tfrecord-*, dataset_info.json and features.json, tokens.json, and card.html, a page
         with hours, rejects, licences and how evenly the tokens are used

Of every song: the vocal with a little noise -> vocal_semantic; the instrumental -> instrumental_semantic at 16 kHz and
acoustic at 24 kHz. A song is left out whose files cannot be read, differ in length by more than a cell (40 ms), or are
shorter than one or longer than --max-seconds; tokens.json has the reason of each. So a worker's memory is bounded: it
holds 12 minutes of songs and three songs more, 0.22 MB a second: 0.2 GB of short ones, 1 GB of the longest, and the
two files that it reads.

The work is cut into units of songs, one shard each. Stopped or killed, the same command goes on with the units that are
missing. Equal arguments give equal tokens, however many workers or machines of one kind share the units: --workers on
this one (a GPU each in turn, two threads of torch), --part 1/8 to 8/8 for eight that see the same folders, whichever is
last completes the data set, or --ray for a Ray cluster. A worker with another dtype or other weights is refused.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import hafm_jax
from hafm_jax.audio.files import song_folders, song_splits
from hafm_jax.common import work
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.corpus import extraction
from hafm_jax.corpus.progress import Part, rejected_by_reason
from hafm_jax.corpus.screening import Limits
from hafm_jax.dataset import card, records
from hafm_jax.streams import CELLS_PER_S
from hafm_jax.tokenizers.folder import load_tokenizers
from hafm_jax.tokenizers.hub import DTYPES
from hafm_jax.tokenizers.semantic import VOCAL_NOISE_SIGMA

SONGS_PER_SHARD = 256  # ours: of 30 s they are 10 MB of tokens and minutes of work; smaller sets have 8 shards


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--songs", type=Path, required=True, help="songs folder: SPLIT/ID/vocals and instrumental, .wav or .flac")
    add("--tokenizers", type=Path, required=True, help="folder with semantic/ and codec/")
    add("--out", type=Path, required=True, help="folder for the token data set; splits of an earlier run are replaced")
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
        help="the training split's vocals through a random equaliser, room and gain: one version of each",
    )
    add("--dtype", choices=DTYPES, help="HuBERT's (default: float16 on a GPU, else float32); the codec has float32")
    add("--seed", type=int, default=0, help="of noise and augmentation (default: %(default)s)")
    add("--max-seconds", type=float, default=Limits().max_s, help="longer songs are left out (default: %(default)s)")
    add("--workers", type=int, help="processes (default: one a GPU, or one for two cores where there is none)")
    add("--part", type=Part.parse, default=Part(), help="I/N: every N-th unit from the I-th (default: all)")
    add("--ray", action="store_true", help="do the units on the Ray cluster of RAY_ADDRESS; all see the same folders")
    add("--ray-gpus", type=float, help=f"of a unit on Ray, 0.5 for two at once (default: {work.RAY_GPUS})")
    arguments = parser.parse_args()
    for name, least in (("num_shards", 1), ("workers", 1), ("vocal_noise", 0), ("max_seconds", 0), ("ray_gpus", 0)):
        value = getattr(arguments, name)
        if value is not None and not value >= least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected {least} or more")
    return arguments


def plan_units(arguments: argparse.Namespace, splits: list[str]) -> list[extraction.Unit]:
    facts = load_tokenizers(arguments.tokenizers.absolute(), arguments.dtype).facts
    units = []
    for split in splits:
        names = [folder.name for folder in song_folders(arguments.songs, split)]
        count = min(len(names), arguments.num_shards or max(8, -(-len(names) // SONGS_PER_SHARD)))
        units += [
            extraction.Unit(
                songs=arguments.songs.absolute(),
                tokenizers=arguments.tokenizers.absolute(),
                out=arguments.out.absolute(),
                split=split,
                number=k,
                num_units=count,
                names=tuple(names[k::count]),
                noise_sigma=arguments.vocal_noise,
                seed=arguments.seed,
                max_s=arguments.max_seconds,
                dtype=arguments.dtype,
                facts=facts,
                augmented=arguments.augment_vocals and split == "train",
            )
            for k in range(count)
        ]
    return units


def describe(arguments: argparse.Namespace, units: list[extraction.Unit]) -> dict[str, Any]:
    """What makes the tokens, for tokens.json: all that decides about them, and the versions."""
    return {
        **units[0].facts,
        "vocal_noise_sigma": arguments.vocal_noise,
        "vocals_augmented": arguments.augment_vocals,
        "seed": arguments.seed,
        "max_s": arguments.max_seconds,
        "units_sha256": extraction.units_sha256(units),
        "versions": {
            "hafm_jax": hafm_jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def is_complete(out: Path, plan: dict[str, Any]) -> bool:
    """Whether the data set is there, made by this plan."""
    if not (out / records.TOKENS_FILE).exists():
        return False
    made_by = records.read_tokens_json(out).get("made_by", {})
    return {name: made_by.get(name) for name in plan} == plan


def extract(arguments: argparse.Namespace, units: list[extraction.Unit]) -> None:
    """Do the units of this part that have yet to be done."""
    mine = arguments.part.share(units)
    missing = [unit for unit in mine if extraction.read_receipt(unit) is None]
    gpus = work.gpus_here()
    workers = arguments.workers or gpus or max(1, (os.cpu_count() or 1) // 2)
    done = sum(len(unit.names) for unit in mine) - sum(len(unit.names) for unit in missing)
    with tqdm(total=sum(len(unit.names) for unit in mine), initial=done, desc="extract", unit="song") as bar:
        options = {"num_gpus": gpus, "on_ray": arguments.ray, "ray_gpus": arguments.ray_gpus}
        with closing(work.do_all(extraction.extract_unit, missing, workers, **options)) as results:
            for unit, receipt in results:
                bar.update(len(unit.names))
                for reject in receipt["rejects"]:
                    bar.write(f"left out {reject['split']}/{reject['id']}: {reject['reason']}, {reject['detail']}")


def complete(arguments: argparse.Namespace, units: list[extraction.Unit], made_by: dict[str, Any]) -> None:
    """All units are done: give the shards their names, and say what the data set is. Raises InputError where it would
    hold nothing; a split without a usable song is left out."""
    receipts: dict[str, list[dict[str, Any]]] = {}
    for unit in units:
        receipts.setdefault(unit.split, []).append(extraction.read_receipt(unit))
    left_out = [reject for of_split in receipts.values() for receipt in of_split for reject in receipt["rejects"]]
    reasons = Counter(reject["reason"] for reject in left_out)
    receipts = {split: of_split for split, of_split in receipts.items() if any(r["cells"] for r in of_split)}
    if not receipts:
        raise InputError(
            f"{arguments.songs} has no song that can be used, {left_out[0]['id']} because: {left_out[0]['detail']}; "
            f"expected some: mend them, and remove {arguments.out / extraction.UNITS}"
        )
    summaries = extraction.publish([unit for unit in units if unit.split in receipts])
    statistics = card.summarize(receipts)
    rejects = dict(
        (Counter(rejected_by_reason(arguments.songs)) + reasons).most_common()
    )  # before extraction, and in it
    facts = {
        **made_by,
        "rejected_by_reason": rejects,
        "skipped": {f"{r['split']}/{r['id']}": f"{r['reason']}, {r['detail']}" for r in left_out},
        "statistics": statistics,
    }
    records.write_metadata(arguments.out, summaries, facts)
    card.write_card(
        arguments.out / card.CARD, f"Tokens of {arguments.songs.name}", statistics, receipts, made_by, rejects
    )
    for summary in summaries:
        hours = summary.num_cells / CELLS_PER_S / 3600
        print(
            f"{summary.split}: {summary.num_examples} songs, {hours:.3f} h in {len(summary.shard_lengths)} shards, "
            f"{statistics[summary.split]['rejected']} left out"
        )
    for split in sorted({unit.split for unit in units} - set(receipts)):
        print(f"{split}: no song that can be used, so no such split")


def main() -> None:
    arguments = parse_arguments()
    splits = arguments.splits or song_splits(arguments.songs)
    for split in splits:
        if not re.fullmatch(r"\w+", split):  # it becomes part of file names that tensorflow-datasets reads
            raise InputError(
                f"split {split!r}; expected letters, digits and underscores: rename {arguments.songs / split}"
            )
    records.check_target(arguments.out, splits)
    units = plan_units(arguments, splits)
    made_by = describe(arguments, units)
    plan = {name: value for name, value in made_by.items() if name != "versions"}
    if is_complete(arguments.out, plan):
        print(f"{arguments.out} is complete, made by the same arguments: delete it to make it anew")
        return
    extraction.start(arguments.out, plan)
    extract(arguments, units)
    missing = [unit.receipt.stem for unit in units if extraction.read_receipt(unit) is None]
    if missing:
        print(f"this part is done; {len(missing)} units are not, such as {missing[0]}: the last part completes the set")
        return
    with extraction.completing(arguments.out) as is_mine:
        if is_mine:
            complete(arguments, units, made_by)


if __name__ == "__main__":
    run_command(main)
