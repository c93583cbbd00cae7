"""The sweep's command: each run is trained once, by several processes and after kills. Sizes are tiny."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import jax
import pytest
from helpers import ROOT, read_lines, write_token_set
from helpers.training_runs import ENVIRONMENT

from hafm_jax import sweep
from hafm_jax.common import work
from hafm_jax.common.errors import InputError
from hafm_jax.scaling import queue
from hafm_jax.scaling.plan import Plan
from hafm_jax.scaling.runs import read_runs
from hafm_jax.training import hosts, loop
from hafm_jax.training.hosts import RESTART_EXIT_CODE

CONFIG = """
from configs.scaling import get_config as miniature

def get_config():
    config = miniature()
    config.stages = {"semantic": {"window_cells": 4, "budgets_flops": (), "tokens": (4_000, 8_000)}}
    config.sizes = ("16x1x1",)
    config.rates.sizes = ()
    config.held_out.update(sizes=("16x3x1",), budget_flops=1e9)
    config.update(evaluations=4, validation_windows=16)
    return config
"""


@pytest.fixture(scope="module")
def token_set(tmp_path_factory) -> Path:
    return write_token_set(tmp_path_factory.mktemp("tokens"), num_validation=4, num_cells=16)


def planned(token_set: Path, workdir: Path, config: str = CONFIG) -> Plan:
    workdir.mkdir(exist_ok=True)
    (workdir / "config.py").write_text(config)
    sweep.main(["plan", "--config", f"{workdir}/config.py", "--data", str(token_set), "--workdir", str(workdir)])
    return Plan.read(workdir)


def start_all(workdir: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "hafm_jax.sweep", "run", "--workdir", str(workdir), "--all", *arguments],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def steps_logged(directory: Path) -> list[int]:
    """In the order in which they were made."""
    return [line["step"] for line in read_lines(directory / "metrics.jsonl") if "loss" in line]


@pytest.fixture(scope="module")
def made(token_set, tmp_path_factory) -> Path:
    """A sweep that two processes made side by side."""
    workdir = tmp_path_factory.mktemp("made")
    planned(token_set, workdir)
    processes = [start_all(workdir, "--workers", "1") for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(outputs)
    return workdir


def test_two_processes_make_every_run_once(made, capsys):
    plan = Plan.read(made)
    for run in plan.runs():
        steps = steps_logged(queue.run_directory(made, run))
        assert steps == sorted(set(steps)) and steps[-1] == plan.training(run).steps
    runs = queue.collect(made, plan)
    assert {run.status for run in runs} == {"finished"} and read_runs(made / "runs.jsonl") == runs
    for run in runs:
        assert run.curve[-1] == [run.tokens, run.loss] and len(run.curve) == plan.config.evaluations
        assert queue.share_done(made, plan, run) == 1

    sweep.main(["fit", "--workdir", str(made), "--budgets", "1e12"])
    assert "no law: it needs at least 3 sizes" in capsys.readouterr().out
    (machine,) = json.loads((made / "fit.json").read_text())["machines"]
    assert machine["versions"]["jax"] == jax.__version__ and machine["devices"] == ["cpu"]
    sweep.main(["plot", "--workdir", str(made)])
    assert (made / "index.html").exists() and (made / "plots" / "curves.png").exists()


def test_a_run_that_is_done_is_not_made_again(made, monkeypatch, capsys):
    monkeypatch.setattr(queue, "train", lambda *_: pytest.fail("it was trained again"))
    monkeypatch.setattr(hosts, "join", lambda *_: None)  # JAX has computed here already: too late to join others
    sweep.main(["run", "--workdir", str(made), "--index", "0"])
    assert "finished" in capsys.readouterr().out


def wait_for_a_step(process: subprocess.Popen, workdir: Path, plan: Plan) -> None:
    """Wait until a run has made a step since its last checkpoint, and is not done."""

    def under_way(run) -> bool:
        directory = queue.run_directory(workdir, run)
        saved = [int(path.name) for path in directory.glob("checkpoints/[0-9]*[0-9]")]
        share = queue.share_done(workdir, plan, run)
        return bool(saved) and max(saved) / plan.training(run).steps < share < 1

    while not any(map(under_way, plan.runs())):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.slow
def test_after_a_kill_a_checkpoint_interval_is_lost_at_most(made, token_set, tmp_path):
    plan = planned(token_set, tmp_path)
    process = start_all(tmp_path)
    wait_for_a_step(process, tmp_path, plan)
    process.terminate()  # the parent alone: it stops its workers
    assert process.wait(timeout=60) == RESTART_EXIT_CODE, process.communicate()[0]

    process = start_all(tmp_path)
    wait_for_a_step(process, tmp_path, plan)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    again = start_all(tmp_path)
    assert again.wait(timeout=240) == 0, again.communicate()[0]
    for run, undisturbed in zip(queue.collect(tmp_path, plan), read_runs(made / "runs.jsonl"), strict=True):
        assert run == undisturbed  # bit for bit
        steps = steps_logged(queue.run_directory(tmp_path, run))
        lost = sum(a >= b for a, b in pairwise(steps))
        made_twice = len(steps) - len(set(steps))
        assert lost <= 1 and made_twice <= plan.training(run).checkpoint_every


def test_a_run_that_another_process_has_claimed_is_left_to_it(token_set, tmp_path, monkeypatch):
    plan = planned(token_set, tmp_path)
    monkeypatch.setattr(queue, "train", lambda *_: pytest.fail("it was taken"))
    run = plan.runs()[0]
    directory = queue.run_directory(tmp_path, run)
    directory.mkdir(parents=True)
    with (directory / "claim").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert queue.make_run(tmp_path, plan, run) == queue.TAKEN
    assert not (directory / "result.json").exists()


@pytest.mark.parametrize("how", ["not finite", "worse than chance"])
def test_a_diverged_run_is_done_and_named(token_set, tmp_path, monkeypatch, how):
    plan = planned(token_set, tmp_path)
    run = plan.runs()[0]
    steps = plan.training(run).steps

    def train(config, sets, workdir, quiet):
        losses = {"step": steps, "validation_loss": 6.3, "validation_loss_per_codebook": [6.3]}  # ln 500 = 6.2
        (workdir / "metrics.jsonl").write_text(json.dumps(losses) + "\n")
        if how == "not finite":
            raise loop.NotFinite("at step 3")

    monkeypatch.setattr(queue, "train", train)
    assert queue.make_run(tmp_path, plan, run) == "diverged"
    first, *others = queue.collect(tmp_path, plan)
    assert first.status == "diverged" and first.loss is None and first.curve == [[run.tokens, 6.3]]
    assert {run.status for run in others} == {"unfinished"}


def test_on_ray_every_run_is_a_task(token_set, tmp_path, monkeypatch, capsys):
    planned(token_set, tmp_path)
    made = []

    def do_all(function, indices, workers, *, on_ray, ray_gpus):
        assert on_ray and ray_gpus == 0.25
        for index in indices:
            yield index, function(index)

    monkeypatch.setattr(work, "do_all", do_all)
    monkeypatch.setattr(queue, "make_run", lambda workdir, plan, run, quiet: made.append((workdir, run.index, quiet)))
    sweep.main(["run", "--workdir", str(tmp_path), "--all", "--ray", "--ray-gpus", "0.25"])
    assert made == [(tmp_path, 1, True), (tmp_path, 0, True), (tmp_path, 2, True)]  # the longest first, held out last
    assert "3 unfinished" in capsys.readouterr().out


def test_a_sweep_can_be_extended_but_not_changed(made, token_set, tmp_path, capsys):
    os.symlink(made / "runs", tmp_path / "runs")
    (tmp_path / "plan.json").write_bytes((made / "plan.json").read_bytes())
    plan = planned(token_set, tmp_path, CONFIG.replace("(4_000, 8_000)", "(2_000, 4_000, 8_000)"))
    assert [run.status for run in queue.collect(tmp_path, plan)].count("unfinished") == 1
    printed = capsys.readouterr().out
    assert "on one cpu" in printed and printed.startswith((tmp_path / "plan.txt").read_text())
    with pytest.raises(InputError, match=r"another clip_norm.*new --workdir"):
        planned(
            token_set, tmp_path, CONFIG.replace("return config", "config.training.clip_norm = 2.0\n    return config")
        )


def test_messages_for_bad_arguments(token_set, tmp_path):
    arguments = ["--data", str(token_set), "--workdir", str(tmp_path)]
    for command, message in (
        (["plan", "--config", "none.py", *arguments], "none.py cannot be used"),
        (["plan", "--data", "nowhere", "--workdir", str(tmp_path)], "nowhere is not a folder"),
        (["plan", "--device", "abacus", *arguments], "abacus; expected one of .*cpu"),
        (["run", "--index", "0", "--workdir", str(tmp_path)], "plan first"),
        (["fit", "--workdir", str(tmp_path)], "plan first"),
    ):
        with pytest.raises(InputError, match=message):
            sweep.main(command)
    planned(token_set, tmp_path)
    for command, message in (
        (["run", "--index", "99"], "expected 0 to 2"),
        (["run", "--all", "--workers", "0"], "at least 1"),
        (["plot"], "fit first"),
    ):
        with pytest.raises(InputError, match=message):
            sweep.main([*command, "--workdir", str(tmp_path)])
