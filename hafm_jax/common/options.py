"""Values that users set: options of commands, fields of configurations and of JSON files; types, bounds, paths."""

from __future__ import annotations

import argparse
import math
import numbers
import re
import reprlib
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from hafm_jax.common.errors import InputError

Made = TypeVar("Made")


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """An argparse type: a number of `kind`, int or float, in low..high, and not infinite."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and value < math.inf):
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


def check_number(name: str, value: Any, kind: type, low: float, high: float) -> None:
    """Raises InputError unless `value` is a finite number in low..high and of `kind`, int or float. A whole number is
    a float too; NaN, True and "1" are neither."""
    form, highest = (numbers.Integral, high) if kind is int else (numbers.Real, min(high, sys.float_info.max))
    if not isinstance(value, form) or isinstance(value, bool) or not low <= value <= highest:
        upper = "" if high == math.inf else f" to {high}"
        raise InputError(
            f"{name} is {reprlib.repr(value)}; expected a {'whole ' * (kind is int)}number from {low}{upper}"
        )


def check_word(name: str, value: Any, known: Collection[str]) -> None:
    """Raises InputError unless `value` is one of the words `known`."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} is {reprlib.repr(value)}; expected one of {', '.join(known)}")


def check_file_name(name: str, value: Any) -> None:
    """Raises InputError unless `value` is the name of a file or folder without a path: it cannot lead elsewhere."""
    if not isinstance(value, str) or value in ("", ".", "..") or "/" in value or "\0" in value:
        raise InputError(f"{name} is {reprlib.repr(value)}; expected the name of a file or folder, without a path")


def from_fields(make: Callable[..., Made], fields: Any, where: str) -> Made:
    """make(**fields), for what a JSON file or a configuration holds. Raises InputError that begins with `where`, where
    `fields` are not an object, where there are others than `make` takes, or where it refuses a value."""
    try:
        return make(**fields)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except TypeError as error:
        raise InputError(f"{where}: {error}; expected the fields that hafm_jax writes there") from error


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
