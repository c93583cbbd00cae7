"""The queue of a sweep's runs: who makes which, how each ended, how far they are.

    WORKDIR/runs/NAME/                the work directory of one run, as hafm_jax.training.loop writes it
                      claim           locked by the process that makes the run, as long as that process lives
                      result.json     how the run ended; a run that has one is done

Any number of processes share a sweep: each makes the runs that no other process has claimed. When a process is killed
its run is free at once, and whoever claims it next resumes it from its last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, reading, sealed, write_json
from hafm_jax.common.options import from_fields
from hafm_jax.common.resume import claim
from hafm_jax.scaling.plan import Plan, folder
from hafm_jax.scaling.runs import Run, write_runs
from hafm_jax.streams import STAGES
from hafm_jax.training import hosts
from hafm_jax.training.log import METRICS_FILE, read_metrics
from hafm_jax.training.loop import NotFinite, train
from hafm_jax.training.settings import token_sets
from hafm_jax.training.workdir import changed_fields

RESULT_FILE = "result.json"
RUNS_FILE = "runs.jsonl"
CONFIG_FILE = "config.json"  # of a run
ENDED = "how the run ended: remove it, and the run resumes from its last checkpoint"
BEGUN = "what the run was begun with: restore it, or remove the run's folder, and the run begins again"
TAKEN = "taken"


def run_directory(workdir: Path, run: Run) -> Path:
    return workdir / "runs" / folder(run)


def make_run(workdir: Path, plan: Plan, run: Run, quiet: bool = False) -> str:
    """Train a run to its end, from its last checkpoint if it has one, unless it is done.

    All processes of one training call it alike; the first of them claims the run for all. Returns finished or diverged,
    or TAKEN where another training has claimed the run. Raises InputError, Preempted and KeyboardInterrupt as
    training.loop.train.
    """
    directory = run_directory(workdir, run)
    with claim(directory / "claim") if hosts.is_first() else nullcontext(True) as mine:
        if not hosts.all_of(mine):
            return TAKEN
        if (ended := _read_ended(directory, run)) is not None:
            return ended.status
        training = plan.training(run)
        try:
            train(training, token_sets(plan.data), directory, quiet)
        except NotFinite:
            status = "diverged"
        else:
            status = "finished"
        result = _result(status, run, training.steps, directory)
        if hosts.is_first():
            write_json(directory / RESULT_FILE, sealed(result))
        return result["status"]


def _read_ended(directory: Path, run: Run) -> Run | None:
    """The run with its result; None where it has not ended. Raises InputError where the result is damaged."""
    path = directory / RESULT_FILE
    if not path.exists():
        return None
    document = read_json(path, ENDED)
    with reading(path, ENDED):
        of_run = {name: document[name] for name in ("status", "loss", "loss_per_codebook", "curve")}
        if of_run["status"] == "unfinished":
            raise ValueError("it says that the run is unfinished")
    return from_fields(partial(replace, run), of_run, f"{path}, expected to be {ENDED}")


def _result(status: str, run: Run, steps: int, directory: Path) -> dict[str, Any]:
    """For a run that has ended: status, loss, loss_per_codebook, curve, and seconds of training.

    A run that ends above ln V, the loss of a uniform guess, has diverged too. Raises InputError where its last losses
    are not logged.
    """
    lines = read_metrics(directory)
    last: dict[str, Any] = {}
    if status == "finished":
        with reading(
            directory / METRICS_FILE, f"the losses of step {steps}: remove the run's folder to train it again"
        ):
            last = [line for line in lines if line["step"] == steps and "validation_loss" in line][-1]
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
    """[target tokens, validation loss] along the run; a step that was made again after a kill is in it once."""
    losses = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    return [[step * run.tokens // steps, losses[step]] for step in sorted(losses) if math.isfinite(losses[step])]


def collect(workdir: Path, plan: Plan) -> list[Run]:
    """`read_states`, which it writes to WORKDIR/runs.jsonl too. Raises InputError where the place cannot be written."""
    runs = read_states(workdir, plan)
    write_runs(workdir / RUNS_FILE, runs)
    return runs


def read_states(workdir: Path, plan: Plan) -> list[Run]:
    """All runs in their present state. Raises InputError where a file of a run is damaged."""
    runs = []
    for run in plan.runs():
        directory = run_directory(workdir, run)
        ended = _read_ended(directory, run)
        if ended is None:
            ended = replace(run, curve=_curve(run, plan.training(run).steps, read_metrics(directory)))
        runs.append(ended)
    return runs


def machines(workdir: Path, plan: Plan) -> list[dict[str, Any]]:
    """The machines and versions of the runs, each once: versions, devices, device_count, cores."""
    found: list[dict[str, Any]] = []
    for run in plan.runs():
        path = run_directory(workdir, run) / CONFIG_FILE
        if path.exists():
            config = read_json(path, BEGUN)
            with reading(path, BEGUN):
                machine = {name: config[name] for name in ("versions", "devices", "device_count", "cores")}
            found += [machine] if machine not in found else []
    return found


def share_done(workdir: Path, plan: Plan, run: Run) -> float:
    """The share of a run that is done, 0 to 1, by its last logged step."""
    directory = run_directory(workdir, run)
    if _read_ended(directory, run) is not None:
        return 1.0
    lines = read_metrics(directory)
    return lines[-1]["step"] / plan.training(run).steps if lines else 0.0


def check_same_runs(workdir: Path, plan: Plan) -> None:
    """Raises InputError where a run that was begun in `workdir` differs from the run that `plan` would begin."""
    for run in plan.runs():
        path = run_directory(workdir, run) / CONFIG_FILE
        if not path.exists():
            continue
        begun = read_json(path, BEGUN)
        with reading(path, BEGUN):
            changed = changed_fields(begun["config"], plan.training(run).to_dict())
        if changed:
            raise InputError(
                f"{path.parent} was begun with another {', '.join(changed)}; expected the values of this "
                "configuration: give a new --workdir"
            )
