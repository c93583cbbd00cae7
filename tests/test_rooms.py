"""Imports point one way: a room imports from the floors below its own, and never a command."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "hafm_jax"
FLOORS = [  # from the top down; rooms of one floor do not import each other (docs/design.md, "Rooms and imports")
    ["cli"],
    ["again", "batch"],
    ["sample", "train", "export", "evaluate", "listen", "sweep", "doctor"],
    ["scaling", "listening"],
    ["evaluation"],
    ["metrics", "training", "corpus", "accompany"],
    ["band", "generation"],
    ["dataset", "model"],
    ["tokenizers"],
    ["synthesis"],
    ["audio"],
    ["streams", "common"],
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
ONLY_IN = {  # library -> the files that may import it
    "flax.nnx": {"model/transformer.py", "tokenizers/spectral_codec.py"},
    "orbax": {"training/checkpoint.py"},
}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py"]  # which is a command


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, wherever in it: `from a import b` is a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def rooms_in(names: set[str]) -> set[str]:
    """The rooms among imported names; the package's own `__version__` and API are none."""
    parts = [name.split(".") for name in names]
    return {room for package, room, *_ in (p for p in parts if len(p) > 1) if package == "hafm_jax"} & set(FLOOR)


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_up(path):
    room = room_of(path)
    if room == "__init__":
        return
    up = {other for other in rooms_in(imported(path)) - {room} if FLOOR[other] <= FLOOR[room]}
    assert not up, f"{room} is below or beside {', '.join(sorted(up))}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library):
    found = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(f"{name}.".startswith(f"{library}.") for name in imported(path))
    }
    assert found <= ONLY_IN[library]
