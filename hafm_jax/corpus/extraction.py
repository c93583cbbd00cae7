"""Songs -> a token data set, shard by shard.

Which song is in which shard follows from the songs' names alone, and a shard's bytes from its songs and the options: it
does not matter how many workers, on how many machines, share the shards, or how often they were stopped. A shard is
done when it and its done-file are there:

    TOKENS/.shards/run.json         what this extraction is: a run that would make something else is refused
    TOKENS/.shards/SPLIT-00003-of-00008        a shard, not yet under its final name
    TOKENS/.shards/SPLIT-00003-of-00008.json   its done-file: lengths, songs left out, licences, uses of each id
    TOKENS/.shards/publishing       all shards are done, and some may have their final names already

Axes: K codebooks, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hafm_jax
from hafm_jax.audio.files import song_folders
from hafm_jax.audio.voice import VOICE_LUFS
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import make_folder, reading, replacing, write_bytes
from hafm_jax.common.resume import RUN_FILE, check_same_run, claim
from hafm_jax.corpus.progress import rejected_by_reason
from hafm_jax.corpus.screening import Unusable
from hafm_jax.corpus.shard import SHARDS, ShardTask, make_records
from hafm_jax.dataset.card import summarize, write_card
from hafm_jax.dataset.layout import CARD, FIELDS, TOKENS_FILE, read_tokens_json, splits_in
from hafm_jax.dataset.tfrecord import framed_size
from hafm_jax.dataset.writer import Shard, ShardWriter, SplitSummary, publish_split, write_metadata
from hafm_jax.tokenizers.folder import check_planned, load_tokenizers

SONGS_PER_SHARD = 256  # ours: of 30 s they are 10 MB of tokens and minutes of work
LEAST_SHARDS = 8  # ours: of a split with so many songs
PUBLISHING = "publishing"
PLAN_WORDS = {"units_sha256": "songs, splits or shards with the sha256"}

Done = dict[str, Any]  # what a done-file holds: cells, num_bytes, rejects, licences, use

# ------------------------------------------------------------------------------------------------------------- the plan


def plan_tasks(
    songs: Path,
    tokenizers: Path,
    out: Path,
    splits: Sequence[str],
    *,
    noise_sigma: float,
    seed: int,
    max_s: float,
    dtype: str | None = None,
    augmented: bool = False,
    num_shards: int | None = None,
) -> list[ShardTask]:
    """The shards of the splits: `num_shards` of each, or one for SONGS_PER_SHARD songs and at least LEAST_SHARDS; no
    more than the split has songs. `augmented` is for the training split alone. What is in a split's folder counts as a
    song, and is left out with the reason if it is none.

    Raises InputError where the tokenizers cannot be loaded, or a split has no songs.
    """
    facts = load_tokenizers(tokenizers.absolute(), dtype).facts
    tasks = []
    for split in splits:
        parent = song_folders(songs, split)[0].parent
        names = sorted(path.name for path in parent.iterdir() if not path.name.startswith("."))
        count = min(len(names), num_shards or max(LEAST_SHARDS, -(-len(names) // SONGS_PER_SHARD)))
        tasks += [
            ShardTask(
                songs=songs.absolute(),
                tokenizers=tokenizers.absolute(),
                out=out.absolute(),
                split=split,
                number=number,
                num_shards=count,
                names=tuple(names[number::count]),
                noise_sigma=noise_sigma,
                seed=seed,
                max_s=max_s,
                dtype=dtype,
                facts=facts,
                augmented=augmented and split == "train",
            )
            for number in range(count)
        ]
    return tasks


def describe_plan(tasks: Sequence[ShardTask]) -> dict[str, Any]:
    """All that decides about the tokens, for tokens.json and to compare runs."""
    lines = ["\0".join([task.shard.name, *task.names]) for task in tasks]
    return {
        **tasks[0].facts,
        "vocal_lufs": VOICE_LUFS,
        "vocal_noise_sigma": tasks[0].noise_sigma,
        "vocals_augmented": any(task.augmented for task in tasks),
        "seed": tasks[0].seed,
        "max_s": tasks[0].max_s,
        "units_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),  # which songs are in which shard
    }


def is_complete(out: Path, plan: dict[str, Any]) -> bool:
    """Whether the data set is there, made by this plan. Raises InputError where `out` holds one that another plan made,
    or shards of which nothing says what made them: a token set is not replaced."""
    is_unfinished = (out / SHARDS / RUN_FILE).exists()
    if not (out / TOKENS_FILE).exists():
        if splits_in(out) and not is_unfinished:
            raise InputError(
                f"{out} holds shards of {', '.join(sorted(splits_in(out)))} without {TOKENS_FILE}; expected an empty "
                "folder or an extraction to resume: choose another --out, or delete this folder"
            )
        return False
    made_by = _flat(read_tokens_json(out).get("made_by", {}))
    differing = [
        f"{PLAN_WORDS.get(name, name)} {made_by.get(name)!r}, this run has {value!r}"
        for name, value in _flat(plan).items()
        if made_by.get(name) != value
    ]
    if differing:
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise InputError(
            f"{out} holds a finished token set of {differing[0]}{more}; expected none, or one of the same arguments: "
            "choose another --out, or delete this folder"
        )
    return True


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts by their paths, as in semantic.centroids_sha256."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def start(out: Path, plan: dict[str, Any]) -> None:
    """Make room in `out` for the shards of `plan`, or resume an extraction of the same plan. Raises InputError where
    `out` cannot be written, or an extraction of another plan was begun there.
    """
    make_folder(out / SHARDS, "--out")
    check_same_run(out / SHARDS, plan)


# ----------------------------------------------------------------------------------------------------------- the shards


def extract_shard(task: ShardTask) -> Done:
    """Write the shard and its done-file, unless they are there; returns what the done-file holds.

    A song that cannot be used is left out, and the done-file has the reason. Raises InputError where the tokenizers
    cannot be loaded, or are on this machine not those of the plan, and where the shard cannot be written.
    """
    done = read_done(task)
    if done is not None:
        return done
    semantic, codec, facts = load_tokenizers(task.tokenizers, task.dtype)
    check_planned(facts, task.facts)
    left_out: list[Unusable] = []
    licences: Counter[str] = Counter()
    use = {name: np.zeros((form.codebooks, form.vocabulary), np.int64) for name, form in FIELDS.items()}  # [K, V]
    with replacing(task.shard) as temporary, closing(ShardWriter(temporary)) as writer:
        for licence, record in make_records(task, semantic, codec, left_out):
            writer.write(record)
            licences[licence] += 1
            for name, counts in use.items():
                for codebook, ids in enumerate(record[name].reshape(len(record[name]), -1).T):
                    counts[codebook] += np.bincount(ids, minlength=counts.shape[1])
    done = {
        "cells": writer.shard.cells,
        "num_bytes": writer.shard.num_bytes,
        "rejects": [unusable.facts() for unusable in left_out],
        "licences": dict(licences),
        "use": {name: counts.tolist() for name, counts in use.items()},
    }
    write_bytes(task.done_file, json.dumps(done).encode())
    return done


def read_done(task: ShardTask) -> Done | None:
    """What the task's done-file holds; None where the shard is yet to be made, since one of the two is not whole."""
    if not task.done_file.exists():
        return None
    with reading(task.done_file, "facts of a shard: delete it, and the shard is made again"):
        done = json.loads(task.done_file.read_bytes())
        num_bytes = done["num_bytes"] + framed_size(0) * len(done["cells"])
    published = (task.out / SHARDS / PUBLISHING).exists()
    is_whole = published or (task.shard.exists() and task.shard.stat().st_size == num_bytes)
    return done if is_whole else None


