"""The scripts of tokenize/ as a user runs them, in this process."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from helpers import TOKENIZE


def load_script(name: str) -> ModuleType:
    """tokenize/ is not a package: its scripts are loaded from their files."""
    spec = importlib.util.spec_from_file_location(name, TOKENIZE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(monkeypatch, name: str, *arguments: object) -> None:
    """The script's `main` with these arguments; what it raises comes through."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    load_script(name).main()
