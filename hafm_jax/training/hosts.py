"""The processes of one training run: how they find each other, agree, and notice that a machine goes away."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from hafm_jax.common.errors import InputError

RESTART_EXIT_CODE = 75  # sysexits' EX_TEMPFAIL: nothing is lost, start the same command again
NOT_BEGUN = "preempted: no step was under way; run the same command again"
# Signal -> exit code and message, before the first step.
ENDS = {signal.SIGTERM: (RESTART_EXIT_CODE, NOT_BEGUN), signal.SIGINT: (130, "interrupted")}


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the run's other processes, once, before anything asks JAX for its devices.

    Under a launcher that JAX recognises (TPU pods, GKE, SLURM steps, Open MPI) no argument is needed. Without one, and
    without arguments, this process runs alone. Raises InputError where the others cannot be found.
    """
    given = [coordinator, num_processes, process_id]
    if any(x is not None for x in given) and any(x is None for x in given):
        raise InputError("--coordinator, --num-processes and --process-id go together: give all three or none")
    if coordinator is None and os.environ.get("SLURM_NTASKS") == "1":
        return  # JAX would give a task of a SLURM step only one GPU, even where it is alone on the node
    try:
        with _ending_at_once():
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        if "coordinator_address should be defined" not in str(error):  # JAX's message where there is no launcher
            raise InputError(f"the processes of this run cannot be joined: {error}") from error
    except RuntimeError as error:
        raise InputError(f"the processes of this run did not find each other: {str(error).splitlines()[0]}") from error


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """End the process on SIGTERM or Ctrl-C while it waits for the others, for minutes in C++, where Python runs no
    handler. Python's own part of a handler still writes the signal's number to a file descriptor: a thread reads it.
    On Windows that would have to be a socket; there, they wait."""
    if sys.platform == "win32":
        yield
        return
    to_read, to_write = os.pipe()
    os.set_blocking(to_write, False)

    def watch() -> None:
        while number := os.read(to_read, 1):
            if number[0] in ENDS:
                code, message = ENDS[number[0]]
                os.write(sys.stderr.fileno(), f"{message}\n".encode())
                os._exit(code)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(to_write, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(to_write)
        watcher.join()
        os.close(to_read)


def is_first() -> bool:
    """Whether this process writes the files that a run writes once."""
    return jax.process_index() == 0


def all_of(condition: bool) -> bool:
    """Whether the condition holds on every process. All of them must call this."""
    if jax.process_count() == 1:
        return condition
    return bool(multihost_utils.process_allgather(np.array(condition)).all())


def check_equal(value: str, what: str) -> None:
    """Raises InputError unless all processes have the same value, a hexadecimal digest. All of them must call this."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(bytes.fromhex(value), np.uint8)
    if not (multihost_utils.process_allgather(digest) == digest).all():
        raise InputError(f"{what} is not the same on all {jax.process_count()} hosts: copy it again")


class Preemption:
    """Catches SIGTERM, the signal of schedulers and clouds that a machine goes away, and the user's Ctrl-C.

    The run asks for it between two steps: an exception in the middle of saving or logging would leave locks that are
    never released. A second Ctrl-C ends the process at once.
    """

    def __init__(self):
        self.interrupted = False  # by Ctrl-C, here
        self._signalled = False
        # Among several processes JAX catches SIGTERM and informs the others; a single process has no such service.
        self._alone = jax.process_count() == 1
        self._before = {}
        if self._alone:
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_signal)
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a shell's background jobs ignore it
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self._signalled = True
        if number == signal.SIGINT:
            self.interrupted = True
            os.write(sys.stderr.fileno(), b"\nsaving after this step; Ctrl-C again ends at once\n")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if not self._alone:
                os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to save after `step` and end: on every process at the same step. Must be called at each step."""
        return self._signalled if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
