"""The one exception for bad input, and how a command ends on it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave cannot be used. The message says what was found, what was expected, what to do."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; bad input becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
