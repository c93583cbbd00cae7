"""Independent tasks, done in this process, by a pool of processes, or by a Ray cluster.

A task is done when its output is there: its function checks that and does nothing twice. So a run that was killed
resumes when it is started again, on whichever machine.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from hafm_jax.common.errors import InputError, first_line, install, needed_for

Task = TypeVar("Task")
RAY_RETRIES = 3  # of a task whose worker or machine went away
RAY_GPUS = "1 where the cluster has GPUs"


def do_all(
    function: Callable[[Task], Any],
    tasks: Sequence[Task],
    workers: int,
    *,
    num_gpus: int = 0,
    on_ray: bool = False,
    ray_gpus: float | None = None,
    ray_batch: int = 1,
) -> Generator[tuple[Task, Any]]:
    """(task, function(task)) of every task, in the order in which they end. `function` must be picklable and raise
    nothing but InputError.

    One worker is this process itself. Several are processes that divide the machine's cores and take its `num_gpus` in
    turn, one each. On Ray, `ray_batch` tasks run together, again where their worker went away, with `ray_gpus` GPUs
    (None: RAY_GPUS); with 0, all workers of a machine see all of its GPUs and use the first. A Ray worker with a GPU
    ends after its batch: put small tasks that need a large model into one batch. Closing the generator ends the work;
    it returns when the tasks that have begun are done. Raises InputError where a local worker was killed.
    """
    if on_ray:
        yield from _on_ray(function, tasks, ray_gpus, ray_batch)
    elif workers == 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, function(task)
    else:
        yield from _in_processes(function, tasks, min(workers, len(tasks)), num_gpus)


@contextmanager
def on_device(what: str) -> Generator[None]:
    """Turn a RuntimeError, which torch, XLA and ONNX Runtime raise where a device's memory is full or the device gone,
    into an InputError. It is not a fault of the task, which the next run does again."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"{what} failed ({first_line(error)}); expected a device with memory to spare: end what else runs on it, "
            "with fewer --workers, and run the same command again; what is finished stays"
        ) from error


def gpus_here() -> int:
    """The number of GPUs that torch can use on this machine; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


def _in_processes(
    function: Callable[[Task], Any], tasks: Sequence[Task], workers: int, num_gpus: int
) -> Generator[tuple[Task, Any]]:
    context = multiprocessing.get_context("spawn")  # a process forked under threads of JAX or torch may deadlock
    pool = ProcessPoolExecutor(workers, context, _start_worker, (context.Value("i", 0), num_gpus))
    try:
        with environment(OMP_NUM_THREADS=str(max(1, (os.cpu_count() or 1) // workers))):
            running = {pool.submit(function, task): task for task in tasks}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, as happens where memory runs out: run the same command again, with fewer "
            "--workers; what is finished stays"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after an error or Ctrl-C no further task begins


@contextmanager
def environment(**variables: str) -> Generator[None]:
    """Set variables for processes that start in the block: libraries read the number of threads on import."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def _start_worker(number: Any, num_gpus: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends the workers
    threading.Thread(target=end_with_parent, daemon=True).start()
    if num_gpus:
        with number.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = str(number.value % num_gpus)
            number.value += 1


def end_with_parent() -> None:
    """End this process when its parent ends: workers of a killed parent would wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _on_ray(
    function: Callable[[Task], Any], tasks: Sequence[Task], gpus: float | None, batch: int
) -> Generator[tuple[Task, Any]]:
    with needed_for("Ray is not installed", install("ray")):
        import ray
    ray.init(log_to_driver=False, ignore_reinit_error=True)  # the cluster of RAY_ADDRESS, or one on this machine
    try:
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        remote = ray.remote(max_retries=RAY_RETRIES, num_gpus=gpus)(lambda together: [function(t) for t in together])
        batches = [tasks[start : start + batch] for start in range(0, len(tasks), batch)]
        running = {remote.remote(together): together for together in batches}
        while running:
            (done, *_), _ = ray.wait(list(running))
            try:
                results = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"a task's worker went away {RAY_RETRIES + 1} times ({error}); expected machines that stay up: run "
                    "the same command again"
                ) from error
            yield from zip(running.pop(done), results, strict=True)
    finally:
        ray.shutdown()
