"""Is the accompaniment good, and does it go with the vocal?

    python -m hafm_jax.evaluate --model MODEL --songs SONGS --out REPORT

reads    SONGS/SPLIT/ID/vocals and instrumental: songs that the model has not heard, and songs for the reference;
         SONGS/SPLIT/ID/song.json where there is one, for the true beats, tempo, key and chords
writes   REPORT/index.html    tables with intervals, plots, spectrograms and players, in one file
         REPORT/report.json   the same figures, with the protocol, its fingerprint, versions and settings
         REPORT/table.csv, clips.csv   a row a system, a row a clip and system
         REPORT/protocol.json   clips, reference and seed: give it to others with --protocol
         REPORT/clips/SYSTEM/ID.flac   every band, and the vocals

The model stands among systems that say what the figures are worth: the true band, the true band through the codec,
retrieval from the training songs, any training band, another clip's vocal, clicks, silence. Embeddings for the Frechet
distance: mel needs no weights and compares with itself alone; vggish=FILE_OR_URL is the paper's, clap=ID_OR_FOLDER and
encodec=ID_OR_FOLDER come through transformers.

Stopped, the same command goes on where it was. A clip that fails is reported and left out.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hafm_jax import work
from hafm_jax.accompany import Accompanist
from hafm_jax.compiled import use_compilation_cache
from hafm_jax.errors import InputError, run_command
from hafm_jax.evaluation import figures, report
from hafm_jax.evaluation.baselines import Library
from hafm_jax.evaluation.clips import VOCAL, Clip, band_file, read_band, read_clip
from hafm_jax.evaluation.protocol import Protocol, Rule, make_protocol, read_protocol, write_protocol
from hafm_jax.evaluation.systems import Bands, about
from hafm_jax.ledger import check_same_run
from hafm_jax.metrics.adherence import mismatch
from hafm_jax.metrics.embeddings import Embedding, load_embedding
from hafm_jax.metrics.frechet import MIN_CLIPS
from hafm_jax.pretrained import DEMO, find_model

FORMAT_VERSION = 1
PROTOCOL_FILE = "protocol.json"
PACKAGES = ("hafm_jax", "jax", "librosa", "mir_eval", "numpy", "scipy")  # whose versions the report names
LIBRARY_SONGS = 500  # ours: of the training songs, those that retrieval may choose from


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hafm_jax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, rule = parser.add_argument, Rule()
    add("--model", help="model directory, or Hub id OWNER/NAME (default: the demo model in the package)")
    add("--songs", type=Path, required=True, help="songs folder with the split and the reference split")
    add("--out", type=Path, required=True, help="folder for the report; made if missing")
    add("--protocol", type=Path, help="clips and reference of another evaluation, instead of a choice by the next five")
    add("--split", default=rule.split, help="songs to evaluate on (default: %(default)s)")
    add("--reference-split", default=rule.reference_split, help="songs for the reference (default: %(default)s)")
    add("--clips", type=int, help="how many clips of 10 s, the first of the protocol (default: all)")
    add("--reference-clips", type=int, default=rule.num_reference_clips, help="default: %(default)s")
    add(
        "--vocal-gate-dbfs",
        type=float,
        default=rule.vocal_gate_dbfs,
        help="clips with fainter vocals are left out (default: %(default)s, the paper's)",
    )
    add("--seed", type=int, default=rule.seed, help="of the choice of clips, and of all that is drawn (default: 0)")
    add("--separated", type=Path, help="the same songs, their vocals found by a separator: one system more")
    add(
        "--guidance-scales", type=float, nargs="+", default=[], metavar="W", help="the model with these too, for a plot"
    )
    add(
        "--embedding",
        nargs="+",
        default=["mel"],
        metavar="KIND[=WEIGHTS[#SHA256]]",
        help="mel, vggish, clap, encodec; SHA256 is what the weights must have (default: mel)",
    )
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that measure clips (default: all cores)")
    arguments = parser.parse_args(argv)
    for name in ("clips", "reference_clips", "workers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected 1 or more")
    if math.isnan(arguments.vocal_gate_dbfs):
        raise InputError("--vocal-gate-dbfs is no number; expected one, or -inf for no gate")
    if any(not 0 <= w <= 100 for w in arguments.guidance_scales):
        raise InputError(f"--guidance-scales {arguments.guidance_scales}; expected numbers from 0 to 100")
    return arguments


def choose_protocol(arguments: argparse.Namespace) -> Protocol:
    """The one that is given, else that of the report where it was begun by the same rule, else a choice by the rule."""
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
    with tqdm(unit="song", desc="choose clips") as bar:
        return make_protocol(arguments.songs, rule, lambda song: bar.update())


def model_sha256(model: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(model.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_bands(bands: Bands, protocol: Protocol) -> dict[str, dict[str, str]]:
    """Every system's band for every clip; system -> clip -> reason of those that failed."""
    failures: dict[str, dict[str, str]] = {}
    systems = [VOCAL, *bands.systems]
    todo = [(system, clip) for system in systems for clip in protocol.clips]
    with tqdm(todo, unit="clip") as bar:
        for system, clip in bar:
            bar.set_description(system)
            try:
                bands.make(system, clip)
            except (InputError, ValueError) as error:
                failures.setdefault(system, {})[clip.id] = str(error)
                bar.write(f"left out {system}/{clip.id}: {error}")
    return failures


def measure_clips(arguments: argparse.Namespace, protocol: Protocol, systems: Sequence[str], failures: dict) -> dict:
    """clip -> system -> measure -> number."""
    function = partial(figures.measure_clip, arguments.out, arguments.songs, protocol.rule.split, systems)
    found = {}
    with tqdm(total=len(protocol.clips), unit="clip", desc="measure") as bar:
        with closing(work.do_all(function, protocol.clips, arguments.workers)) as results:
            for clip, (measures, failed) in results:
                found[clip] = measures
                for system, reason in failed.items():
                    failures.setdefault(system, {})[clip.id] = reason
                bar.update()
    return {clip: found[clip] for clip in protocol.clips}


