"""The input pipeline alone: does it feed a step with a wide margin?

    python -m benchmarks.input [--quick] [--out benchmarks/results/input.json]

Batches of the coarse stage as in configs/base.py, 64 windows of 250 cells, read by `loader.prefetch` from a token set
in a temporary folder: random tokens, songs of 4 minutes. The time includes checksums, decoding, cropping, shuffling and
batching, not the transfer to a device. The files are new, so they are read from the page cache: this is the cost of
reading, not the speed of a disk. The result also has the bytes a second that a disk would have to deliver.

The rate that a step needs is stated for accelerators, not measured: the FLOPs of the step (`train_flops`, size `base`)
at a model FLOP utilisation of 45 % of the device's dense bfloat16 peak, as its maker states it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown, spread
from configs.base import get_config
from hafm_jax.common.errors import run_command
from hafm_jax.dataset import loader
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.dataset.writer import write_split
from hafm_jax.model.config import StageConfig, train_flops
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CELLS_PER_S, STREAMS

SONG_S = 240
SONGS = 256
ROUNDS = 5
ROUND_S = 5.0  # at least, of each
GOAL = 10  # times the rate that a step needs
UTILISATION = 0.45
PEAK_FLOPS_PER_S = {"H100 SXM": 989e12, "TPU v5p": 459e12}  # dense bfloat16


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
    """One row a consumer: the rate that it needs, and the pipeline's rate as a multiple of it."""
    rows = [["a step on", "tokens/s it needs", "tokens/s of the pipeline", "times", "goal"]]
    given = measured["tokens_per_s"]
    for name, taken in consumers.items():
        rows.append([name, f"{taken:,.0f}", f"{given:,.0f}", f"{given / taken:,.1f}", str(GOAL)])
    return markdown(rows)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="few songs, a second a round")
    arguments = parser.parse_args()
    write = begin_result(arguments.out, "grain")

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
        for _ in range(loader.AHEAD_BATCHES + 1):  # batches made ahead do not count
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
    tokens_per_flop = UTILISATION * tokens_per_window / train_flops(config, config.window_cells)
    consumers = {
        f"one {name}, {UTILISATION:.0%} of {peak / 1e12:.0f} TFLOP/s": peak * tokens_per_flop
        for name, peak in PEAK_FLOPS_PER_S.items()
    }
    write({"measured": measured, "consumers_tokens_per_s": consumers})
    print(table(measured, consumers))


if __name__ == "__main__":
    run_command(main)
