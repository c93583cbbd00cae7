"""Write a whole file or none, even if the process or the machine stops; read files, with errors that name them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError, OutputError

NAME_KEPT = 40  # characters of a file's name in that of its unfinished file: 160 bytes of 255, at 4 bytes each


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever the block raises because `path` is missing, damaged or holds something else into an InputError:
    PATH cannot be read (reason); expected `expected`, which ends with what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, json.JSONDecodeError):
            reason = f"it is not JSON: {error}"
        raise InputError(f"{path} cannot be read ({reason}); expected {expected}") from error


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError as `reading`, also where the file holds something else."""
    with reading(path, expected):
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise TypeError(f"it holds a {type(document).__name__}, not an object")
    return document


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256, in hexadecimal, of the bytes of the files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to: renamed to `path` if the block succeeds, removed if it does not.

    The bytes are on the disk before the name, and the name when this returns: a file that is written next is never
    there without this one. Raises OutputError where the place cannot be written.
    """
    temporary = unfinished(path, "tmp")
    try:
        with writing(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        with suppress(OSError):  # some network file systems have no such call for folders
            _sync(path.parent)
    finally:
        with suppress(OSError):  # it was renamed; or it cannot be removed, and an error is on its way that says why
            temporary.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes `path`, into an OutputError that has its reason."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}); expected an existing folder with space and permission: "
            "make room there, or choose another place"
        ) from error


def unfinished(path: Path, ending: str) -> Path:
    """A new hidden name beside `path`, .NAME.MARK.ENDING, no longer than file systems allow where NAME itself is."""
    return path.with_name(f".{path.name[:NAME_KEPT]}.{secrets.token_hex(4)}.{ending}")


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none. Raises OutputError as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, document: Any) -> None:
    """Write a whole JSON file or none, indented, with a newline at its end. Raises OutputError as `replacing`."""
    write_bytes(path, (json.dumps(document, indent=2) + "\n").encode())


def make_folder(path: Path, option: str) -> None:
    """Make a folder and those above it, unless it is there. Raises OutputError, which names the command's `option`,
    where that fails, or where no file can be written in it."""
    what = "make the folder"
    try:
        path.mkdir(parents=True, exist_ok=True)
        what = "write in the folder"
        try_to_write(path)
    except OSError as error:
        raise OutputError(
            f"cannot {what} {path} ({error.strerror}); expected a place that can be written: choose another {option}"
        ) from error


def try_to_write(folder: Path) -> None:
    """Write a byte to a file without a name in `folder`: permissions do not tell of full disks and read-only file
    systems, nor apply to root. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"0")
        file.flush()
