"""Numbers among the options of commands, and their bounds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
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
        if value is not None and not value >= lowest:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected {lowest} or more")
