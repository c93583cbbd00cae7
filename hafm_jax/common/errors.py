"""The one exception for bad input, what raises it in several rooms, and the exit codes of commands."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from hafm_jax.common.text import PrintableStream, printable


class InputError(Exception):
    """An input of the user cannot be used. The message has what was found, what was expected, and what to do; it may
    quote files of strangers, and is printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


@contextmanager
def needed_for(what: str, remedy: str) -> Iterator[None]:
    """Turn the ImportError of a package of an extra into an InputError: WHAT needs it, and the remedy installs it."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{what} ({error}): {remedy}") from error


def first_line(error: Exception) -> str:
    """Of the message of an exception of a library, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; bad input becomes one line on stderr and exit code 2, Ctrl-C or SIGTERM 130 or 143.
    What it prints on stdout, names in files of strangers included, moves no cursor (PrintableStream).

    A command that counts its progress raises KeyboardInterrupt again with that as its message.
    """
    caught = []

    def stop(number: int, frame: object) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
        with redirect_stdout(PrintableStream(sys.stdout)):
            main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"interrupted{f': {interrupt}' if interrupt.args else ''}", file=sys.stderr)
        sys.exit(128 + (caught[0] if caught else signal.SIGINT))
