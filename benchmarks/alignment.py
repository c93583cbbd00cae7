"""What keeps 50 Hz and 75 Hz together: bands made with `clock` and with `index` positions, trained alike, over seeds.

    python benchmarks/alignment.py --data TOKENS --tokenizers TOKENIZERS --fine runs/fine --songs SONGS --workdir WORK

For each mode and seed a semantic and a coarse stage are trained by configs/demo.py, with the same data, steps and
batches; with the one fine stage of --fine they are exported and evaluated on the test songs. Of every measure the table
has the mean over clips and seeds, with the 95 % interval of songs drawn anew, and the difference of the two modes, clip
by clip; the JSON has the means of the seeds too. Trainings run side by side, one a core; stopped, the same command goes
on.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import queue
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machine import machine
from report import markdown
from tqdm import tqdm

from hafm_jax.errors import run_command
from hafm_jax.evaluation.figures import mean_interval

MODES = ("clock", "index")
STAGES = ("semantic", "coarse")
MEASURES = ("beat_f", "onset_f", "lag_ms", "lag_strength", "chroma_chords", "chroma_melody", "key_score")


def run(command: list[str | Path], log: Path, core: int | None = None) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    affinity = None if core is None else lambda: os.sched_setaffinity(0, {core})
    with log.open("a") as file:
        subprocess.run([sys.executable, *map(str, command)], check=True, stdout=file, stderr=file, preexec_fn=affinity)


def train_all(arguments: argparse.Namespace, folders: dict[tuple[str, int], Path]) -> None:
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def train(job: tuple[tuple[str, int], str]) -> None:
        (mode, seed), stage = job
        core = cores.get()
        try:
            workdir = folders[mode, seed] / stage
            command = ["-m", "hafm_jax.train", "--config", f"configs/demo.py:{stage}", "--data", arguments.data]
            options = {"position": mode, "seed": seed, "steps": arguments.steps}
            options = [f"--config.{name}={value}" for name, value in options.items() if value is not None]
            run([*command, "--workdir", workdir, *options], folders[mode, seed] / f"{stage}.log", core)
        finally:
            cores.put(core)

    jobs = [(key, stage) for key in folders for stage in STAGES]
    with ThreadPoolExecutor(cores.qsize()) as pool:
        list(tqdm(pool.map(train, jobs), total=len(jobs), desc="train", unit="stage"))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Of the model of a folder's stages: measure -> clip -> value."""
    log = folder / "evaluate.log"
    stages = [folder / stage for stage in STAGES]
    model = folder / "model"
    if not model.exists():
        made = ["--workdir", *stages, arguments.fine, "--tokenizers", arguments.tokenizers, "--out", model]
        run(["-m", "hafm_jax.export", *made], log)
    asked = ["--clips", arguments.clips, "--systems", "model", "--out", folder / "report"]
    run(["-m", "hafm_jax.evaluate", "--model", model, "--songs", arguments.songs, *asked], log)
    found: dict[str, dict[str, float]] = {name: {} for name in MEASURES}
    with (folder / "report" / "clips.csv").open() as file:
        for row in csv.DictReader(file):
            if row["system"] == "model":
                for name in MEASURES:
                    value = float(row[name] or "nan")
                    found[name][row["clip"]] = abs(value) if name == "lag_ms" else value
    return found


def validation_losses(model: Path) -> dict[str, float]:
    stages = json.loads((model / "config.json").read_text())["stages"]
    return {stage: stages[stage]["training"]["validation_loss"] for stage in STAGES}


def over_seeds(of_seeds: list[dict[str, float]]) -> dict[str, float]:
    """clip -> mean over the seeds in which it is defined."""
    values = {clip: [x for of_clip in of_seeds if math.isfinite(x := of_clip[clip])] for clip in of_seeds[0]}
    return {clip: statistics.fmean(found) for clip, found in values.items() if found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="token set of the demo's tokenizers")
    add("--tokenizers", type=Path, required=True)
    add("--fine", type=Path, required=True, help="work directory of a trained fine stage, the same for all")
    add("--songs", type=Path, required=True, help="songs to evaluate on, as for hafm_jax.evaluate")
    add("--workdir", type=Path, required=True)
    add("--seeds", type=int, default=3, help="default: 3")
    add("--steps", type=int, help="of each training (default: the configuration's)")
    add("--clips", type=int, default=64, help="default: 64")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "alignment.json")
    arguments = parser.parse_args()
    folders = {(m, s): arguments.workdir / f"{m}-{s}" for s in range(arguments.seeds) for m in MODES}
    train_all(arguments, folders)
    found = {key: measure(arguments, folder) for key, folder in tqdm(folders.items(), desc="evaluate", unit="model")}

    def interval(of_clips: dict[str, float]) -> dict[str, float]:
        of_songs: dict[str, list[float]] = {}
        for clip, value in of_clips.items():
            of_songs.setdefault(clip.rpartition("-")[0], []).append(value)
        return mean_interval(list(of_songs.values()), seed=0)

    results = {}
    for name in MEASURES:
        seeds = {mode: [found[mode, seed][name] for seed in range(arguments.seeds)] for mode in MODES}
        means = {mode: over_seeds(of_seeds) for mode, of_seeds in seeds.items()}
        both = means["clock"].keys() & means["index"].keys()
        results[name] = {
            mode: interval(means[mode]) | {"seeds": [interval(over_seeds([one]))["value"] for one in seeds[mode]]}
            for mode in MODES
        }
        results[name]["clock_minus_index"] = interval({c: means["clock"][c] - means["index"][c] for c in sorted(both)})
    losses = {folder.name: validation_losses(folder / "model") for folder in folders.values()}
    document = {"machine": machine(), "clips": arguments.clips, "seeds": arguments.seeds, "losses": losses}
    arguments.out.write_text(json.dumps(document | {"measures": results}, indent=1) + "\n")
    rows = [["", *MODES, "clock - index"]]
    for name, result in results.items():
        cells = [f"{x['value']:.2f} ({x['low']:.2f} to {x['high']:.2f})" for x in result.values()]
        rows.append([name, *cells])
    print(markdown(rows))


if __name__ == "__main__":
    run_command(main)
