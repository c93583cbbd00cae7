"""What the Python launchers share: OPTIONS -- COMMAND on the command line, and running or only printing commands."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Bad arguments end in one line and exit code 2, as in all of this project's commands."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def split_command(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(what stands before the first --, what stands after it)."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


class Shell:
    """Runs commands, or prints them as they could be pasted into a shell."""

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def run(self, *command: str, stdin: str | None = None) -> int:
        """Run to the end, output shown, and return the exit code; what failed is said."""
        if self.dry_run:
            print(shlex.join(command))
            return 0
        try:
            code = subprocess.run(command, input=stdin, text=True).returncode
        except FileNotFoundError:
            sys.exit(missing(command[0]))
        if code:
            print(f"error: exit code {code} from: {shlex.join(command)}", file=sys.stderr)
        return code

    def output(self, *command: str) -> str | None:
        """What the command prints; None if it fails."""
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            sys.exit(missing(command[0]))
        return done.stdout if done.returncode == 0 else None


def missing(program: str) -> int:
    print(f"error: {program} is not installed here; install it, or give --dry-run", file=sys.stderr)
    return 2
