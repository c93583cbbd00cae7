"""How stopped work resumes, the same way everywhere.

run.json    the arguments of the work: only the same arguments continue a folder
a task      is done when its file is there; files are written whole or not at all
a claim     is a locked file: one of several processes has the task until it ends, however it ends
a log       has one line for each record; only whole lines count
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, write_bytes, write_json
from hafm_jax.common.system import lock

RUN_FILE = "run.json"


class NoLocks(InputError):
    """A file system has no locks."""


def check_same_run(folder: Path, run: dict[str, Any]) -> None:
    """Write the arguments of the work in `folder` to run.json. Raises InputError where it was begun with others."""
    path = folder / RUN_FILE
    if not path.exists():
        write_json(path, run)
        return
    found = read_json(path, "a run's arguments: choose another folder")
    for name in sorted(found.keys() | run.keys()):
        if found.get(name) != run.get(name):
            raise InputError(
                f"{folder} was begun with {name} {found.get(name)!r}, this run has {run.get(name)!r}; expected the "
                "same: give the same arguments, or another folder"
            )


@contextmanager
def claim(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone has the task of the lock file `path`, until the block or the process ends.

    The file is made where there is none, and stays. With `wait` it waits for the others, and is always True. Raises
    InputError where the file cannot be made, NoLocks where it cannot be locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}); expected a folder that can be written: choose another"
        ) from error
    with file:
        try:
            mine = lock(file, wait=wait)
        except OSError as error:
            raise NoLocks(
                f"the file system of {path} cannot lock files ({error.strerror}); expected one that can, as local "
                "disks, NFS and Lustre"
            ) from error
        yield mine


def whole_lines(path: Path) -> list[str]:
    """The whole lines of a log, without a last one that is still being written. [] where there is no file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def end_after_whole_line(path: Path) -> None:
    """Cut off the part of a last line that a kill left, so that the next record begins on its own line."""
    if path.exists() and (data := path.read_bytes()) != (whole := data[: data.rfind(b"\n") + 1]):
        write_bytes(path, whole)
