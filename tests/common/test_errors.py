from __future__ import annotations

import errno
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common.errors import MACHINES, PATHS, InputError, OutputError, run_command


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


def ended(capsys, main) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize("code", sorted(MACHINES | PATHS))
def test_an_error_of_the_machine_is_one_line_and_exit_code_2(code, capsys):
    code_of_exit, error = ended(capsys, raising(OSError(code, os.strerror(code), "runs/a")))
    assert code_of_exit == 2
    assert error.startswith(f"error: cannot read or write runs/a ({os.strerror(code)}); expected ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file or directory", "runs/a"),  # our own mistake, perhaps
        OSError(errno.EBADF, "Bad file descriptor"),
        OSError(errno.EPERM, "Operation not permitted"),  # of a signal, say: no path
        ConnectionError("of a library"),
        ValueError("a bug"),
    ],
)
def test_what_may_be_a_mistake_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_command(raising(error))


def test_a_full_disk_without_a_name_is_told_too(capsys):
    assert ended(capsys, raising(OSError(errno.ENOSPC, "No space left on device")))[1].count("No space left") == 1
    assert ended(capsys, raising(OutputError("cannot write x")))[0] == 2


@given(text=st.text(st.characters()))
def test_any_text_is_one_line_without_codes_for_the_terminal(text):
    with pytest.MonkeyPatch.context() as monkeypatch:
        printed = []
        monkeypatch.setattr(sys, "stderr", type("Stream", (), {"write": lambda _, t: printed.append(t)})())
        with pytest.raises(SystemExit):
            run_command(raising(InputError(text)))
    line = "".join(printed)
    assert line.endswith("\n") and line[:-1].replace("\n  ", "").isprintable() and line[:-1].encode()
    if text.isprintable():
        assert line == f"error: {text}\n"


def test_a_list_keeps_its_lines(capsys):
    assert ended(capsys, raising(InputError("2 places:\n  a\n  b")))[1] == "error: 2 places:\n  a\n  b\n"


def test_names_that_are_no_text_can_be_printed(capsys):
    run_command(lambda: print(os.fsdecode(b"mix\xff.wav")))
    assert capsys.readouterr().out == "mix\\udcff.wav\n"
