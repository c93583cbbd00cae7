"""The training command as a user runs it: signals, exit codes, a mixture, a trace, --verify. Sizes are tiny."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import CACHE, ROOT, write_token_set

from configs.base import get_config
from hafm_jax import train
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
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}


def start(*arguments: object, devices: int = 1) -> subprocess.Popen:
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    return subprocess.Popen(
        [sys.executable, "-c", TINY, "--config", "configs/base.py", *fields, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT | {"XLA_FLAGS": f"{ENVIRONMENT['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background processes ignore it
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """(exit code, standard output, the last line of standard error)."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err.rstrip().split("\n")[-1]


def logged(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one may be incomplete
    return [line for line in map(json.loads, lines) if "loss" in line]


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


def test_sigterm_before_the_first_step_asks_to_be_started_again(monkeypatch, capsys):
    def starting(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train", "--config=configs/base.py", "--data=tokens", "--workdir=run"])
    monkeypatch.setattr(hosts, "join", starting)
    monkeypatch.setattr(train, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it trained"))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            run_command(train.main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 75 and capsys.readouterr().err.endswith("run the same command again\n")


def test_a_run_on_two_devices_is_exported_on_one(token_sets, tmp_path, monkeypatch):
    fields = ["--config.steps=2", "--config.batch_size=2", "--config.mesh.fsdp=2"]
    code, out, _ = finish(start("--data", token_sets[0], "--workdir", tmp_path / "run", *fields, devices=2))
    assert code == 0 and "mesh data 1 x fsdp 2 x tensor 1" in out
    monkeypatch.setitem(SIZES, "tiny", Size(32, 1, 2))
    weights = load_run(tmp_path / "run")
    assert sum(x.size for x in jax.tree.leaves(weights.params)) == num_parameters(weights.config)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(weights.params))


def test_verify_reports_damage(token_sets, tmp_path):
    code, out, _ = finish(start("--data", token_sets[0], "--verify"))
    assert code == 0 and "train: 4 songs are whole" in out and "validation: 2 songs are whole" in out

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in token_sets[0].iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (shard,) = damaged.glob("*train.tfrecord*")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    code, _, error = finish(start("--data", damaged, "--verify"))
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
def test_bad_arguments_end_with_one_line_and_exit_code_two(arguments, message):
    process = start(*arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_help_teaches():
    command = [sys.executable, "-m", "hafm_jax.train", "--help"]
    out = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert all(word in out for word in ("Reads", "Writes", "default", "--data", "--workdir", "--verify"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("log_every", 0),
        ("accumulate_steps", 0),
        ("condition_dropout", 1.5),
        ("history_corruption", 1.0),
        ("learning_rate", float("nan")),
        ("clip_norm", 0.0),
        ("beta2", 1.0),
        ("seed", -1),
        ("compute_dtype", "float16"),
        ("remat", "all"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_read(field, value, tmp_path):
    config = get_config()
    config[field] = value
    with pytest.raises(InputError, match=rf"{field} is .*; expected"):
        loop.train(config, [(tmp_path / "nothing", 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()
