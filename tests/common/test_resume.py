"""Resuming: run.json, claims against other processes, and logs that a kill left in the middle of a line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common import resume
from hafm_jax.common.errors import InputError

RUN = {"model": "demo", "seconds": 10.0, "names": ["a", "b"]}
HOLDER = """
import sys
from pathlib import Path
from hafm_jax.common.resume import claim
with claim(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_continued_by_the_same_request_only(tmp_path):
    resume.check_same_run(tmp_path, RUN)
    assert json.loads((tmp_path / "run.json").read_text()) == RUN
    resume.check_same_run(tmp_path, dict(reversed(RUN.items())))
    for other, message in (
        (RUN | {"model": "mine"}, "begun with model 'demo', this run has 'mine'"),
        ({k: v for k, v in RUN.items() if k != "seconds"}, "begun with seconds 10.0, this run has None"),
        (RUN | {"seed": 1}, "begun with seed None, this run has 1"),
    ):
        with pytest.raises(InputError, match=message):
            resume.check_same_run(tmp_path, other)
    assert json.loads((tmp_path / "run.json").read_text()) == RUN


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1'])
def test_a_damaged_run_file_is_named(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        resume.check_same_run(tmp_path, RUN)


def hold(path: Path) -> subprocess.Popen:
    """Another process that claims `path` and keeps it."""
    pipe = subprocess.PIPE
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=pipe, stdout=pipe, text=True)
    assert holder.stdout.readline() == "True\n"
    return holder


def test_a_claim_belongs_to_one_process_until_it_ends_or_is_killed(tmp_path):
    path = tmp_path / "claims" / "task"
    holder = hold(path)
    with resume.claim(path) as mine:
        assert not mine
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with resume.claim(path) as mine:
        assert mine
        with resume.claim(path) as again:
            assert not again
    with resume.claim(path) as mine:  # free again after the block
        assert mine


def test_a_claim_that_waits_gets_its_turn(tmp_path):
    holder = hold(tmp_path / "task")
    holder.stdin.close()  # it ends, sooner or later
    with resume.claim(tmp_path / "task", wait=True) as mine:
        assert mine and holder.wait(10) == 0


def test_a_place_for_claims_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file/task"), resume.claim(tmp_path / "file" / "task"):
        pass


@given(lines=st.lists(st.text("ab{}", max_size=3)), torn=st.text("ab{}", max_size=3))
def test_a_log_is_its_whole_lines(lines, torn, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_text("".join(f"{line}\n" for line in lines) + torn)
    assert resume.whole_lines(path) == [f"{line}\n" for line in lines]
    resume.end_after_whole_line(path)
    assert path.read_text() == "".join(f"{line}\n" for line in lines)
    with path.open("a") as file:
        file.write("next\n")
    assert resume.whole_lines(path) == [*(f"{line}\n" for line in lines), "next\n"]


def test_an_absent_log_has_no_lines(tmp_path):
    assert resume.whole_lines(tmp_path / "log") == []
    resume.end_after_whole_line(tmp_path / "log")
    assert not (tmp_path / "log").exists()
