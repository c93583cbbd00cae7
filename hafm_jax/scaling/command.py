"""What each part of `hafm sweep` does: plan, run, fit, plot (hafm_jax/sweep.py has their options)."""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from hafm_jax.common import work
from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.files import make_folder, write_bytes
from hafm_jax.common.options import check_at_least
from hafm_jax.common.outputs import check_own
from hafm_jax.common.shipped import find_shipped, let_configs_be_imported
from hafm_jax.scaling import queue
from hafm_jax.scaling.estimates import headlines
from hafm_jax.scaling.fit import fit_sweep, read_fit, write_fit
from hafm_jax.scaling.plan import PLAN_FILE, Plan, folder, plan_rows
from hafm_jax.scaling.plots import PAGE, write_report
from hafm_jax.scaling.runs import Run, read_runs
from hafm_jax.training import hosts
from hafm_jax.training.loop import Preempted
from hafm_jax.training.settings import token_sets

TABLE_FILE = "plan.txt"
POLL_S = 1.0  # how often the progress bar is updated
GPU_SHARE = 0.9  # of a GPU's memory, for all workers together
BAR = "{desc} {percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} TFLOP, {elapsed} gone, {remaining} left"


def read_config(path: Path) -> ConfigDict:
    """The result of the file's get_config(). Raises InputError where there is none."""
    let_configs_be_imported()
    spec = importlib.util.spec_from_file_location("sweep_config", path)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config()
    except (AttributeError, OSError, ImportError) as error:
        raise InputError(
            f"--config {path} cannot be used ({error}); expected a file like configs/scaling.py"
        ) from error


def plan(arguments: argparse.Namespace) -> None:
    data = [str(Path(argument).absolute()) for argument in arguments.data]
    for directory, _ in token_sets(data):
        if not directory.is_dir():
            raise InputError(f"--data {directory} is not a folder; expected a token set of tokenize/extract_tokens.py")
    planned = Plan(read_config(find_shipped(arguments.config)), data)
    device = arguments.device or planned.config.device
    if device not in planned.config.devices:
        raise InputError(
            f"--device {device}; expected one of {', '.join(planned.config.devices)}: give one of these, or add it to "
            "the configuration"
        )
    rows = plan_rows(planned, planned.runs(), device)
    queue.check_same_runs(arguments.workdir, planned)
    check_own(arguments.workdir, PLAN_FILE, [TABLE_FILE, queue.RUNS_FILE], "--workdir")
    make_folder(arguments.workdir, "--workdir")
    queue.read_states(arguments.workdir, planned)  # what is damaged is named before the plan is replaced
    planned.write(arguments.workdir)
    queue.collect(arguments.workdir, planned)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    hourly = planned.config.devices[device].usd_per_hour
    lines = ["  ".join(map(str.rjust, row[:-1], widths[:-1])) + f"  {row[-1]}" for row in rows]
    text = "\n".join([*lines, f"Time and cost: an estimate, on one {device} at {hourly:g} USD an hour"])
    write_bytes(arguments.workdir / TABLE_FILE, f"{text}\n".encode())
    print(f"{text}\n{arguments.workdir / TABLE_FILE} has this table, {PLAN_FILE} the input of `sweep run`")


def run(arguments: argparse.Namespace) -> None:
    workdir = arguments.workdir.absolute()
    planned = Plan.read(workdir)
    check_at_least(arguments, ray_gpus=0)
    if arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}; expected at least 1")
    if arguments.all:
        make_all(workdir, planned, arguments)
        return
    runs = planned.runs()
    if not 0 <= arguments.index < len(runs):
        raise InputError(f"--index {arguments.index}; expected 0 to {len(runs) - 1}, the runs of {workdir / PLAN_FILE}")
    use_compilation_cache()
    hosts.join(arguments.coordinator, arguments.num_processes, arguments.process_id)
    chosen = runs[arguments.index]
    status = queue.make_run(workdir, planned, chosen)
    if hosts.is_first():
        print(f"{chosen.name}: {'another process trains it' if status == queue.TAKEN else status}")


