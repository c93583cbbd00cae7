"""Shared by the Python launchers: parse OPTIONS -- COMMAND, and run commands or only print them."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Ends on bad arguments with one line and exit code 2, as all commands of this project."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def split_command(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(the arguments before the first --, the arguments after it)."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


class Shell:
    """Runs commands, or prints them quoted for a shell."""

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def run(self, *command: str, stdin: str | None = None) -> int:
        """Run a command, show its output, and return its exit code; a failure is reported on stderr."""
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
        """The command's standard output; None where it fails."""
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            sys.exit(missing(command[0]))
        return done.stdout if done.returncode == 0 else None


def missing(program: str) -> int:
    print(f"error: {program} is not installed here; install it, or give --dry-run", file=sys.stderr)
    return 2
