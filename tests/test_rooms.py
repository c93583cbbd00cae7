"""Imports point one way: a room imports from its own floor down, and never a command."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "hafm_jax"
# From the top down; rooms of one floor do not import each other, but for those that are listed with what they may.
FLOORS = [
    ["sample", "train", "export", "evaluate", "listen", "sweep"],
    ["scaling", "listening"],
    ["evaluation"],
    ["metrics", "training", "corpus", "accompany"],
    ["dataset", "model"],
    ["tokenizers"],
    ["synthesis"],
    ["audio"],
    ["streams", "common"],
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of hafm_jax that a file imports, wherever in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hafm_jax":
            _, *parts = node.module.split(".")
            rooms |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {name.name.split(".")[1] for name in node.names if name.name.startswith("hafm_jax.")}
    return {room for room in rooms if not room.startswith("__")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_up(path):
    room = room_of(path)
    if room == "__init__" or path.name == "__main__.py":  # the latter is a command
        return
    up = {other for other in imports(path) - {room} if FLOOR[other] <= FLOOR[room]}
    assert not up, f"{room} stands below or beside {', '.join(sorted(up))}"
