"""Is the accompaniment good, and does it go with the vocal?

    python -m hafm_jax.evaluate --model MODEL --songs SONGS --out REPORT

reads    SONGS/SPLIT/ID/vocals and instrumental: songs that the model was not trained on; songs of another split, half
         for the reference and half for retrieval;
         SONGS/SPLIT/ID/song.json, if it exists, for the true beats, tempo, key and chords
writes   REPORT/index.html    tables with intervals, plots, spectrograms and players, in one file
         REPORT/report.json   the same figures, with the protocol's fingerprint, settings, versions, machine and seconds
         REPORT/table.csv, clips.csv   a row per system, a row per clip and system
         REPORT/protocol.json   clips, reference, library and seed: others can use it with --protocol
         REPORT/clips/SYSTEM/ID.flac   every band, and the vocals

The report compares the model with systems that calibrate the figures: the true band, the true band through the codec,
retrieval from training songs that are not in the reference, a random band of theirs, the model's band for another
clip's vocal, clicks, silence. Embeddings for the Frechet distance: mel needs no weights, and its distances can be
compared with its own only; vggish=FILE_OR_URL is the paper's; clap=ID_OR_FOLDER and encodec=ID_OR_FOLDER use
transformers.

The reference split needs 16 songs with a clip of 10 s or more: 8 for the reference, as many for retrieval. A system
needs clips of 8 songs for its distances and intervals.

If the command is stopped, the same command resumes it. A clip that fails is reported and left out.
"""

from __future__ import annotations

import argparse
import math
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
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.files import make_folder, sha256_of
from hafm_jax.common.machine import this_machine
from hafm_jax.common.options import check_at_least, local_path
from hafm_jax.common.outputs import check_apart, check_folder, check_own
from hafm_jax.common.resume import RUN_FILE, check_same_run
from hafm_jax.evaluation import pipeline, report
from hafm_jax.evaluation.protocol import (
    Protocol,
    Rule,
    check_reference,
    check_songs,
    make_protocol,
    read_protocol,
    write_protocol,
)
from hafm_jax.metrics.embeddings import Embedding, load_embedding
from hafm_jax.model.pretrained import DEMO, find_model

FORMAT_VERSION = 2
PROTOCOL_FILE = "protocol.json"
BANDS_FOLDER = "clips"  # evaluation/clips.py
WRITTEN = ("index.html", "report.json", "table.csv", "clips.csv", "clips", "measures")  # after RUN_FILE


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hafm_jax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, rule = parser.add_argument, Rule()
    add("--model", help="model directory, or Hub id OWNER/NAME (default: the demo model in the package)")
    add("--songs", type=local_path, required=True, help="songs folder with the split and the reference split")
    add("--out", type=local_path, required=True, help="folder for the report; made if missing")
    add("--protocol", type=local_path, help="use the clips and reference of another evaluation, not a new choice")
    add("--split", default=rule.split, help="songs to evaluate on (default: %(default)s)")
    add(
        "--reference-split",
        default=rule.reference_split,
        help="songs for the reference, and other songs for retrieval (default: %(default)s)",
    )
    add("--clips", type=int, help="number of clips of 10 s, the first of the protocol (default: all)")
    add("--reference-clips", type=int, default=rule.num_reference_clips, help="default: %(default)s")
    add(
        "--vocal-gate-dbfs",
        type=float,
        default=rule.vocal_gate_dbfs,
        help="leave out clips with softer vocals (default: %(default)s, the paper's)",
    )
    add("--seed", type=int, default=rule.seed, help="of the choice of clips and of all random draws (default: 0)")
    add("--separated", type=local_path, help="the same songs with vocals from a separator: adds a system")
    add(
        "--guidance-scales",
        type=float,
        nargs="+",
        default=[],
        metavar="W",
        help="also run the model at these, for a plot",
    )
    add("--systems", nargs="+", metavar="NAME", help="only these systems (default: all)")
    add(
        "--embedding",
        nargs="+",
        default=["mel"],
        metavar="KIND[=WEIGHTS[#SHA256]]",
        help="mel, vggish, clap, encodec; SHA256 is the expected hash of the weights (default: mel)",
    )
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that measure clips (default: all cores)")
    arguments = parser.parse_args(argv)
    check_at_least(arguments, clips=1, reference_clips=1, workers=1)
    if math.isnan(arguments.vocal_gate_dbfs):
        raise InputError("--vocal-gate-dbfs is not a number; expected one, or -inf for no gate")
    if any(not 0 <= w <= 100 for w in arguments.guidance_scales):
        raise InputError(f"--guidance-scales {arguments.guidance_scales}; expected numbers from 0 to 100")
    return arguments


def check_out(arguments: argparse.Namespace) -> None:
    """Raises InputError where the report cannot be written, or would be among the songs, or replace what is read or is
    not of a report."""
    splits = (arguments.split, arguments.reference_split)
    out, songs = arguments.out, [folder for folder in (arguments.songs, arguments.separated) if folder]
    check_apart([out / PROTOCOL_FILE], {"--protocol": arguments.protocol})
    for split in [folder / split for folder in songs for split in splits]:
        check_apart([out / name for name in WRITTEN], {"--songs": split})
    check_folder(out)
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


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        evaluate(arguments)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("finished parts are kept; the same command resumes") from interrupt


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


if __name__ == "__main__":
    run_command(main)