# --------------------------------------------------------------------------------------------------------- the data set


class Completed(NamedTuple):
    """The splits that were written, the songs left out of each, and the splits without a usable song."""

    summaries: list[SplitSummary]
    rejected: dict[str, int]
    empty_splits: list[str]


def complete(songs: Path, tasks: Sequence[ShardTask]) -> Completed | None:
    """Now that all shards are done, give them their names, and describe the data set in tokens.json and a page; None
    where another process has done so. Raises InputError where it would hold nothing.
    """
    run = tasks[0].out / SHARDS / RUN_FILE
    if not run.exists():
        return None
    with claim(run, wait=True):
        is_ours = run.exists() and run.stat().st_size > 0  # else another process had it, and has removed it
        completed = _complete(songs, tasks) if is_ours else None
        shutil.rmtree(run.parent, ignore_errors=True)
    return completed


def _complete(songs: Path, tasks: Sequence[ShardTask]) -> Completed:
    done: dict[str, list[Done]] = {}
    for task in tasks:
        done.setdefault(task.split, []).append(read_done(task))
    left_out = [one for of_split in done.values() for of_shard in of_split for one in of_shard["rejects"]]
    filled = {split: of_split for split, of_split in done.items() if any(of_shard["cells"] for of_shard in of_split)}
    if not filled:
        raise InputError(
            f"{songs} has no song that can be used, {left_out[0]['id']} because: {left_out[0]['detail']}; expected "
            f"some: mend them, and remove {tasks[0].out / SHARDS}"
        )
    summaries = publish([task for task in tasks if task.split in filled])
    statistics = summarize(filled)
    made_by = {
        **describe_plan(tasks),
        "versions": {
            "hafm_jax": hafm_jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    # before extraction, and in it
    rejects = Counter(rejected_by_reason(songs)) + Counter(one["reason"] for one in left_out)
    facts = {
        "rejected_by_reason": dict(rejects.most_common()),
        "skipped": {f"{one['split']}/{one['id']}": f"{one['reason']}, {one['detail']}" for one in left_out},
        "statistics": statistics,
    }
    out = tasks[0].out
    write_card(out / CARD, f"Tokens of {songs.name}", statistics, filled, made_by, facts["rejected_by_reason"])
    write_metadata(out, summaries, {**made_by, **facts})
    rejected = {split: of_split["rejected"] for split, of_split in statistics.items()}
    return Completed(summaries, rejected, sorted(done.keys() - filled.keys()))


def publish(tasks: Sequence[ShardTask]) -> list[SplitSummary]:
    """The splits' shards under their final names. All of them must be done."""
    (tasks[0].out / SHARDS / PUBLISHING).touch()
    summaries = []
    for split in dict.fromkeys(task.split for task in tasks):
        done = [(task, read_done(task)) for task in tasks if task.split == split]
        shards = [Shard(task.shard, of_shard["cells"], of_shard["num_bytes"]) for task, of_shard in done]
        summaries.append(publish_split(tasks[0].out, split, shards))
    return summaries
