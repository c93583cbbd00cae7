"""Results name the commit that made them: a benchmark or experiment writes none from uncommitted changes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers import ROOT

from benchmarks import _common
from hafm_jax.common.errors import InputError

SCRIPTS = sorted(
    f"{folder}.{path.stem}"
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).glob("*.py")
    if path.stem not in ("_common", "_peers", "validation_songs")
)


def machine(dirty: bool | None):
    return lambda *packages: {"commit": "1234567", "dirty": dirty, "versions": dict.fromkeys(packages, "1.0")}


def test_a_result_holds_its_machine_and_the_commit_of_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(_common, "this_machine", machine(dirty=False))
    out = tmp_path / "results" / "speed.json"
    write = _common.begin_result(out, "torch")
    monkeypatch.setattr(_common, "this_machine", machine(dirty=True))
    write({"steps": 3})
    assert json.loads(out.read_text()) == {
        "machine": {"commit": "1234567", "dirty": False, "versions": {"torch": "1.0"}},
        "steps": 3,
    }


@pytest.mark.parametrize("dirty, found", [(True, "1234567 has uncommitted changes"), (None, "there is no commit")])
def test_uncommitted_changes_write_no_result(monkeypatch, tmp_path, dirty, found):
    monkeypatch.setattr(_common, "this_machine", machine(dirty))
    with pytest.raises(InputError, match=f"{found}; expected a commit .*: commit or revert .* leave out --out"):
        _common.begin_result(tmp_path / "results" / "speed.json")
    assert not (tmp_path / "results").exists()


def test_without_out_nothing_is_checked_or_written(monkeypatch, tmp_path):
    monkeypatch.setattr(_common, "this_machine", None)
    monkeypatch.chdir(tmp_path)
    _common.begin_result(None)({"steps": 3})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["benchmarks", "experiments"])
def test_committed_results_are_of_clean_commits(folder):
    for path in (ROOT / folder / "results").glob("*.json"):
        made_by = json.loads(path.read_text())["machine"]
        assert "dirty" not in made_by["commit"] and not made_by.get("dirty"), path


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    done = subprocess.run([sys.executable, "-m", script, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and f"python -m {script}" in done.stdout, done.stderr
