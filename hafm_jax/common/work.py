"""Independent pieces of work, done here, by a pool of processes, or by a Ray cluster.

A piece is done when what it writes is there: its function looks, and does nothing twice. So a run that was killed goes
on when it is started again, and it does not matter which machine did what.
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

from hafm_jax.common.errors import InputError

Piece = TypeVar("Piece")
RAY_RETRIES = 3  # of a piece whose worker, or whose machine, went away
RAY_GPUS = "1 where the cluster has GPUs"


def do_all(
    function: Callable[[Piece], Any],
    pieces: Sequence[Piece],
    workers: int,
    *,
    num_gpus: int = 0,
    on_ray: bool = False,
    ray_gpus: float | None = None,
    ray_batch: int = 1,
) -> Generator[tuple[Piece, Any]]:
    """(piece, function(piece)) of every piece, as they are done. `function` can be pickled, and raises no more than
    InputError.

    One worker is this process itself; several are processes that share out the machine's cores and, one each in turn,
    its `num_gpus`. On Ray, `ray_batch` pieces are a task, tried again where its worker went away. It has `ray_gpus`
    (None: RAY_GPUS); with 0, all tasks of a machine see all of its GPUs and take the first. A worker with a GPU lasts
    for one task: small pieces that need large models belong together. To close the generator ends the work: it returns
    when the pieces that were begun are done. Raises InputError where a local worker was killed.
    """
    if on_ray:
        yield from _on_ray(function, pieces, ray_gpus, ray_batch)
    elif workers == 1 or len(pieces) <= 1:
        for piece in pieces:
            yield piece, function(piece)
    else:
        yield from _in_processes(function, pieces, min(workers, len(pieces)), num_gpus)


@contextmanager
def on_device(what: str) -> Generator[None]:
    """Turns a RuntimeError, as torch, XLA and ONNX Runtime have it where a device's memory is full or the device gone,
    into an InputError: no fault of the piece, which the next run does again."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"{what} failed ({reason}); expected a device with memory to spare: end what else runs on it, with fewer "
            "--workers, and run the same command again; what is finished stays"
        ) from error


def gpus_here() -> int:
    """GPUs that torch could use on this machine, where there is torch."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


def _in_processes(
    function: Callable[[Piece], Any], pieces: Sequence[Piece], workers: int, num_gpus: int
) -> Generator[tuple[Piece, Any]]:
    context = multiprocessing.get_context("spawn")  # what was forked under threads of JAX or torch may lock up
    pool = ProcessPoolExecutor(workers, context, _start_worker, (context.Value("i", 0), num_gpus))
    try:
        with _environment("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers))):
            running = {pool.submit(function, piece): piece for piece in pieces}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, as happens where memory runs out: run the same command again, with fewer "
            "--workers; what is finished stays"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after an error or Ctrl-C the rest is not begun


@contextmanager
def _environment(name: str, value: str) -> Generator[None]:
    """For processes that begin in it: a worker's libraries count threads when it imports them, before all else."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _start_worker(number: Any, num_gpus: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent: it ends the workers
    threading.Thread(target=end_with_parent, daemon=True).start()
    if num_gpus:
        with number.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = str(number.value % num_gpus)
            number.value += 1


def end_with_parent() -> None:
    """A parent that is killed tells nobody, and its workers would wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _on_ray(
    function: Callable[[Piece], Any], pieces: Sequence[Piece], gpus: float | None, batch: int
) -> Generator[tuple[Piece, Any]]:
    try:
        import ray
    except ImportError as error:
        raise InputError(f'Ray is not installed ({error}): pip install "hafm_jax[ray]"') from error
    ray.init(log_to_driver=False, ignore_reinit_error=True)  # the cluster of RAY_ADDRESS, or one on this machine
    try:
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        task = ray.remote(max_retries=RAY_RETRIES, num_gpus=gpus)(lambda together: [function(p) for p in together])
        batches = [pieces[start : start + batch] for start in range(0, len(pieces), batch)]
        running = {task.remote(together): together for together in batches}
        while running:
            (done, *_), _ = ray.wait(list(running))
            try:
                results = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except ray.exceptions.RayError as error:
                raise InputError(f"a piece of work was lost {RAY_RETRIES + 1} times: {error}; run again") from error
            yield from zip(running.pop(done), results, strict=True)
    finally:
        ray.shutdown()
