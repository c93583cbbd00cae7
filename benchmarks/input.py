"""The input pipeline alone: does it feed a step with a wide margin?

    python benchmarks/input.py [--quick] [--out benchmarks/results/input.json]

Batches of the coarse stage as configs/base.py has them, 64 windows of 250 cells, read by `data.stream` from a token set
that it writes to a temporary folder: random tokens, songs of 4 minutes. Checksums, decoding, cropping, shuffling
and batching are in the time, placing on a device is not. The files are new, so that they are read from the page cache:
the cost of reading, not the speed of a disk; the bytes that a disk has to give stand beside.

What a step takes is stated, not measured, for accelerators: the FLOPs of the step (`sizes.train_flops`, size `base`) at
a model FLOP utilisation of 45 % of the device's dense bfloat16 peak, as its maker states it. That of this machine's
own step is the coarse one in benchmarks/results/train.json, where there is one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import machine
from report import markdown, spread
from tqdm import tqdm

from configs.base import get_config
from hafm_jax.dataset import loader
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.dataset.writer import write_split
from hafm_jax.model.config import StageConfig, train_flops
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CELLS_PER_S, STREAMS

SONG_S = 240
SONGS = 256
ROUNDS = 5
ROUND_S = 5.0  # at least, of each
GOAL = 10  # times what a step takes
UTILISATION = 0.45
PEAK_FLOPS_PER_S = {"H100 SXM": 989e12, "TPU v5p": 459e12}  # dense bfloat16
TRAIN_RESULTS = Path("benchmarks/results/train.json")


def songs(number: int) -> Iterator[dict]:
    """Records of random tokens."""
    rng = np.random.default_rng(0)
    cells = SONG_S * CELLS_PER_S
    coarse, semantic = STREAMS["coarse"], ("vocal_semantic", "instrumental_semantic")
    for i in range(number):
        record = {
            name: rng.integers(0, STREAMS[name].vocabulary, cells * STREAMS[name].frames_per_cell, np.int32)
            for name in semantic
        }
        shape = (cells * coarse.frames_per_cell, ACOUSTIC_CODEBOOKS)
        yield record | {"id": f"song{i}", "acoustic": rng.integers(0, coarse.vocabulary, shape, np.int32)}


def batches_per_s(reading: Iterator[loader.Batch], at_least_s: float) -> float:
    started_s, batches = time.perf_counter(), 0
    while time.perf_counter() - started_s < at_least_s:
        next(reading)
        batches += 1
    return batches / (time.perf_counter() - started_s)


def table(measured: dict, consumers: dict[str, float]) -> str:
    """One row a consumer: the tokens that it takes, and how often what the pipeline gives goes into that."""
    rows = [["a step on", "tokens/s it takes", "tokens/s the pipeline gives", "times", "goal"]]
    given = measured["tokens_per_s"]
    for name, taken in consumers.items():
        rows.append([name, f"{taken:,.0f}", f"{given:,.0f}", f"{given / taken:,.1f}", str(GOAL)])
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few songs, a second a round")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/input.json"))
    arguments = parser.parse_args()

    training = get_config()
    config = StageConfig.of_size("coarse", training.size, window_cells=training.window_cells)
    tokens_per_window = config.stage.num_tokens(config.window_cells)
    tokens_per_batch = training.batch_size * tokens_per_window
    number, round_s = (16, 1.0) if arguments.quick else (SONGS, ROUND_S)
    with tempfile.TemporaryDirectory() as directory:
        summary = write_split(directory, "train", tqdm(songs(number), total=number, unit="song"))
        source = TokenRecords(directory, "train")
        batches = loader.train_batches(
            [(source, 1.0)], config.stage, config.window_cells, training.batch_size, training.seed
        )
        reading = loader.prefetch(batches, 0)
        for _ in range(loader.AHEAD_BATCHES + 1):  # what was made ahead does not count
            first = next(reading)
        assert sum(x.size for x in first.values()) == tokens_per_batch
        rates = [batches_per_s(reading, round_s) for _ in tqdm(range(ROUNDS), unit="round")]
        reading.close()

    rate = statistics.median(rates)
    measured = {
        "songs": number,
        "song_s": SONG_S,
        "song_bytes": summary.num_bytes / number,
        "batch_size": training.batch_size,
        "tokens_per_batch": tokens_per_batch,
        "batches_per_s": spread(rates),
        "tokens_per_s": rate * tokens_per_batch,
        "read_bytes_per_s": rate * training.batch_size * summary.num_bytes / number,
    }
    flops_per_window = train_flops(config, config.window_cells)
    consumers = {
        f"one {name}, {UTILISATION:.0%} of {peak / 1e12:.0f} TFLOP/s": UTILISATION
        * peak
        / flops_per_window
        * tokens_per_window
        for name, peak in PEAK_FLOPS_PER_S.items()
    }
    if TRAIN_RESULTS.exists():
        stages = {stage["stage"]: stage for stage in json.loads(TRAIN_RESULTS.read_text())["stages"]}
        if "coarse" in stages:
            consumers["this machine"] = stages["coarse"]["subjects"]["ours"]["tokens_per_s"]
    document = {"machine": machine("grain"), "measured": measured, "consumers_tokens_per_s": consumers}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    print(table(measured, consumers))


if __name__ == "__main__":
    main()