def make_all(workdir: Path, planned: Plan, arguments: argparse.Namespace) -> None:
    """Train all runs, and show their progress in one bar."""
    runs = planned.runs()

    def done_tflops() -> float:
        return sum(run.flops * queue.share_done(workdir, planned, run) for run in runs) / 1e12

    total = sum(run.flops for run in runs) / 1e12
    with tqdm(total=total, initial=done_tflops(), desc=f"{len(runs)} runs", unit="TFLOP", bar_format=BAR) as bar:

        def show() -> None:
            bar.n = done_tflops()
            bar.refresh()

        if arguments.ray:
            on_ray = {"on_ray": True, "ray_gpus": arguments.ray_gpus}
            names = [folder(run) for run in longest_first(runs)]
            with closing(work.do_all(partial(_make_named, workdir), names, 1, **on_ray)) as results:
                for _ in results:
                    show()
        else:
            _in_processes(workdir, arguments.workers, show)
        show()
    counts = Counter(run.status for run in queue.collect(workdir, planned))
    print(", ".join(f"{number} {status}" for status, number in counts.items()))


def longest_first(runs: Sequence[Run]) -> list[Run]:
    """In this order several workers end at about the same time. Held-out runs come last: `fit` can predict them while
    they are trained."""
    return sorted(runs, key=lambda run: (run.held_out, -run.flops))


def _make_named(workdir: Path, name: str) -> str:
    planned = Plan.read(workdir)
    (chosen,) = (run for run in planned.runs() if folder(run) == name)
    use_compilation_cache()
    return queue.make_run(workdir, planned, chosen, quiet=True)


def _in_processes(workdir: Path, workers: int, show: Callable[[], None]) -> None:
    """Train in worker processes, while this one shows the progress.

    common/work.py's pool does not serve here: on Ctrl-C it waits until the tasks that were begun are done. These are
    trainings, which on SIGTERM save a checkpoint and end.
    """
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_worker, args=(workdir, workers)) for _ in range(workers)]
    try:
        for child in children:
            child.start()
        while any(child.is_alive() for child in children):
            time.sleep(POLL_S)
            show()
    except KeyboardInterrupt:
        for child in children:
            child.terminate()  # they finish the step, save and exit
        for child in children:
            child.join()
        # Ctrl-C goes to all processes of a terminal.
        if all(child.exitcode == 128 + signal.SIGINT for child in children):
            raise
        raise Preempted("the runs that were begun are saved; run the same command again") from None
    if failed := [child.exitcode for child in children if child.exitcode]:
        sys.exit(max(failed) if max(failed) > 0 else 1)


def _worker(workdir: Path, workers: int) -> None:
    """Train runs until no run is left that is neither done nor claimed."""
    threading.Thread(target=work.end_with_parent, daemon=True).start()
    if workers > 1:  # before JAX looks for its devices
        os.environ["NPROC"] = str(max(1, (os.cpu_count() or 1) // workers))
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{GPU_SHARE / workers:.3f}"

    def make() -> None:
        planned = Plan.read(workdir)
        use_compilation_cache()
        for chosen in longest_first(planned.runs()):
            queue.make_run(workdir, planned, chosen, quiet=True)

    run_command(partial(restartable, make))


def fit(arguments: argparse.Namespace) -> None:
    check_at_least(arguments, seed=0)
    if not all(0 < budget < math.inf for budget in arguments.budgets):
        raise InputError(f"--budgets {arguments.budgets}; expected numbers above 0, in FLOPs")
    planned = Plan.read(arguments.workdir)
    fitted = fit_sweep(queue.collect(arguments.workdir, planned), arguments.seed, arguments.budgets)
    write_fit(arguments.workdir, fitted | {"machines": queue.machines(arguments.workdir, planned)})
    print("\n".join(headlines(fitted)))


def plot(arguments: argparse.Namespace) -> None:
    write_report(arguments.workdir, read_runs(arguments.workdir / queue.RUNS_FILE), read_fit(arguments.workdir))
    print(arguments.workdir / PAGE)


def restartable(main: Callable[[], None]) -> None:
    """Run `main`; a training that was stopped and has saved exits with the code at which launchers start it again."""
    try:
        main()
    except Preempted as saved:
        print(f"preempted: {saved}", file=sys.stderr)
        sys.exit(hosts.RESTART_EXIT_CODE)


def run_restartable(arguments: argparse.Namespace) -> None:
    """The command of `hafm sweep` that the arguments name."""
    restartable(partial({"plan": plan, "run": run, "fit": fit, "plot": plot}[arguments.command], arguments))
