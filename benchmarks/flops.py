"""What a training step computes: our analytic FLOPs against XLA's own analysis of the compiled step.

    python benchmarks/flops.py [--sizes demo base ...] [--out benchmarks/results/flops.json]

Every size of model/config.py and of configs/scaling.py, all stages, a window a step, float32, no remat. XLA counts
the body of a loop once, so loops are unrolled here, and since layers are alike a step of one layer and one of two tell
of all: the second layer's FLOPs once more for each that follows. XLA counts elementwise arithmetic as well, and leaves
out what it has simplified away. `analytic` is step.step_flops, `model` sizes.train_flops, the C of scaling laws: what
remains when nothing is computed twice or for nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
from machine import machine
from report import markdown
from tqdm import tqdm

from configs.base import get_config
from configs.scaling import get_config as get_sweep
from hafm_jax.model import sharding
from hafm_jax.model.config import SIZES, StageConfig, find_size, train_flops
from hafm_jax.streams import STAGES
from hafm_jax.training.step import Programs, step_flops

WINDOW_CELLS = {"semantic": 125, "coarse": 32, "fine": 20}  # as the sweep, and about as many tokens


@contextmanager
def unrolled_loops() -> Iterator[None]:
    scan = jax.lax.scan

    def unrolled_scan(f, init, xs=None, length=None, **_):
        return scan(f, init, xs, length, unroll=True)

    def unrolled_fori(lower, upper, body, value):
        for i in range(lower, upper):
            value = body(jnp.int32(i), value)
        return value

    with mock.patch("jax.lax.scan", unrolled_scan), mock.patch("jax.lax.fori_loop", unrolled_fori):
        yield


@cache  # sizes that differ in layers alone share their steps
def compiled_flops(config: StageConfig) -> float:
    """XLA's count for a step on one window."""
    training = get_config()
    size = f"{config.d_model}x{config.num_layers}x{config.num_heads}"
    training.update(stage=config.stage, size=size, window_cells=config.window_cells, position=config.position)
    training.update(batch_size=1, compute_dtype="float32", remat="none")
    with unrolled_loops():
        return Programs(training, sharding.make_mesh(1, 1, 1)).compile(1).cost_analysis()["flops"]


def measure(stage: str, size: str) -> dict:
    config = StageConfig.of_size(stage, size, window_cells=WINDOW_CELLS[stage], compute_dtype="float32")
    one, two = (compiled_flops(replace(config, num_layers=layers)) for layers in (1, 2))
    return {
        "stage": stage,
        "size": size,
        "window_cells": config.window_cells,
        "xla": one + (config.num_layers - 1) * (two - one),
        "analytic": step_flops(config, 1),
        "model": train_flops(config, config.window_cells),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sweep = get_sweep()
    every = dict.fromkeys([*SIZES, *sweep.sizes, *sweep.rates.sizes, *sweep.held_out.sizes])
    parser.add_argument("--sizes", nargs="+", default=list(every), help="(default: all)")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    arguments = parser.parse_args()
    sizes = sorted(arguments.sizes, key=lambda size: find_size(size).d_model)
    cases = [(stage, size) for stage in STAGES for size in sizes]
    rows = []
    for case in tqdm(cases):
        rows.append(measure(*case))
        if arguments.out:  # as far as it has come
            arguments.out.write_text(json.dumps({"machine": machine(), "steps": rows}, indent=1) + "\n")
    table = [["size", "stage", "XLA, GFLOP", "analytic over XLA", "model over XLA"]]
    for r in rows:
        shares = (f"{r[name] / r['xla']:.3f}" for name in ("analytic", "model"))
        table.append([r["size"], r["stage"], f"{r['xla'] / 1e9:.3g}", *shares])
    print(markdown(table))
    print(f"analytic: at most {100 * max(abs(r['analytic'] / r['xla'] - 1) for r in rows):.2g} % off")


if __name__ == "__main__":
    main()
