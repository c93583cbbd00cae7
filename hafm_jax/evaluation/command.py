"""What `hafm evaluate` does, from its arguments to its report (hafm_jax/evaluate.py has its options)."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from hafm_jax.accompany import Accompanist
from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import make_folder, sha256_of
from hafm_jax.common.machine import this_machine
from hafm_jax.common.outputs import check_apart, check_folder, check_own
from hafm_jax.common.resume import RUN_FILE, check_same_run
from hafm_jax.evaluation import pipeline, report
from hafm_jax.evaluation.protocol import (
    Protocol,
    check_reference,
    check_songs,
    make_protocol,
    read_protocol,
    write_protocol,
)
from hafm_jax.evaluation.rule import Rule
from hafm_jax.metrics.embeddings import Embedding, load_embedding
from hafm_jax.model.pretrained import DEMO, find_model

FORMAT_VERSION = 2
PROTOCOL_FILE = "protocol.json"
BANDS_FOLDER = "clips"  # evaluation/clips.py
WRITTEN = ("index.html", "report.json", "table.csv", "clips.csv", BANDS_FOLDER, "measures")  # after RUN_FILE


def check_out(arguments: argparse.Namespace) -> None:
    """Raises InputError where the report cannot be written, or would be among the songs, or replace what is read or is
    not of a report."""
    splits = (arguments.split, arguments.reference_split)
    out, songs = arguments.out, [folder for folder in (arguments.songs, arguments.separated) if folder]
    check_apart([out / PROTOCOL_FILE], {"--protocol": arguments.protocol})
    for split in [folder / split for folder in songs for split in splits]:
        check_apart([out / name for name in WRITTEN], {"--songs": split})
    check_folder(out)
    if not (out / "measures").is_dir():  # a report whose run.json was removed, to use its bands with other options
        check_own(out, RUN_FILE, WRITTEN)


def choose_protocol(arguments: argparse.Namespace) -> Protocol:
    """The given protocol; else the report's, where its rule is the same; else a new choice by the rule."""
    begun = arguments.out / PROTOCOL_FILE
    if arguments.protocol:
        protocol = read_protocol(arguments.protocol)
        if arguments.clips:
            rule = replace(protocol.rule, num_clips=arguments.clips)
            protocol = replace(protocol, rule=rule, clips=protocol.clips[: arguments.clips])
        return protocol
    rule = Rule(
        arguments.split,
        arguments.clips,
        arguments.reference_split,
        arguments.reference_clips,
        arguments.vocal_gate_dbfs,
        arguments.seed,
    )
    if begun.exists() and (protocol := read_protocol(begun)).rule == rule:
        return protocol
    check_songs(arguments.songs, rule)
    with tqdm(unit="song", desc="choose clips") as bar:
        return make_protocol(arguments.songs, rule, lambda song: bar.update())


def load_embeddings(texts: Sequence[str]) -> list[Embedding]:
    """KIND[=WEIGHTS[#SHA256]] each. Raises InputError as `load_embedding`."""
    found = {}
    for text in texts:
        kind, _, source = text.partition("=")
        weights, sha256 = re.fullmatch(r"(.*?)(?:#([0-9a-fA-F]{64}))?", source, re.DOTALL).groups()
        embedding = load_embedding(kind, weights or None, sha256)
        found[embedding.label] = embedding
    return list(found.values())


def begin(arguments: argparse.Namespace, protocol: Protocol, sha256: str) -> bool:
    """Record the request in the report folder; returns whether the folder already had one, the same.

    Raises InputError where the folder was begun with another request.
    """
    resumed = (arguments.out / RUN_FILE).exists()
    request = {
        "format_version": FORMAT_VERSION,
        "model_sha256": sha256,
        **asdict(protocol.rule),
        "protocol": protocol.fingerprint(),
        # A band is stored under its clip's name, which a song of another folder may have too.
        "songs": str(arguments.songs.resolve()),
        "separated": arguments.separated and str(arguments.separated.resolve()),
    }
    check_same_run(arguments.out, request)
    write_protocol(arguments.out / PROTOCOL_FILE, protocol)
    return resumed


@contextmanager
def undone_if_refused(folder: Path) -> Iterator[None]:
    """Where bad input ends the block before a band was made, remove what the block added to the folder: the next try,
    with other songs or systems, is not refused for what this one began."""
    before = set(folder.iterdir())
    try:
        yield
    except InputError:
        if not (folder / BANDS_FOLDER).exists():
            for path in set(folder.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def evaluate(arguments: argparse.Namespace) -> None:
    began_s = time.monotonic()
    check_out(arguments)
    embeddings = load_embeddings(arguments.embedding)
    use_compilation_cache()
    model = find_model(arguments.model or str(DEMO))
    accompanist = Accompanist.load(str(model))
    protocol = choose_protocol(arguments)
    check_reference(protocol)
    make_folder(arguments.out, "--out")
    sha256 = sha256_of(sorted(model.rglob("*.safetensors")))
    with undone_if_refused(arguments.out):
        resumed = begin(arguments, protocol, sha256)
        sizes = f"{len(protocol.clips)} clips, {len(protocol.reference)} for reference"
        print(f"protocol {protocol.fingerprint()}: {sizes}")
        results, measures = pipeline.evaluate(
            arguments.out,
            arguments.songs,
            protocol,
            accompanist,
            embeddings,
            arguments.separated,
            arguments.guidance_scales,
            arguments.systems,
            arguments.workers,
        )
    document = {
        "options": {name: value for name, value in vars(arguments).items() if name != "workers"},
        "model": str(arguments.model or "the demo model"),
        "model_sha256": sha256,
        "machine": this_machine("librosa", "mir_eval", "scipy"),
        **results,
        # In a resumed run both times cover the last part alone. Where other programs share the machine, the processor
        # seconds of all processes together are more meaningful than the clock's.
        "seconds": round(time.monotonic() - began_s),
        "cpu_seconds": round(sum(os.times()[:4])),
        "resumed": resumed,
    }
    report.write(arguments.out, document, measures)
    print(arguments.out / "index.html")
