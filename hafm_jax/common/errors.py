"""The one exception for bad input, and the exit codes of commands."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class InputError(Exception):
    """An input of the user cannot be used. The message has what was found, what was expected, and what to do."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; bad input becomes one line on stderr and exit code 2, Ctrl-C or SIGTERM 130 or 143.

    A command that counts its progress raises KeyboardInterrupt again with that as its message.
    """
    caught = []

    def stop(number: int, frame: object) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"interrupted{f': {interrupt}' if interrupt.args else ''}", file=sys.stderr)
        sys.exit(128 + (caught[0] if caught else signal.SIGINT))
