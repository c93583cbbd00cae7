"""README and docs: tables are what the results say, links lead somewhere, and named commands and options exist."""

from __future__ import annotations

import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import soundfile
from helpers import ROOT
from helpers.scripts import load_module

from configs.base import get_config
from hafm_jax import cli

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
COMMAND = re.compile(
    r"(?:python -m (hafm_jax\.\w+)|python (tokenize/\w+\.py)|\b(hafm (?:tokenize )?[a-z-]+))((?:[^\n]*\\\n)*[^\n]*)"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*")

COMMANDED = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names the commands of the past too

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


tables = load_module(ROOT / "docs" / "tables.py")


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def help_text(command: str, arguments: Sequence[str], monkeypatch, capsys) -> str:
    """What a command prints for --help, in this process: it has imported most of it already."""
    monkeypatch.setattr(sys, "argv", [command, *arguments, "--help"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # commands set handlers, which are not the tests'
    with suppress(SystemExit):
        if command.startswith("hafm "):
            cli.main([*command.split()[1:], *arguments, "--help"])
        elif command.startswith("hafm_jax"):
            runpy.run_module(command, run_name="__main__")
        else:
            runpy.run_path(str(ROOT / command), run_name="__main__")
    return capsys.readouterr().out


def parser_options(command: str, monkeypatch, capsys) -> set[str]:
    """The options that a command's --help names, those of its subcommands included."""
    text = help_text(command, [], monkeypatch, capsys)
    if subcommands := re.search(r"^  \{([\w,]+)\}$", text, re.M):
        text += "".join(help_text(command, [name], monkeypatch, capsys) for name in subcommands[1].split(","))
    assert OPTION.search(text)
    return set(OPTION.findall(text))


def commands_in(page: Path) -> list[tuple[str, set[str]]]:
    """(module, script or command of hafm; the options it is given) of every command that a page shows."""
    found = []
    for module, script, verb, rest in COMMAND.findall(page.read_text()):
        rest = re.split(r"[`#;]|\n\n", rest)[0]
        found.append((module or script or verb, set(OPTION.findall(rest))))
    return found


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_regenerating_the_tables_changes_nothing(page):
    assert tables.filled(page.read_text()) == page.read_text(), "run: python docs/tables.py"


@by_page
def test_links_lead_to_files_and_headings(page):
    text = page.read_text()
    links = [(page.parent / target.partition("#")[0], target.partition("#")[2]) for target in LINK.findall(text)]
    for path, anchor in links:
        path = page if path == page.parent else path
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


@pytest.mark.parametrize("command", sorted({name for page in COMMANDED for name, _ in commands_in(page)}))
def test_named_options_exist(command, monkeypatch, capsys):
    shown = [options for page in COMMANDED for name, options in commands_in(page) if name == command]
    named = set().union(*shown)
    fields = {option for option in named if option.startswith("--config.")}
    missing = named - fields - parser_options(command, monkeypatch, capsys) - {"--help"}
    assert not missing
    for field in fields:
        assert is_field(field.removeprefix("--config.")), field


def is_field(name: str) -> bool:
    with suppress(KeyError, AttributeError, TypeError):
        reduce(getitem, name.split("."), get_config())
        return True
    return False


def test_config_fields_in_prose_exist():
    for page in PAGES:
        for field in re.findall(r"`--config\.([\w.]+)", page.read_text()):
            assert is_field(field), f"{page}: {field}"


def test_the_readme_is_short_and_begins_with_what_to_do():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert all(any(wanted in line for line in lines[:30]) for wanted in ("make demo", "hafm sample", "hafm_jax.load"))


def test_cited_pages_exist():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = files.stdout.splitlines()
    names = {Path(name).name for name in listed}
    written = {"card.md", "report.md"}  # by commands, not in the repository
    for name in listed:
        if Path(name).suffix in (".py", ".md", ".sh", ".cc", ".toml") and (ROOT / name).is_file():
            cited = re.findall(r"[\w./-]+\.md\b", (ROOT / name).read_text())
            missing = {page for page in cited if Path(page).name not in names | written}
            assert not missing, f"{name} cites {missing}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    voice, rate_hz = soundfile.read(ROOT / "examples" / "vocal.wav", frames=24_000, always_2d=True)
    soundfile.write(tmp_path / "in.wav", voice, rate_hz)
    (tmp_path / "hafm_jax").mkdir()
    (tmp_path / "hafm_jax" / "demo").symlink_to(ROOT / "hafm_jax" / "demo")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
    band, band_rate_hz = soundfile.read(tmp_path / "mix.wav")
    assert band_rate_hz == rate_hz and len(band) / band_rate_hz == pytest.approx(len(voice) / rate_hz, abs=1e-3)
