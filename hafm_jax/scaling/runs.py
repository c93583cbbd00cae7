"""runs.jsonl: the results of a sweep, a line a run. The sweep writes it; fits and plots read nothing else."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_bounded, reading, sealed, unsealed, write_bytes
from hafm_jax.streams import STAGES

STATUSES = ("finished", "diverged", "unfinished")


@dataclass(frozen=True)
class Run:
    """One training run of a sweep. Losses are on validation windows, in nats a token.

    `parameters` leaves out embeddings and heads, and is the N of the law; `tokens` are the target tokens trained on,
    repeats included, and are its D; `flops` are those of the training (model/config.py), and are its C.
    """

    index: int  # from 0, different for each run of the sweep
    stage: str  # semantic, coarse or fine
    size: str  # the sweep's name for this width and depth
    d_model: int
    num_layers: int
    parameters: int  # without embeddings and heads
    parameters_total: int
    tokens: int  # target tokens of the whole run, also where it has not ended
    flops: float  # of these tokens
    seed: int
    learning_rate: float  # peak
    learning_rate_factor: float  # the rate over the rule's rate; the laws are fitted to runs at 1
    batch_size: int  # windows a step
    status: str  # one of STATUSES
    loss: float | None  # at the end; None unless finished
    loss_per_codebook: list[float]  # [K], empty unless finished
    curve: list[list[float]]  # [tokens, loss] where it was evaluated, in order; the last is the end's if finished
    isoflop: str | None  # label of the IsoFLOP row: runs of one label and stage have one budget of FLOPs
    held_out: bool  # not in any fit: predicted first, measured afterwards

    def __post_init__(self):
        def expect(holds: bool, name: str, expected: str) -> None:
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected {expected}")

        expect(_is_count(self.index, 0), "index", "an integer from 0")
        expect(self.stage in STAGES, "stage", f"one of {', '.join(STAGES)}")
        expect(isinstance(self.size, str), "size", "a name")
        for name in ("d_model", "num_layers", "parameters", "parameters_total", "tokens", "batch_size"):
            expect(_is_count(getattr(self, name), 1), name, "an integer from 1")
        expect(_is_count(self.seed, 0), "seed", "an integer from 0")
        for name in ("flops", "learning_rate", "learning_rate_factor"):
            expect(_is_number(getattr(self, name)) and getattr(self, name) > 0, name, "a positive number")
        expect(self.status in STATUSES, "status", f"one of {', '.join(STATUSES)}")
        if self.status == "finished":
            expect(_is_number(self.loss) and self.loss > 0, "loss", "a positive number, since the run is finished")
        else:
            expect(self.loss is None, "loss", f"none, since the run is {self.status}")
        codebooks = STAGES[self.stage].target.codebooks if self.status == "finished" else 0
        of_codebooks = self.loss_per_codebook
        expect(
            isinstance(of_codebooks, list)
            and len(of_codebooks) == codebooks
            and all(_is_number(x) and x > 0 for x in of_codebooks),
            "loss_per_codebook",
            f"{codebooks} positive numbers (stage {self.stage}, {self.status})",
        )
        points = self.curve
        expect(
            isinstance(points, list)
            and all(isinstance(p, list) and len(p) == 2 and all(map(_is_number, p)) for p in points)
            and all(a[0] < b[0] for a, b in pairwise(points)),
            "curve",
            "pairs of tokens and loss, tokens rising",
        )
        expect(self.isoflop is None or isinstance(self.isoflop, str), "isoflop", "a row's label or none")
        expect(isinstance(self.held_out, bool), "held_out", "true or false")

    @property
    def name(self) -> str:
        """The run as messages name it."""
        return f"run {self.index} ({self.stage}, {self.size}, {self.tokens:.3g} tokens)"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def read_runs(path: Path) -> list[Run]:
    """Runs by index. Raises InputError, with the line's number, where the file is missing or a line is damaged."""
    with reading(path, "the runs of a sweep: collect them with `sweep fit`"):
        if not (lines := read_bounded(path).decode().splitlines()):
            raise ValueError("it is empty")
    expected = [field.name for field in fields(Run)]
    runs = []
    for number, line in enumerate(lines, 1):
        try:
            row = unsealed(json.loads(line))
            if odd := sorted(set(row) ^ set(expected)):
                raise InputError(f"found {odd} missing or unknown; expected an object with {', '.join(expected)}")
            runs.append(Run(**row))
        except (ValueError, TypeError, RecursionError, InputError) as error:
            raise InputError(f"{path}, line {number}: {error}; collect the runs again") from error
    twice = [index for index, count in Counter(run.index for run in runs).items() if count > 1]
    if twice:
        raise InputError(f"{path} has runs {twice} more than once; expected each once: collect the runs again")
    return sorted(runs, key=lambda run: run.index)


def write_runs(path: Path, runs: Sequence[Run]) -> None:
    """Replaces the file as a whole. Raises InputError where it cannot be written."""
    lines = [json.dumps(sealed(asdict(run)), allow_nan=False) for run in sorted(runs, key=lambda run: run.index)]
    write_bytes(path, "".join(line + "\n" for line in lines).encode())
