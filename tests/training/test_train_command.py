"""The training command as a user runs it: signals, exit codes, a mixture, a trace, --verify. Sizes are tiny."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import ROOT, read_lines, write_token_set
from helpers.training_runs import ENVIRONMENT

from configs.base import get_config
from hafm_jax import train
from hafm_jax.common import cache
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.model.config import SIZES, Size, num_parameters
from hafm_jax.training import hosts, loop
from hafm_jax.training.workdir import load_run

TINY = """
from hafm_jax import train
from hafm_jax.common.errors import run_command
from hafm_jax.model.config import SIZES, Size
SIZES["tiny"] = Size(32, 1, 2)
run_command(train.main)
"""
FIELDS = {"size": "tiny", "stage": "coarse", "window_cells": 2, "compute_dtype": "float32", "remat": "none"}
FIELDS |= {"batch_size": 3, "steps": 200, "warmup_steps": 2, "log_every": 1, "eval_every": 200, "eval_batches": 1}
FIELDS |= {"checkpoint_every": 40}


def start(*arguments: object, devices: int = 1) -> subprocess.Popen:
    flags, fields = os.environ["XLA_FLAGS"], [f"--config.{name}={value}" for name, value in FIELDS.items()]
    return subprocess.Popen(
        [sys.executable, "-c", TINY, "--config", "configs/base.py", *fields, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background processes ignore it
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """(exit code, standard output, the last line of standard error)."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err.rstrip().split("\n")[-1]


