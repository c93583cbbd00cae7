"""Numbers and paths among the options of commands."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """An argparse type: a finite number of `kind`, int or float, in low..high."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or value == math.inf:
            whole, upper = "whole " * (kind is int), "" if high == math.inf else f" to {high}"
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a {whole}number from {low}{upper}")
        return value

    return parse


def check_at_least(arguments: Any, **least: float) -> None:
    """Raises InputError where an option of a command is given and is not at least its least value."""
    for name, lowest in least.items():
        value = getattr(arguments, name)
        if value is not None and not lowest <= value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected a number, {lowest} or more")


def local(text: str) -> str:
    """An argparse type: a path as it is given. Raises InputError where it is an address: as a path, gs://a/b would be
    made here as the folder gs:/a/b."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise InputError(
            f"{text} is an address; expected a file or folder of this machine: mount the bucket, as gcsfuse does, "
            "or copy it here, and give that path"
        )
    return text


def local_path(text: str) -> Path:
    """An argparse type: `local` as Path."""
    return Path(local(text))
