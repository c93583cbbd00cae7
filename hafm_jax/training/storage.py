"""The work directory as storage: one training at a time writes to it, and a full disk is called one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import ENOSPC
from pathlib import Path

from hafm_jax.common.errors import InputError, OutputError, first_line
from hafm_jax.common.resume import NoLocks, claim
from hafm_jax.training import hosts

LOCK_FILE = "lock"
REFUSED = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", os.strerror(ENOSPC))  # in messages of Orbax's storage


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the block raises because `path` cannot be written into OutputError."""
    try:
        yield
    except Exception as error:  # Orbax raises OSError, ValueError and others
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif any(word in str(error) for word in REFUSED):
            reason = os.strerror(ENOSPC) if REFUSED[0] in str(error) else first_line(error)
        else:
            raise
        if reason == os.strerror(ENOSPC):
            reason = f"the disk is full: {reason}"
        raise OutputError(f"cannot write {path} ({reason})") from error


@contextmanager
def claim_workdir(workdir: Path) -> Iterator[None]:
    """Keep other trainings out of `workdir` until the block or the process ends. The first process of the run claims it
    for all of them, and all of them must call this. Raises InputError where another training has it.

    Where the file system has no locks, as with gcsfuse, it only says so.
    """
    with ExitStack() as held:
        mine = True
        if hosts.is_first():
            try:
                mine = held.enter_context(claim(workdir / LOCK_FILE))
            except NoLocks as error:
                print(f"warning: {error}; take care that no other training uses {workdir}", file=sys.stderr)
        if not hosts.all_of(mine):
            raise InputError(
                f"{workdir} is in use by another training; expected one at a time: wait until it ends, or give another "
                "--workdir"
            )
        yield
