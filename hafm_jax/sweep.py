"""Scaling laws of a stage: plan runs, train them, fit laws to their losses, draw the report.

    hafm sweep plan --config configs/scaling.py --data TOKENS --workdir SWEEP --device cpu
    hafm sweep run --workdir SWEEP --all
    hafm sweep fit --workdir SWEEP
    hafm sweep plot --workdir SWEEP

A sweep's folder holds plan.json and plan.txt, runs/NAME/ (work directories as of hafm train), runs.jsonl (a line a
run: its settings and its losses), fit.json, plots/ and index.html. Each command has its own --help.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hafm_jax.common.errors import needs_extra, run_command
from hafm_jax.common.options import local, local_path


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="hafm sweep", description=__doc__, formatter_class=raw)
    commands = p.add_subparsers(dest="command", required=True)

    def command(name: str, help: str, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=description, formatter_class=raw)
        added.add_argument("--workdir", type=local_path, required=True, metavar="SWEEP", help="the sweep's folder")
        return added

    plan = command(
        "plan",
        "write the list of runs with their cost",
        "Writes plan.json, plan.txt and runs.jsonl from a configuration, and prints every run: N parameters (without\n"
        "embeddings and heads), D target tokens, FLOPs, estimated time and cost on a device. A sweep can be planned\n"
        "again with more runs: it keeps those that are done. A run that was begun cannot be changed.",
    )
    plan.add_argument("--config", type=local_path, default=Path("configs/scaling.py"), help="(default: %(default)s)")
    plan.add_argument(
        "--data", type=local, nargs="+", required=True, metavar="TOKENS", help="token sets, as of hafm train"
    )
    plan.add_argument("--device", help="one of the configuration's devices, for time and cost (default: its own)")

    run = command(
        "run",
        "train the runs",
        "Trains the planned runs. A run that is done is not trained again, one that was stopped or killed resumes\n"
        "from its last checkpoint, and no two processes train the same run: start this command any number of times,\n"
        "on any machines that share the folder (NFS and Lustre lock files; gcsfuse does not). Ctrl-C and SIGTERM save\n"
        "a checkpoint first. --index is for the tasks of a job array: launch/README.md.",
    )
    which = run.add_mutually_exclusive_group(required=True)
    which.add_argument("--index", type=int, help="the number of one run, which uses all devices")
    which.add_argument(
        "--all",
        action="store_true",
        help="all runs that no other process trains, the longest first, held-out runs last",
    )
    run.add_argument("--workers", type=int, default=1, help="with --all: how many runs at a time share the devices")
    run.add_argument("--ray", action="store_true", help="with --all: each run is a task on the cluster of RAY_ADDRESS")
    run.add_argument("--ray-gpus", type=float, default=1.0, help="GPUs for a run on Ray; 0.25 puts four runs on a GPU")
    run.add_argument("--coordinator", help="with --index: HOST:PORT of process 0, where no launcher sets it")
    run.add_argument(
        "--num-processes", "--num_processes", type=int, help="with --coordinator: how many processes train the run"
    )
    run.add_argument("--process-id", "--process_id", type=int, help="with --coordinator: which of them this is, from 0")

    fit = command(
        "fit",
        "fit laws to the runs that are done",
        "Writes runs.jsonl with the present state of the runs, and fit.json: L(N, D) = E + A / N^alpha + B / D^beta,\n"
        "best sizes by three methods, predictions with 95 % intervals. Diverged, unfinished and held-out runs are\n"
        "left out and listed.",
    )
    fit.add_argument("--budgets", type=float, nargs="+", default=[], metavar="FLOPS", help="more budgets to predict")
    fit.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")

    command(
        "plot",
        "draw the report of the last fit",
        "Writes plots/*.png, plots/*.svg and index.html from runs.jsonl and fit.json.",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    with needs_extra("train", "a sweep"):
        from hafm_jax.scaling import command
    command.run_restartable(arguments)


if __name__ == "__main__":
    run_command(main)
