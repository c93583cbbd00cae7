"""What benchmarks and experiments share: the command line, where a result comes from, how it is written and shown."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.bootstrap import NUM_DRAWS, draw_counts, percentile_interval
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import make_folder, write_json
from hafm_jax.common.machine import this_machine
from hafm_jax.common.work import environment
from hafm_jax.streams import Stage


def make_parser(about: str) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring, with --out."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file for the result (default: print only)")
    return parser


def begin_result(out: Path | None, *packages: str) -> Callable[[Mapping[str, Any]], None]:
    """A function that writes a document to `out`, with a record of the machine and of the versions of `packages`.

    Call it before the work: a result names the commit that made it, so the commit is read, and the place is made, at
    the start. Without `out` nothing is written. Raises InputError where the code differs from its commit or `out`
    cannot be made.
    """
    if out is None:
        return lambda document: None
    machine = this_machine(*packages)
    if machine["dirty"] is not False:
        found = "there is no commit" if machine["dirty"] is None else f"{machine['commit']} has uncommitted changes"
        raise InputError(
            f"{found}; expected a commit that a result can name: commit or revert the changes, or leave out --out to "
            "print only"
        )
    make_folder(out.parent, "--out")
    return lambda document: write_json(out, {"machine": machine, **document})


def new_process() -> ProcessPoolExecutor:
    """One process, which imports everything again; it starts with the first task."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def in_a_process(function: Callable[..., Any], *arguments: Any, **variables: str) -> Any:
    """function(*arguments), by a process of its own; `variables` are added to its environment."""
    with environment(**variables), new_process() as process:
        return process.submit(function, *arguments).result()


def random_tokens(stage: Stage, batch_size: int, window_cells: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A batch of random windows: stream of the stage -> int32 [B, F, K]."""
    shapes = {s: (batch_size, window_cells * s.frames_per_cell, s.codebooks) for s in stage.streams}
    return {stream.name: rng.integers(0, stream.vocabulary, shape, np.int32) for stream, shape in shapes.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def mean_interval(values: np.ndarray) -> dict[str, float]:
    """The mean of values [N], one a song, and its interval when songs are drawn again: value, low, high."""
    draws = draw_counts(len(values), seed=0, num_draws=10 * NUM_DRAWS) @ values / len(values)
    return percentile_interval(float(np.mean(values)), draws)._asdict()


def show_interval(figure: Mapping[str, float]) -> str:
    return "{value:.3f} ({low:.3f} to {high:.3f})".format_map(figure)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its header."""
    header, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rest])
