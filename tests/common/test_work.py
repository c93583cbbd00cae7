"""Tasks in this process, in a pool, and on a real Ray cluster on this machine, with workers that die."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from hafm_jax.common import work
from hafm_jax.common.errors import InputError


def square(folder: Path, number: int) -> int:
    (folder / f"{number}-{os.getpid()}").touch()
    return number * number


def die_once(folder: Path, number: int) -> int:
    """Number 2 takes its worker with it, the first time."""
    if number == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def refuse(number: int) -> int:
    if number == 3:
        raise InputError("3 is no good")
    return number


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_is_done_once(workers, tmp_path):
    found = dict(work.do_all(partial(square, tmp_path), range(7), workers))
    assert found == {n: n * n for n in range(7)}
    calls = [path.name.split("-") for path in tmp_path.iterdir()]
    assert sorted(number for number, _ in calls) == [str(n) for n in range(7)]
    processes = {process for _, process in calls}
    assert processes == {str(os.getpid())} if workers == 1 else str(os.getpid()) not in processes


def test_workers_divide_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"] * 20
    found = [value for _, value in work.do_all(os.getenv, names, 3, num_gpus=2)]
    assert set(found) <= {"0", "1", "4"} and "4" in found


def test_a_killed_worker_of_a_pool_is_reported(tmp_path):
    with pytest.raises(InputError, match="a worker process was killed"):
        list(work.do_all(partial(die_once, tmp_path), range(4), 2))
    assert dict(work.do_all(partial(die_once, tmp_path), range(4), 2)) == {n: n * n for n in range(4)}


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_ends_the_work(workers):
    with pytest.raises(InputError, match="no good"):
        list(work.do_all(refuse, range(6), workers))


def test_a_device_that_fails_is_reported_with_advice():
    with pytest.raises(InputError, match=r"separating x failed \(CUDA out of memory\); .* same command again"):
        with work.on_device("separating x"):
            raise RuntimeError("CUDA out of memory.\nTried to allocate more.")


@pytest.fixture
def ray(ray_cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)


def test_on_ray_a_task_whose_worker_was_killed_is_done_again(ray, tmp_path):
    done = work.do_all(partial(die_once, tmp_path), range(5), 1, on_ray=True, ray_batch=2)
    assert dict(done) == {n: n * n for n in range(5)}
    assert (tmp_path / "died").exists()


def test_on_ray_bad_input_ends_the_work(ray):
    with pytest.raises(InputError, match="no good"):
        list(work.do_all(refuse, range(6), 1, on_ray=True))


@pytest.mark.parametrize("gpus, asked, expected", [(0, None, 0), (8, None, 1), (8, 0.5, 0.5), (8, 0.0, 0)])
def test_the_options_of_ray_tasks(monkeypatch, gpus, asked, expected):
    """By default a task has one GPU where the cluster has any; with 0, all share the first."""
    told, batches = {}, []

    def remote(**options):
        told.update(options)
        return lambda function: SimpleNamespace(remote=lambda batch: batches.append(batch) or partial(function, batch))

    ray = SimpleNamespace(
        init=lambda **_: None,
        shutdown=lambda: None,
        cluster_resources=lambda: {"CPU": 4.0, "GPU": float(gpus)} if gpus else {"CPU": 4.0},
        remote=remote,
        wait=lambda tasks: (tasks[:1], tasks[1:]),
        get=lambda task: task(),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    done = dict(work.do_all(abs, range(-3, 4), 1, on_ray=True, ray_gpus=asked, ray_batch=3))
    assert done == {n: abs(n) for n in range(-3, 4)} and [len(batch) for batch in batches] == [3, 3, 1]
    assert told == {"max_retries": work.RAY_RETRIES, "num_gpus": expected}
