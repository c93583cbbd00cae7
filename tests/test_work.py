"""Pieces of work in this process, in a pool, and on a real Ray cluster on this machine, with workers that die."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from hafm_jax import work
from hafm_jax.errors import InputError


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
def test_every_piece_is_done_once(workers, tmp_path):
    found = dict(work.do_all(partial(square, tmp_path), range(7), workers))
    assert found == {n: n * n for n in range(7)}
    calls = [path.name.split("-") for path in tmp_path.iterdir()]
    assert sorted(number for number, _ in calls) == [str(n) for n in range(7)]
    processes = {process for _, process in calls}
    assert processes == {str(os.getpid())} if workers == 1 else str(os.getpid()) not in processes


def test_workers_share_out_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"] * 20
    found = [value for _, value in work.do_all(os.getenv, names, 3, num_gpus=2)]
    assert set(found) <= {"0", "1", "4"} and "4" in found


def test_a_killed_worker_of_a_pool_is_said(tmp_path):
    with pytest.raises(InputError, match="a worker process was killed"):
        list(work.do_all(partial(die_once, tmp_path), range(4), 2))
    assert dict(work.do_all(partial(die_once, tmp_path), range(4), 2)) == {n: n * n for n in range(4)}


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_ends_the_work(workers):
    with pytest.raises(InputError, match="no good"):
        list(work.do_all(refuse, range(6), workers))


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="needs the extra hafm_jax[ray]")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        # Its workers unpickle functions by name, so they must find this module.
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        yield ray


def test_on_ray_a_piece_whose_worker_was_killed_is_done_again(ray, tmp_path):
    assert dict(work.do_all(partial(die_once, tmp_path), range(4), 1, on_ray=True)) == {n: n * n for n in range(4)}
    assert (tmp_path / "died").exists()


def test_on_ray_bad_input_ends_the_work(ray):
    with pytest.raises(InputError, match="no good"):
        list(work.do_all(refuse, range(6), 1, on_ray=True))
