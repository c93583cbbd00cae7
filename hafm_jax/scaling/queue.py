"""Runs of a sweep being made: who takes which, what came of it, how far they are.

    WORKDIR/runs/NAME/                what hafm_jax.training.loop writes
                      claim           locked by the process that makes the run, as long as it lives
                      result.json     how the run came out; a run that has one is done

Any number of processes share a sweep: each takes the runs that nobody has taken. What a killed one leaves is free again
at once, and goes on from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes
from hafm_jax.scaling.plan import Plan, folder
from hafm_jax.scaling.runs import Run, write_runs
from hafm_jax.streams import STAGES
from hafm_jax.training import hosts
from hafm_jax.training.loop import NotFinite, token_sets, train
from hafm_jax.training.workdir import changed_fields

RESULT_FILE = "result.json"
RUNS_FILE = "runs.jsonl"
TAKEN = "taken"


def run_directory(workdir: Path, run: Run) -> Path:
    return workdir / "runs" / folder(run)


def make_run(workdir: Path, plan: Plan, run: Run, quiet: bool = False) -> str:
    """Train a run to its end, from its last checkpoint where it has one, unless it is done.

    All processes of one training call it alike. Returns finished or diverged, or TAKEN where somebody else is at it.
    Raises InputError, Preempted and KeyboardInterrupt as training.train.
    """
    directory = run_directory(workdir, run)
    with _claim(directory) as mine:
        if not hosts.all_of(mine):
            return TAKEN
        if (done := _read_result(directory)) is not None:
            return done["status"]
        training = plan.training(run)
        try:
            train(training, token_sets(plan.data), directory, quiet)
        except NotFinite:
            status = "diverged"
        else:
            status = "finished"
        result = _result(status, run, training.steps, _lines(directory))
        if hosts.is_first():
            write_bytes(directory / RESULT_FILE, (json.dumps(result) + "\n").encode())
        return result["status"]


@contextmanager
def _claim(directory: Path) -> Iterator[bool]:
    """Whether nobody else has the run; then nobody else gets it until the block, or this process, ends."""
    if not hosts.is_first():  # the first of them claims for all
        yield True
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "claim").open("w")
    except OSError as error:
        raise InputError(f"cannot write {directory} ({error.strerror}); expected a work directory of yours") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go when this process ends, however it does
        except BlockingIOError:
            yield False
        else:
            yield True


def _read_result(directory: Path) -> dict[str, Any] | None:
    path = directory / RESULT_FILE
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, and the run is looked at anew") from error


def _lines(directory: Path) -> list[dict[str, Any]]:
    """Of metrics.jsonl, in order; a last one that is being written is left out."""
    path = directory / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _result(status: str, run: Run, steps: int, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of a run that has come to its end: status, loss, loss_per_codebook, curve, and seconds of training.

    It has diverged too if it ends worse than knowing nothing, a loss of ln V.
    """
    last = [line for line in lines if "validation_loss" in line][-1] if status == "finished" else {}
    if last and not last["validation_loss"] < math.log(STAGES[run.stage].target.vocabulary):
        status, last = "diverged", {}
    return {
        "status": status,
        "loss": last.get("validation_loss"),
        "loss_per_codebook": last.get("validation_loss_per_codebook", []),
        "curve": _curve(run, steps, lines),
        "seconds": sum(line.get("seconds", 0.0) for line in lines),
    }


def _curve(run: Run, steps: int, lines: Sequence[dict[str, Any]]) -> list[list[float]]:
    """[target tokens, validation loss] along the run; what a killed process made twice is in it once."""
    losses = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    return [[step * run.tokens // steps, losses[step]] for step in sorted(losses) if math.isfinite(losses[step])]


def collect(workdir: Path, plan: Plan) -> list[Run]:
    """All runs as they stand; they are written to WORKDIR/runs.jsonl too."""
    runs = []
    for run in plan.runs():
        directory = run_directory(workdir, run)
        result = _read_result(directory)
        if result is None:
            runs.append(replace(run, curve=_curve(run, plan.training(run).steps, _lines(directory))))
        else:
            of_run = {name: result[name] for name in ("status", "loss", "loss_per_codebook", "curve")}
            runs.append(replace(run, **of_run))
    write_runs(workdir / RUNS_FILE, runs)
    return runs


def machines(workdir: Path, plan: Plan) -> list[dict[str, Any]]:
    """What the runs were made on and with, each kind once: versions, devices, device_count, cores."""
    found: list[dict[str, Any]] = []
    for run in plan.runs():
        path = run_directory(workdir, run) / "config.json"
        if path.exists():
            said = json.loads(path.read_text())
            machine = {name: said[name] for name in ("versions", "devices", "device_count", "cores")}
            found += [machine] if machine not in found else []
    return found


def share_done(workdir: Path, plan: Plan, run: Run) -> float:
    """How much of a run has been made, 0 to 1, by its last logged step."""
    directory = run_directory(workdir, run)
    if _read_result(directory) is not None:
        return 1.0
    lines = _lines(directory)
    return lines[-1]["step"] / plan.training(run).steps if lines else 0.0


def check_same_runs(workdir: Path, plan: Plan) -> None:
    """Raises InputError where a run that has begun in `workdir` is not what `plan` would begin."""
    for run in plan.runs():
        path = run_directory(workdir, run) / "config.json"
        if path.exists() and (
            changed := changed_fields(json.loads(path.read_text())["config"], plan.training(run).to_dict())
        ):
            raise InputError(
                f"{path.parent} was begun with another {', '.join(changed)}; expected what the configuration says "
                "now: give a new --workdir"
            )