def embed_sets(
    arguments: argparse.Namespace, protocol: Protocol, systems: Sequence[str], embedding: Embedding, folder: Path
) -> list[str]:
    """Write the embeddings of the reference, the mismatched reference and the systems. Returns the systems that have
    bands for enough songs to tell a distance."""
    songs, split = arguments.songs, protocol.rule.reference_split
    others = [protocol.reference[i] for i in mismatch([c.song for c in protocol.reference], protocol.rule.seed)]

    def of_reference(bands: Sequence[Clip]) -> Iterator[tuple[Clip, np.ndarray, np.ndarray]]:
        for clip, band in zip(protocol.reference, bands, strict=True):
            yield clip, read_clip(songs, split, clip, "vocals"), read_clip(songs, split, band, "instrumental")

    def clips_of(system: str) -> list[Clip]:
        return [c for c in protocol.clips if all(band_file(arguments.out, s, c.id).exists() for s in (VOCAL, system))]

    def of_system(system: str) -> Iterator[tuple[Clip, np.ndarray, np.ndarray]]:
        for clip in clips_of(system):
            yield clip, read_band(arguments.out, VOCAL, clip.id), read_band(arguments.out, system, clip.id)

    enough = [system for system in systems if len({clip.song for clip in clips_of(system)}) >= MIN_CLIPS]
    sets = {
        figures.REFERENCE: (protocol.reference, of_reference(protocol.reference)),
        figures.MISMATCHED: (protocol.reference, of_reference(others)),
    }
    sets |= {system: (clips_of(system), of_system(system)) for system in enough}
    for name, (clips, mixes) in tqdm(sets.items(), unit="set", desc=f"embed by {embedding.name}"):
        path = folder / f"{name}.npz"
        if not figures.holds(path, clips):
            figures.embed(path, embedding, mixes)
    return enough


def measure_distances(
    arguments: argparse.Namespace, protocol: Protocol, systems: Sequence[str], embedding: Embedding
) -> dict[str, Any]:
    """What report.json says of one embedding."""
    folder = arguments.out / "embeddings" / "-".join(filter(None, [embedding.name, (embedding.sha256 or "")[:12]]))
    enough = embed_sets(arguments, protocol, systems, embedding, folder)
    function = partial(figures.distances, folder, protocol.rule.seed)
    with closing(work.do_all(function, enough, arguments.workers)) as results:
        found = dict(tqdm(results, total=len(enough), unit="system", desc=f"distances in {embedding.name}"))
    return {
        "fingerprint": protocol.fingerprint(embedding.name, embedding.sha256),
        "weights_sha256": embedding.sha256,
        "systems": {system: found[system] for system in enough},
    }


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        evaluate(arguments)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("what is made is kept; the same command goes on") from interrupt


def evaluate(arguments: argparse.Namespace) -> None:
    embeddings = []
    for text in arguments.embedding:
        kind, _, source = text.partition("=")
        weights, _, sha256 = source.partition("#")
        embeddings.append(load_embedding(kind, weights or None, sha256 or None))
    use_compilation_cache()
    model = find_model(arguments.model or str(DEMO))
    accompanist = Accompanist.load(str(model))
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {arguments.out} ({error.strerror}); give another --out") from error
    protocol = choose_protocol(arguments)
    if (found := len({clip.song for clip in protocol.reference})) < MIN_CLIPS:
        raise InputError(
            f"the reference is of {found} songs; expected {MIN_CLIPS} at least, to tell a distance: give more songs of "
            f"{protocol.rule.reference_split}"
        )
    run = {
        "format_version": FORMAT_VERSION,
        "model_sha256": model_sha256(model),
        **asdict(protocol.rule),
        "protocol": protocol.fingerprint(),
    }
    check_same_run(arguments.out, run)
    write_protocol(arguments.out / PROTOCOL_FILE, protocol)
    print(f"protocol {protocol.fingerprint()}: {len(protocol.clips)} clips, {len(protocol.reference)} for reference")

    library = Library.build(
        arguments.songs,
        protocol.rule.reference_split,
        arguments.out / "library",
        LIBRARY_SONGS,
        protocol.rule.seed,
        arguments.workers,
    )
    bands = Bands(
        arguments.out, arguments.songs, protocol, accompanist, library, arguments.separated, arguments.guidance_scales
    )
    failures = make_bands(bands, protocol)
    measures = measure_clips(arguments, protocol, bands.systems, failures)
    document: dict[str, Any] = {
        "options": {name: value for name, value in vars(arguments).items() if name != "workers"},
        "protocol": protocol.fingerprint(),
        "rule": asdict(protocol.rule),
        "clips": len(protocol.clips),
        "reference_clips": len(protocol.reference),
        "model": str(arguments.model or "the demo model"),
        "model_sha256": run["model_sha256"],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "systems": {
            name: {
                "about": about(name),
                "clips": sum(name in of_clip for of_clip in measures.values()),
                "measures": figures.summarize_measures(measures, name, protocol.rule.seed),
                "model_minus_it": figures.compare_measures(measures, "model", name, protocol.rule.seed),
            }
            for name in bands.systems
        },
        "embeddings": {e.name: measure_distances(arguments, protocol, bands.systems, e) for e in embeddings},
        "failures": failures,
    }
    report.write(arguments.out, document, measures)
    print(f"{arguments.out / 'index.html'}")


if __name__ == "__main__":
    run_command(main)
