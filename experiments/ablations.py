"""What does each part bring? The demo's stages, trained alike but for one thing, over seeds.

    python -m experiments.ablations --data TOKENS --tokenizers TOKENIZERS --fine runs/fine --songs SONGS --workdir WORK

For each variant below and each seed a semantic and a coarse stage are trained by configs/demo.py, of the size and
length in RECIPE, with the same songs, steps and batches, and with history corruption from the start. With the one fine
stage of --fine they are exported and evaluated on the test songs. The JSON has, of every measure, the mean over clips
and seeds with its 95 % interval, the mean of each seed, and the difference from the demo's own way, clip by clip.
Trainings run side by side, one a core. After an interruption the same command resumes. Two machines can split the work:
`--only train` on one with a GPU (XLA_PYTHON_CLIENT_PREALLOCATE=false lets the trainings share it), `--only evaluate` on
another.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown, show_interval
from hafm_jax import evaluate
from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import write_audio
from hafm_jax.common.errors import run_command
from hafm_jax.dataset.layout import read_tokens_json
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.dataset.writer import write_metadata, write_split
from hafm_jax.evaluation.clips import CLIP_SAMPLES, Clip, band_file, read_clip
from hafm_jax.evaluation.measures import Measures, compare_measures, summarize_measures
from hafm_jax.evaluation.protocol import read_protocol
from hafm_jax.model.config import find_size
from hafm_jax.scaling import rules
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import num_cells
from hafm_jax.tokenizers.semantic import vocal_tokens
from hafm_jax.training import workdir

SIZE = "96x3x3"
RECIPE = {
    "size": SIZE,
    "batch_size": 16,
    "steps": 1_000,
    "warmup_steps": 100,
    "learning_rate": rules.learning_rate(find_size(SIZE).d_model),
    "checkpoint_every": 250,
}
HISTORY_CORRUPTION = {"semantic": 0.95, "coarse": 0.3}  # as in the demo's last runs
OURS, TWO_STAGES = "clock", "two_stages"
STAGES = ("semantic", "coarse")
MEASURES = ("beat_f", "onset_f", "lag_ms", "lag_strength", "chroma_chords", "chroma_melody", "key_score", "coverage")
DISTANCES = ("fad_stem", "fad_mix")


class Variant(NamedTuple):
    """The stages that are trained for it; its other stages are those of OURS with the same seed."""

    stages: tuple[str, ...] = STAGES
    options: Mapping[str, Any] = MappingProxyType({})  # of configs/demo.py


VARIANTS = {
    OURS: Variant(),
    "index": Variant(options={"position": "index"}),  # [paper]
    TWO_STAGES: Variant(("coarse",)),  # the coarse stage straight from the vocal
}


def without_the_bands_semantics(data: Path, out: Path) -> Path:
    """The token set `data` with the vocal's semantic tokens in place of the band's."""
    if not (out / "tokens.json").exists():
        summaries = []
        for split in ("train", "validation"):
            source = TokenRecords(data, split)
            records = (source[i] for i in range(len(source)))
            changed = (record | {"instrumental_semantic": record["vocal_semantic"]} for record in records)
            summaries.append(write_split(out, split, changed))
        write_metadata(out, summaries, read_tokens_json(data)["made_by"])
    return out


def write_bands_of_two_stages(model: Path, arguments: argparse.Namespace, report: Path) -> None:
    """The bands of a model without a semantic stage: the vocal's tokens are given as the band's semantic ones.

    The evaluation finds them where it keeps a model's bands, and does not make them again.
    """
    accompanist, protocol = Accompanist.load(str(model)), read_protocol(arguments.protocol)
    rule = replace(protocol.rule, num_clips=arguments.clips)
    protocol = replace(protocol, rule=rule, clips=protocol.clips[: arguments.clips])
    for clip in tqdm(protocol.clips, desc=TWO_STAGES, unit="clip"):
        path, seed = band_file(report, "model", clip.id), protocol.seed_of(clip)
        if path.exists():
            continue
        vocal = read_clip(arguments.songs, protocol.rule.split, clip, "vocals")
        given = {"instrumental_semantic": vocal_tokens(accompanist.tokenizer, vocal, RATE_HZ, seed=seed)[None, :, None]}
        tokens = accompanist.tokens(vocal[None], RATE_HZ, num_cells(CLIP_SAMPLES, RATE_HZ), seed=seed, given=given)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, accompanist.codec.decode(tokens)[0], RATE_HZ)


def run(command: Sequence[str | Path], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        subprocess.run([sys.executable, *map(str, command)], check=True, stdout=file, stderr=file)


def train_all(arguments: argparse.Namespace, keys: Sequence[tuple[str, int]]) -> None:
    tokens = dict.fromkeys(VARIANTS, arguments.data)
    tokens[TWO_STAGES] = without_the_bands_semantics(arguments.data, arguments.workdir / "tokens")
    cores = sorted(os.sched_getaffinity(0))

    def train(job: tuple[str, int, str]) -> None:
        name, seed, stage = job
        folder = arguments.workdir / f"{name}-{seed}"
        command = ["-m", "hafm_jax.train", "--config", f"configs/demo.py:{stage}", "--data", tokens[name]]
        options = RECIPE | {"tokenizers": arguments.tokenizers, "seed": seed, **VARIANTS[name].options}
        options["history_corruption"] = HISTORY_CORRUPTION[stage]
        command += ["--workdir", folder / stage, *(f"--config.{k}={v}" for k, v in options.items())]
        run(command, folder / f"{stage}.log")

    jobs = [(name, seed, stage) for name, seed in keys for stage in VARIANTS[name].stages]
    # A process inherits the core of the thread that starts it.
    with ThreadPoolExecutor(len(cores), initializer=lambda: os.sched_setaffinity(0, {cores.pop()})) as pool:
        list(tqdm(pool.map(train, jobs), total=len(jobs), desc="train", unit="stage"))


def report_of(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    """The folder with the evaluation of a variant's model."""
    folder = arguments.workdir / f"{name}-{seed}"
    model, report = folder / "model", folder / "report"
    if (report / "report.json").exists():
        return report
    if not model.exists():
        trained = [
            arguments.workdir / f"{name if stage in VARIANTS[name].stages else OURS}-{seed}" / stage for stage in STAGES
        ]
        made = ["--workdir", *trained, arguments.fine, "--tokenizers", arguments.tokenizers, "--out", model]
        run(["-m", "hafm_jax.export", *made], folder / "export.log")
    asked = ["--model", model, "--songs", arguments.songs, "--out", report, "--systems", "model"]
    asked += ["--protocol", arguments.protocol, "--clips", arguments.clips]
    if name == TWO_STAGES:
        write_bands_of_two_stages(model, arguments, report)
    evaluate.main(list(map(str, asked)))
    return report


