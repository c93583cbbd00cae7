"""The record of the machine that every file of results holds."""

from __future__ import annotations

import json
import os
import subprocess

import jax
import pytest
from helpers import ROOT

from hafm_jax.common import machine
from hafm_jax.common.machine import this_machine


def test_the_record_is_json_and_names_processor_versions_and_packages():
    record = this_machine("scipy", "no-such-package")
    assert json.loads(json.dumps(record)) == record
    assert record["cores"] == os.cpu_count() and record["cpu"] and record["device"] == jax.devices()[0].device_kind
    assert record["versions"]["jax"] == jax.__version__
    assert "scipy" in record["versions"] and "no-such-package" not in record["versions"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
def test_the_commit_is_the_repositorys():
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert head.startswith(this_machine()["commit"])


def test_a_changed_tracked_file_makes_the_tree_dirty(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert this_machine()["commit"] is None and this_machine()["dirty"] is None
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    (tmp_path / "untracked").write_text("1")
    assert this_machine()["commit"] and this_machine()["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert this_machine()["dirty"] is True


@pytest.mark.parametrize(
    "flags, vectors",
    [
        ("flags : fpu avx avx2 avx512f", "AVX-512"),
        ("flags : fpu avx avx2", "AVX2"),
        ("Features : fp asimd", "NEON"),
        ("flags : fpu", None),
    ],
)
def test_the_widest_vector_extension_is_named(tmp_path, monkeypatch, flags, vectors):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nmodel name : Some CPU\n{flags}\n")
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / "cpuinfo")
    assert machine._processor() == ("Some CPU", vectors)
