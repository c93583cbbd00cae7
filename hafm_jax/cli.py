"""The command `hafm`, also `python -m hafm_jax`: one name for all commands, each imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from hafm_jax import __version__
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.shipped import load_script

GROUPS = {  # what for -> command -> what it does
    "accompany a voice": {
        "sample": "a voice goes in, its band comes out: hafm sample --vocal take.m4a",
        "batch": "the same for all vocals of a folder: hafm batch FOLDER --out FOLDER",
        "again": "make a mix again from what it says of itself: hafm again mix.wav",
        "doctor": "does it work here? Versions, device, caches, extras, and a test sound",
    },
    "train a model": {
        "tokenize": "make songs, tokenizers and token sets: see hafm tokenize --help",
        "train": "train one stage on token sets",
        "export": "put three trained stages into a model directory for sample",
    },
    "measure": {
        "evaluate": "measure a model among anchors and baselines; writes a report",
        "listen": "make a blind listening test, and analyse its answers",
        "sweep": "plan, train and fit scaling laws",
    },
}
SCRIPTS = {  # of tokenize/, in the order of the work
    "synthesize-songs": "make songs with known key, tempo, beats and chords",
    "separate-stems": "turn a collection of mixed music into vocals and instrumentals",
    "fit-kmeans": "fit the semantic tokenizer",
    "train-codec": "train the codec",
    "extract-tokens": "turn songs into the token set that training reads",
}
COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}


def help_text() -> str:
    lines = [
        "usage: hafm COMMAND ...",
        "",
        "A voice goes in, a band comes out: the instrumental accompaniment of a singing voice.",
    ]
    for purpose, group in GROUPS.items():
        lines += ["", f"{purpose}:", *(f"  {name:10}{line}" for name, line in group.items())]
    return "\n".join([*lines, "", "hafm COMMAND --help says what a command reads and writes; hafm --version."])


def tokenize_help_text() -> str:
    scripts = [f"  {name:18}{line}" for name, line in SCRIPTS.items()]
    return "\n".join(["usage: hafm tokenize COMMAND ...", "", "In the order of the work:", *scripts])


def _main_of(commands: dict[str, str], name: str, called: str) -> Callable[[Sequence[str]], None]:
    if name not in commands:
        known = ", ".join(commands)
        raise InputError(f"{called} has no command {name!r}; expected one of {known}: see {called} --help")
    if commands is SCRIPTS:
        return load_script(name.replace("-", "_")).main
    return importlib.import_module(f"hafm_jax.{name}").main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name. Raises InputError where there is no such command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands, called, text = COMMANDS, "hafm", help_text
    if arguments[:1] == ["tokenize"]:
        commands, called, text = SCRIPTS, "hafm tokenize", tokenize_help_text
        del arguments[0]
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print(text())
    elif arguments[0] == "--version" and commands is COMMANDS:
        print(f"hafm_jax {__version__}")
    else:
        _main_of(commands, arguments[0], called)(arguments[1:])


def run() -> None:
    """The entry point of the command `hafm`."""
    run_command(main)


if __name__ == "__main__":
    run()
