"""The scripts of tokenize/ as modules: the folder is not a package, since the standard library has one of that name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hafm_jax.common.errors import run_command
from helpers import TOKENIZE


def load_module(path: Path) -> ModuleType:
    """The file as a new module."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_script(name: str) -> ModuleType:
    """tokenize/NAME.py as a new module."""
    return load_module(TOKENIZE / f"{name}.py")


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    """`python tokenize/NAME.py ARGUMENTS`, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    load_script(name).main()


def errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: str, *arguments: object) -> list[str]:
    """The lines on stderr of a `run` that ends in exit code 2, the last of which is the error."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command(load_script(name).main)
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and lines[-1].startswith("error: ")
    return lines
