"""Write a whole file or none, even if the process or the machine stops; read files, with errors that name them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.common.system import NONBLOCK, sync

NAME_KEPT = 40  # characters of a file's name in that of its unfinished file: 160 bytes of 255, at 4 bytes each

MOST_JSON_BYTES = 2**24  # ours: an index of half a million songs; what a stranger sends must not fill the memory
CHECKSUM = "checksum"


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever the block raises because `path` is missing, damaged or holds something else into an InputError:
    PATH cannot be read (reason); expected `expected`, which ends with what to do."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, json.JSONDecodeError):
            reason = f"it is not JSON: {error}" if error.doc.strip() else "it is empty"
        elif isinstance(error, UnicodeDecodeError):
            reason = f"it is not UTF-8 text: {error}"
        elif isinstance(error, KeyError):
            reason = f"it lacks {error}"
        elif isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        raise InputError(f"{path} cannot be read ({reason}); expected {expected}") from error


def open_regular(path: Path) -> BinaryIO:
    """A file, opened to read its bytes. Raises OSError, also where it is a pipe or a device, which may never end."""
    # Without O_NONBLOCK, opening a pipe waits for whoever writes to it.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def read_bounded(path: Path, most_bytes: int = MOST_JSON_BYTES) -> bytes:
    """The bytes of a regular file. Raises OSError as `open_regular`, and ValueError where it is larger."""
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most_bytes:
            raise ValueError(f"it has {size:,} bytes, more than {most_bytes:,}")
        return file.read(size)  # not `most_bytes`, for which memory would be taken at once


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """The object in a JSON file of at most MOST_JSON_BYTES, without the checksum of `sealed`, if it has one.

    Raises InputError as `reading`, also where the file holds something else or its checksum does not fit.
    """
    with reading(path, expected):
        return unsealed(json.loads(read_bounded(path).decode()))


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with a checksum, which `read_json` checks: a flipped bit of a number is a number too."""
    return document | {CHECKSUM: _checksum(document)}


def unsealed(document: Any) -> dict[str, Any]:
    """A document as it was before `sealed`. Raises ValueError where it has another checksum, TypeError where it is not
    an object. One without a checksum, as people write it, is returned as it is."""
    if not isinstance(document, dict):
        raise TypeError(f"it holds a {type(document).__name__}, not an object")
    rest = {name: value for name, value in document.items() if name != CHECKSUM}
    if CHECKSUM in document and document[CHECKSUM] != _checksum(rest):
        raise ValueError(
            f'its "{CHECKSUM}" does not fit the rest: it was damaged, or edited, and then that entry is to be deleted'
        )
    return rest


def _checksum(document: dict[str, Any]) -> str:
    """SHA-256 of what is read back of the document: the same for any order of names, blanks and line ends."""
    text = json.dumps(json.loads(json.dumps(document)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256, in hexadecimal, of the bytes of the files, one after the other. Raises OSError as `open_regular`."""
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            while block := file.read(2**20):
                digest.update(block)
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
            sync(temporary)
            os.replace(temporary, path)
        with suppress(OSError):  # some network file systems have no such call for folders
            sync(path.parent)
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