def read_clips(report: Path) -> dict[Clip, dict[str, float]]:
    """Clip -> measure -> value; of lag_ms the absolute value."""
    with (report / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "model"]
    values = {Clip.of_id(row["clip"]): {name: float(row[name] or "nan") for name in MEASURES} for row in rows}
    return {clip: found | {"lag_ms": abs(found["lag_ms"])} for clip, found in values.items()}


def over_seeds(of_seeds: Sequence[dict[Clip, dict[str, float]]]) -> dict[Clip, dict[str, float]]:
    """Clip -> measure -> mean over the seeds in which it is defined; NaN where it is defined in none."""

    def mean(values: Sequence[float]) -> float:
        finite = [x for x in values if math.isfinite(x)]
        return statistics.fmean(finite) if finite else math.nan

    return {clip: {name: mean([found[clip][name] for found in of_seeds]) for name in MEASURES} for clip in of_seeds[0]}


def summarize(folder: Path, name: str, reports: Sequence[Path], measures: Mapping[Clip, Measures]) -> dict[str, Any]:
    """The measures of a variant, their differences from those of OURS, its distances and losses.

    reports: one a seed; measures: clip -> variant -> measure, means over the seeds.
    """
    trained = [{s: folder / f"{name}-{seed}" / s for s in VARIANTS[name].stages} for seed in range(len(reports))]
    losses = [
        {s: workdir.last_metrics(run, RECIPE["steps"])["validation_loss"] for s, run in t.items()} for t in trained
    ]
    devices = {device for t in trained for run in t.values() for device in workdir.read_description(run)["devices"]}
    documents = [json.loads((report / "report.json").read_text()) for report in reports]
    of_seeds = [document["systems"]["model"]["measures"] for document in documents]
    means = summarize_measures(measures, name, seed=0)
    distances = [document["embeddings"]["mel"]["systems"]["model"] for document in documents]
    return {
        "trained_on": sorted(devices),
        "validation_losses": losses,
        "measures": {m: means[m] | {"seeds": [found[m]["value"] for found in of_seeds]} for m in MEASURES},
        "minus_ours": compare_measures(measures, name, OURS, seed=0),
        "distances": {d: [found[d]["value"] for found in distances] for d in DISTANCES},
    }


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="token set of the demo's tokenizers")
    add("--tokenizers", type=Path, required=True)
    add("--fine", type=Path, required=True, help="work directory of a trained fine stage, the same for all")
    add("--songs", type=Path, required=True, help="songs to evaluate on, as for hafm_jax.evaluate")
    add("--workdir", type=Path, required=True)
    add("--seeds", type=int, default=3, help="default: 3")
    add("--only", choices=("train", "evaluate"), help="one half of the work (default: both)")
    add("--protocol", type=Path, default=Path("configs/protocols/synthetic.json"))
    add("--clips", type=int, default=64, help="default: 64")
    arguments = parser.parse_args()
    write = begin_result(arguments.out)
    keys = [(name, seed) for seed in range(arguments.seeds) for name in VARIANTS]
    if arguments.only != "evaluate":
        train_all(arguments, keys)
    if arguments.only == "train":
        return
    reports: dict[str, list[Path]] = {name: [] for name in VARIANTS}
    for name, seed in keys:
        reports[name].append(report_of(arguments, name, seed))
    of_variants = {name: over_seeds(list(map(read_clips, found))) for name, found in reports.items()}
    measures = {clip: {name: found[clip] for name, found in of_variants.items()} for clip in of_variants[OURS]}
    results = {name: summarize(arguments.workdir, name, found, measures) for name, found in reports.items()}
    write({"recipe": RECIPE, "clips": arguments.clips, "seeds": arguments.seeds, "variants": results})
    rows = [["", *MEASURES, *DISTANCES]]
    for name, result in results.items():
        cells = map(show_interval, result["measures"].values())
        rows.append([name, *cells, *(f"{statistics.fmean(x):.1f}" for x in result["distances"].values())])
    print(markdown(rows))


if __name__ == "__main__":
    run_command(main)
