"""The one exception for bad input, what raises it in several rooms, and the exit codes of commands."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import NoReturn

from hafm_jax.common.text import PrintableStream, printable

# Errors of the machine: disk or quota full, read-only, damaged, gone. Errors of a user's path. A missing file is in
# neither: it may be a mistake of ours, which needs its traceback.
MACHINES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE})
PATHS = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})


class InputError(Exception):
    """An input of the user cannot be used. The message has what was found, what was expected, and what to do; it may
    quote files of strangers, and is printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


class OutputError(InputError):
    """A file of the user cannot be written. Work that leaves out what it cannot use must not leave out this."""


@contextmanager
def needed_for(what: str, remedy: str) -> Iterator[None]:
    """Turn the ImportError of a package of an extra into an InputError: WHAT needs it, and the remedy installs it. A
    module of this package that cannot be imported is a mistake of ours."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "hafm_jax":
            raise
        raise InputError(f"{what} ({error}): {remedy}") from error


def install(extra: str) -> str:
    """The command that installs an extra of ours."""
    return f'pip install "hafm_jax[{extra}]"'


def needs_extra(extra: str, what: str) -> AbstractContextManager[None]:
    """`needed_for` packages of an extra of ours."""
    return needed_for(f"{what} needs the extra {extra}", install(extra))


def first_line(error: Exception) -> str:
    """Of the message of an exception of a library, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; bad input becomes one line on stderr and exit code 2, Ctrl-C or SIGTERM 130 or 143.
    What it prints on stdout, names in files of strangers included, moves no cursor (PrintableStream).

    So does an OSError that is the machine's and not the program's (MACHINES, and PATHS where it names a path). A
    command that counts its progress raises KeyboardInterrupt again with that as its message.
    """
    caught = []
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names of files may be no text

    def stop(number: int, frame: object) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
        with redirect_stdout(PrintableStream(sys.stdout)):
            main()
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        if not (error.errno in MACHINES or (error.errno in PATHS and error.filename)):
            raise
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
        _fail(
            f"cannot read or write {where} ({error.strerror}); expected a place with space and permission: "
            "make room, or choose another"
        )
    except KeyboardInterrupt as interrupt:
        print(f"interrupted{f': {interrupt}' if interrupt.args else ''}", file=sys.stderr)
        sys.exit(128 + (caught[0] if caught else signal.SIGINT))


def _fail(message: str) -> NoReturn:
    """Names may hold line ends, what moves a terminal's cursor, or bytes that are no text: only a list's lines, which
    are indented, stay lines."""
    print("error: " + re.sub(r"\n(?!  )", r"\\n", printable(message)), file=sys.stderr)
    sys.exit(2)
