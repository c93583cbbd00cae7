"""Is the accompaniment good, and does it go with the vocal?

    python -m hafm_jax.evaluate --model MODEL --songs SONGS --out REPORT

reads    SONGS/SPLIT/ID/vocals and instrumental: songs that the model has not heard; songs of another split, half for
         the reference and half for retrieval;
         SONGS/SPLIT/ID/song.json where there is one, for the true beats, tempo, key and chords
writes   REPORT/index.html    tables with intervals, plots, spectrograms and players, in one file
         REPORT/report.json   the same figures, with the protocol's fingerprint, settings, versions, machine and seconds
         REPORT/table.csv, clips.csv   a row a system, a row a clip and system
         REPORT/protocol.json   clips, reference, library and seed: give it to others with --protocol
         REPORT/clips/SYSTEM/ID.flac   every band, and the vocals

The model stands among systems that say what the figures are worth: the true band, the true band through the codec,
retrieval from training songs that are not in the reference, any of their bands, another clip's vocal, clicks, silence.
Embeddings for the Frechet distance: mel needs no weights and compares with itself alone; vggish=FILE_OR_URL is the
paper's, clap=ID_OR_FOLDER and encodec=ID_OR_FOLDER come through transformers.

Stopped, the same command goes on where it was. A clip that fails is reported and left out.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hafm_jax.accompany import Accompanist
from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.resume import RUN_FILE, check_same_run
from hafm_jax.evaluation import measurement, report
from hafm_jax.evaluation.baselines import Library
from hafm_jax.evaluation.pipeline import Run, in_order
from hafm_jax.evaluation.protocol import Protocol, Rule, make_protocol, read_protocol, write_protocol
from hafm_jax.evaluation.systems import Bands, about
from hafm_jax.metrics.embeddings import load_embedding
from hafm_jax.model.pretrained import DEMO, find_model

FORMAT_VERSION = 2
PROTOCOL_FILE = "protocol.json"
PACKAGES = ("hafm_jax", "jax", "librosa", "mir_eval", "numpy", "scipy")  # whose versions the report names


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
    add(
        "--reference-split",
        default=rule.reference_split,
        help="songs for the reference and, others than those, for retrieval (default: %(default)s)",
    )
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
    add("--systems", nargs="+", metavar="NAME", help="only these, in the table's order (default: all)")
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


def this_machine() -> dict[str, Any]:
    """Processor, cores, and the commit of the code where it lies in its repository."""
    info, root = Path("/proc/cpuinfo"), Path(__file__).parents[1]
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    commit = None
    if (root / ".git").exists() and shutil.which("git"):
        describe = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None
    return {"cpu": (names or [platform.processor()])[0], "cores": os.cpu_count(), "commit": commit}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        evaluate(arguments)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("what is made is kept; the same command goes on") from interrupt


def evaluate(arguments: argparse.Namespace) -> None:
    began_s = time.monotonic()
    embeddings = {}
    for text in arguments.embedding:
        kind, _, source = text.partition("=")
        weights, _, sha256 = source.partition("#")
        embedding = load_embedding(kind, weights or None, sha256 or None)
        embeddings[embedding.label] = embedding
    use_compilation_cache()
    model = find_model(arguments.model or str(DEMO))
    accompanist = Accompanist.load(str(model))
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {arguments.out} ({error.strerror}); give another --out") from error
    protocol = choose_protocol(arguments)
    asked = {
        "format_version": FORMAT_VERSION,
        "model_sha256": model_sha256(model),
        **asdict(protocol.rule),
        "protocol": protocol.fingerprint(),
        # A band is kept under its clip's name, which songs of other folders have too.
        "songs": str(arguments.songs.resolve()),
        "separated": arguments.separated and str(arguments.separated.resolve()),
    }
    went_on = (arguments.out / RUN_FILE).exists()
    check_same_run(arguments.out, asked)
    write_protocol(arguments.out / PROTOCOL_FILE, protocol)
    print(f"protocol {protocol.fingerprint()}: {len(protocol.clips)} clips, {len(protocol.reference)} for reference")

    run = Run(arguments.out, arguments.songs, protocol, arguments.workers)
    protocols = {label: run.embed_reference(embedding) for label, embedding in embeddings.items()}
    library = Library.build(
        [arguments.songs / protocol.rule.reference_split / song for song in protocol.library],
        arguments.out / "library",
        arguments.workers,
    )
    if library.left_out:
        run.failures["library"] = library.left_out
    bands = Bands(
        arguments.out,
        arguments.songs,
        protocol,
        accompanist,
        library,
        arguments.separated,
        arguments.guidance_scales,
        arguments.systems,
    )
    run.make_bands(bands)
    measures = run.measure_clips(bands.systems)
    seed = protocol.rule.seed
    document: dict[str, Any] = {
        "options": {name: value for name, value in vars(arguments).items() if name != "workers"},
        "protocol": protocol.fingerprint(),
        "rule": asdict(protocol.rule),
        "clips": len(protocol.clips),
        "reference_clips": len(protocol.reference),
        "library_songs": len(library.entries),
        "model": str(arguments.model or "the demo model"),
        "model_sha256": asked["model_sha256"],
        "sampling": {name: how._asdict() for name, how in accompanist.sampling.items()},
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "machine": this_machine(),
        "systems": {
            name: {
                "about": about(name),
                "clips": sum(name in of_clip for of_clip in measures.values()),
                "measures": measurement.summarize_measures(measures, name, seed),
                "model_minus_it": measurement.compare_measures(measures, "model", name, seed),
            }
            for name in bands.systems
        },
        "order": in_order(
            bands.systems, lambda worse, better: measurement.compare_measures(measures, worse, better, seed)
        ),
        "embeddings": {
            label: run.measure_distances(protocols[label], bands.systems, embedding)
            for label, embedding in embeddings.items()
        },
        "failures": run.failures,
    }
    # Of a run that went on where another had stopped, these are of its own part. On a machine that others use too, the
    # processors' seconds, of all processes together, say more than the clock's.
    document |= {
        "seconds": round(time.monotonic() - began_s),
        "cpu_seconds": round(sum(os.times()[:4])),
        "went_on": went_on,
    }
    report.write(arguments.out, document, measures)
    print(f"{arguments.out / 'index.html'}")


if __name__ == "__main__":
    run_command(main)