@pytest.fixture
def here(monkeypatch, capsys) -> Iterator[Callable]:
    """Run the command in this process: arguments -> (exit code, standard output, standard error)."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(ROOT)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        code = 0
        try:
            run_command(train.main)
        except SystemExit as ended:
            code = ended.code or 0
        return code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


def logged(workdir: Path) -> list[dict]:
    return [line for line in read_lines(workdir / "metrics.jsonl") if "loss" in line]


def stop(process: subprocess.Popen, number: int, workdir: Path, step: int) -> tuple[int, str, str]:
    """Send the signal once `step` is logged."""
    while process.poll() is None and not any(line["step"] >= step for line in logged(workdir)):
        time.sleep(0.01)
    process.send_signal(number)
    return finish(process)


@pytest.fixture(scope="module")
def token_sets(tmp_path_factory) -> list[Path]:
    directory = tmp_path_factory.mktemp("tokens")
    return [write_token_set(directory / f"set{k}", 10 * k, num_cells=4) for k in range(2)]


@pytest.mark.slow
def test_a_stopped_run_resumes_when_started_again(token_sets, tmp_path):
    workdir = tmp_path / "run"
    mixture = ["--data", f"{token_sets[0]}=2", "--data", f"{token_sets[1]}=1", "--workdir", workdir]

    first = before = 0
    for number, exit_code, word in ((signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "preempted")):
        code, out, error = stop(start(*mixture), number, workdir, first + 50)
        assert code == exit_code
        assert f"from step {first}" in out
        saved = int(re.fullmatch(rf"{word}: step (\d+) of 200 is saved in .*; run the same command again", error)[1])
        assert [line["step"] for line in logged(workdir)[before:]] == list(range(first + 1, saved + 1))
        first, before = saved, len(logged(workdir))

    profiled = start(*mixture, "--config.profile_steps=2")
    code, out, _ = finish(profiled)
    assert code == 0 and f"from step {saved}" in out
    assert [line["step"] for line in logged(workdir)] == list(range(1, 201))  # no step is made twice
    assert len(list((workdir / "profile").rglob("*.xplane.pb"))) == 1
    assert [entry["weight"] for entry in json.loads((workdir / "config.json").read_text())["data"]["sets"]] == [2, 1]


def test_sigterm_before_the_first_step_asks_to_be_started_again(monkeypatch, here):
    def starting(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(hosts, "join", starting)
    monkeypatch.setattr(cache, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("it trained"))
    code, _, error = here("--config=configs/base.py", "--data=tokens", "--workdir=run")
    assert code == 75 and error.endswith("run the same command again\n")


def test_a_run_on_two_devices_is_exported_on_one(token_sets, tmp_path, monkeypatch):
    fields = ["--config.steps=2", "--config.batch_size=2", "--config.mesh.fsdp=2"]
    code, out, _ = finish(start("--data", token_sets[0], "--workdir", tmp_path / "run", *fields, devices=2))
    assert code == 0 and "mesh data 1 x fsdp 2 x tensor 1" in out
    monkeypatch.setitem(SIZES, "tiny", Size(32, 1, 2))
    weights = load_run(tmp_path / "run")
    assert sum(x.size for x in jax.tree.leaves(weights.params)) == num_parameters(weights.config)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(weights.params))


def test_verify_reports_damage(token_sets, tmp_path, here):
    code, out, _ = here("--data", token_sets[0], "--verify", "--config.steps=2")
    assert code == 0 and "train: 4 songs are whole" in out and "validation: 2 songs are whole" in out

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in token_sets[0].iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (shard,) = damaged.glob("*train.tfrecord*")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    code, _, error = here("--data", damaged, "--verify")
    assert code == 2 and shard.name in error and "byte 0" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir", "run"], "--data is missing"),
        (["--data", "tokens=much", "--workdir", "run"], "'much' is not a weight"),
        (["--config.nosuch=1", "--data", "tokens", "--workdir", "run"], "'nosuch'"),
        (["--config", "configs/none.py", "--data", "tokens", "--workdir", "run"], "configs/none.py"),
        (["--data", "tokens", "more", "--workdir", "run"], "'more' belongs to no option"),
        (["--config.steps=many", "--data", "tokens", "--workdir", "run"], "steps"),
        (["--num-processes=two", "--data", "tokens", "--workdir", "run"], "--num-processes"),
    ],
)
def test_bad_arguments_end_with_one_line_and_exit_code_two(arguments, message, here):
    code, _, error = here(*arguments)
    assert code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_help_names_inputs_outputs_and_defaults(here):
    code, out, _ = here("--help")
    assert code == 0
    assert all(word in out for word in ("Reads", "Writes", "default", "--data", "--workdir", "--verify"))


@pytest.mark.parametrize("form", ["--num-processes=2 --process-id=1", "--num_processes 2 --process_id 1"])
def test_processes_are_numbered_in_either_spelling(form, monkeypatch, here):
    joined = []
    monkeypatch.setattr(hosts, "join", lambda *arguments: joined.append(arguments))
    monkeypatch.setattr(cache, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(loop, "train", lambda config, sets, workdir: joined.append((config.steps, sets, workdir)))
    command = ["--config", "configs/demo.py:coarse,2", "--config.steps", "5", "--coordinator=a:1", *form.split()]
    code, _, error = here(*command, "--data", "a=2", "--data=b", "--workdir", "run")
    assert code == 0, error
    assert joined == [("a:1", 2, 1), (5, [(Path("a"), 2.0), (Path("b"), 1.0)], Path("run"))]


OUT_OF_RANGE = {"steps": 0, "log_every": 0, "accumulate_steps": 0, "condition_dropout": 1.5, "history_corruption": 1.0}
OUT_OF_RANGE |= {"learning_rate": float("nan"), "clip_norm": 0.0, "beta2": 1.0, "seed": -1, "remat": "all"}
OUT_OF_RANGE |= {"compute_dtype": "float16"}


@pytest.mark.parametrize("field", OUT_OF_RANGE)
def test_values_out_of_range_are_refused_before_anything_is_read(field, tmp_path):
    config = get_config()
    config[field] = OUT_OF_RANGE[field]
    with pytest.raises(InputError, match=rf"{field} is .*; expected"):
        loop.train(config, [(tmp_path / "nothing", 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()
