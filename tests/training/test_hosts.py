"""Whole runs of the training command, in processes that end as machines do: killed, told to stop, joined by another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers import read_lines
from helpers.training_runs import (
    ENVIRONMENT,
    STEPS,
    finish,
    free_address,
    losses,
    start,
    start_two,
    token_set_of,
    wait_for_step,
)
from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.model import sharding
from hafm_jax.training import hosts
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.step import ShardedStep


@pytest.fixture(scope="module")
def token_set(tmp_path_factory, tokenizers):
    return token_set_of(tmp_path_factory.mktemp("tokens"), tokenizers)


def kill_after_a_checkpoint(workdir, *processes):
    """Kill the run and return the step of its last checkpoint."""
    while not list(workdir.glob("checkpoints/[0-9]*[0-9]")):  # until it is complete it has another name
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.02)
    for process in processes:
        process.kill()
        process.communicate()
    latest = Checkpoints(workdir, None).latest()
    assert 0 < latest < STEPS
    return latest


def last_state(workdir):
    """The state at the end, restored on one device."""
    config = ConfigDict(json.loads((workdir / "config.json").read_text())["config"])
    shapes = ShardedStep(config, sharding.make_mesh(-1, 1, 1)).state_shapes
    checkpoints = Checkpoints(workdir, None)
    step, state = checkpoints.restore_latest(shapes)
    checkpoints.close()
    assert step == STEPS
    return jax.tree.leaves(state)


@pytest.fixture(scope="module")
def whole(token_set, tmp_path_factory):
    """A run that is not disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(token_set, workdir))
    assert sorted(losses(workdir)) == list(range(1, STEPS + 1))
    return workdir


@pytest.fixture(scope="module")
def whole_of_two(token_set, tmp_path_factory):
    """The same run by two processes that divide the state."""
    workdir = tmp_path_factory.mktemp("whole_of_two")
    first, second = finish(*start_two(token_set, workdir, "--config.mesh.fsdp=2"))
    assert "mesh data 1 x fsdp 2 x tensor 1" in first and "mesh" not in second  # only the first one prints
    return workdir


def assert_same_run(workdir, whole):
    """Bit for bit: every step's loss, and the state at the end."""
    assert losses(workdir) == losses(whole)
    for a, b in zip(last_state(workdir), last_state(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_killed_run_resumes_bit_for_bit(token_set, whole, tmp_path):
    saved = kill_after_a_checkpoint(tmp_path, start(token_set, tmp_path))
    assert f"from step {saved}" in finish(start(token_set, tmp_path))[0]
    assert_same_run(tmp_path, whole)


def test_on_sigterm_it_saves_and_exits_to_be_started_again(token_set, whole, tmp_path):
    process = start(token_set, tmp_path)
    wait_for_step(tmp_path, 7, process)
    process.send_signal(signal.SIGTERM)
    (printed,) = finish(process, code=hosts.RESTART_EXIT_CODE)
    saved = Checkpoints(tmp_path, None).latest()
    assert saved >= 7 and f"preempted: step {saved} of {STEPS} is saved" in printed
    assert f"from step {saved}" in finish(start(token_set, tmp_path))[0]
    assert_same_run(tmp_path, whole)


def test_a_damaged_checkpoint_is_skipped(token_set, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    for file in (checkpoints / str(STEPS)).rglob("d/*"):
        with file.open("r+b") as damaged:
            damaged.truncate(file.stat().st_size // 2)
    (printed,) = finish(start(token_set, tmp_path / "run"))
    assert f"checkpoint {STEPS} in {checkpoints} is damaged and skipped" in printed and "from step 15" in printed
    assert (checkpoints / f"damaged-{STEPS}").is_dir()
    assert_same_run(tmp_path / "run", whole)


def test_two_processes_train_as_one(whole, whole_of_two):
    expected, found = losses(whole), losses(whole_of_two)
    assert found.keys() == expected.keys()
    # The same batches and the same randomness; gradients are summed in another order.
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-4)


@pytest.mark.slow
def test_two_processes_end_at_the_same_step_and_resume(token_set, whole_of_two, tmp_path):
    processes = start_two(token_set, tmp_path, "--config.mesh.fsdp=2")
    wait_for_step(tmp_path, 7, *processes)
    processes[1].send_signal(signal.SIGTERM)  # one machine goes away; both must save
    finish(*processes, code=hosts.RESTART_EXIT_CODE)
    assert 7 <= Checkpoints(tmp_path, None).latest() < STEPS
    finish(*start_two(token_set, tmp_path, "--config.mesh.fsdp=2"))
    assert_same_run(tmp_path, whole_of_two)


@pytest.mark.slow
def test_one_process_resumes_a_run_of_two(token_set, whole, tmp_path):
    saved = kill_after_a_checkpoint(tmp_path, *start_two(token_set, tmp_path))
    assert f"from step {saved}" in finish(start(token_set, tmp_path))[0]
    np.testing.assert_allclose(losses(tmp_path)[STEPS], losses(whole)[STEPS], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_is_killed_at_random_times_ends_bit_for_bit(seed, token_set, whole, tmp_path):
    rng = np.random.default_rng(seed)
    kills = 0
    while kills < 4:
        process = start(token_set, tmp_path, "--config.checkpoint_every=1")
        wait_for_step(tmp_path, max(losses(tmp_path), default=0) + 1, process)
        if rng.random() < 0.5:  # while a checkpoint is written
            while process.poll() is None and not list(tmp_path.glob("checkpoints/*tmp*")):
                pass
        time.sleep(rng.uniform(0, 0.05))
        ended = process.poll()
        process.kill()
        printed = process.communicate()[0]
        assert ended in (None, 0), printed
        if ended == 0:
            break
        kills += 1
    finish(start(token_set, tmp_path, "--config.checkpoint_every=1"))
    assert_same_run(tmp_path, whole)
    steps = [line["step"] for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, STEPS + 1))  # no step is logged twice
    assert not list(tmp_path.glob("checkpoints/*tmp*"))


JOINING = """
import signal, sys
from hafm_jax.training import hosts
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
print("joining", flush=True)
hosts.join(sys.argv[1], 2, 0)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, hosts.RESTART_EXIT_CODE), (signal.SIGINT, 130)])
def test_a_process_that_waits_for_the_others_ends_at_once(number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", JOINING, free_address()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    assert process.stdout.readline() == "joining\n"
    time.sleep(1)  # it is in C++ then, or will be
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == code
    assert error.splitlines()[-1] == hosts.ENDS[number][1]


def test_hosts_with_different_data_are_refused(monkeypatch):
    of_the_other = np.array([0x00, 0xFF], np.uint8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", lambda mine: np.stack([mine, of_the_other]))
    hosts.check_equal("00ff", "the token set")
    with pytest.raises(InputError, match="the token set is not the same on all 2 hosts"):
        hosts.check_equal("00fe", "the token set")
