"""The processes of one training run: how they find each other, agree, and hear that their machines are going away."""

from __future__ import annotations

import os
import signal
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from hafm_jax.common.errors import InputError

RESTART_EXIT_CODE = 75  # sysexits' EX_TEMPFAIL: nothing is lost, start the same command again


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the run's other processes, once, before anything asks JAX for its devices.

    Where a launcher has said who they are (TPU pods, GKE, SLURM steps, Open MPI), JAX finds them by itself and no
    argument is needed; where there are none this process runs alone. Raises InputError where they cannot be found.
    """
    given = [coordinator, num_processes, process_id]
    if any(x is not None for x in given) and any(x is None for x in given):
        raise InputError("--coordinator, --num_processes and --process_id go together: give all three or none")
    if coordinator is None and os.environ.get("SLURM_NTASKS") == "1":
        return  # JAX would give a task of a SLURM step one GPU only, also where it is alone on the node
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        if "coordinator_address should be defined" not in str(error):  # what JAX says where no launcher speaks
            raise InputError(f"the processes of this run cannot be joined: {error}") from error
    except RuntimeError as error:
        raise InputError(f"the processes of this run did not find each other: {str(error).splitlines()[0]}") from error


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def all_of(condition: bool) -> bool:
    """Whether the condition holds on every process. All of them must ask."""
    if jax.process_count() == 1:
        return condition
    return bool(multihost_utils.process_allgather(np.array(condition)).all())


def check_equal(value: str, what: str) -> None:
    """Raises InputError unless all processes have the same value, a hexadecimal digest. All of them must ask."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(bytes.fromhex(value), np.uint8)
    if not (multihost_utils.process_allgather(digest) == digest).all():
        raise InputError(f"{what} is not the same on all {jax.process_count()} hosts: copy it again")


class Preemption:
    """SIGTERM, by which schedulers and clouds say that a machine goes away, or the user's Ctrl-C: both are heard, and
    acted on between two steps, since an exception in the middle of saving or logging leaves locks that nobody frees. A
    second Ctrl-C ends at once.
    """

    def __init__(self):
        self.interrupted = False  # by Ctrl-C, here
        self._heard = False
        # Among several processes JAX listens for SIGTERM, and spreads the word; alone there is no such service.
        self._alone = jax.process_count() == 1
        self._before = {}
        if self._alone:
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._hear)
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # ignored in what a shell runs in the background
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        self._heard = True
        if number == signal.SIGINT:
            self.interrupted = True
            os.write(sys.stderr.fileno(), b"\nsaving after this step; Ctrl-C again ends at once\n")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if not self._alone:
                os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to save after `step` and end: on every process at the same step. To be asked at each."""
        return self._heard if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
