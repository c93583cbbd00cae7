"""The scripts of tokenize/ as modules: the folder is not a package, since the standard library has one of that name."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from helpers import TOKENIZE


def load_script(name: str) -> ModuleType:
    """tokenize/NAME.py as a new module."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", TOKENIZE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    """`python tokenize/NAME.py ARGUMENTS`, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    load_script(name).main()
