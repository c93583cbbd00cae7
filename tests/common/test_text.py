"""Text for a terminal, by the categories of Unicode."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.text import printable


def test_what_people_write_stays():
    text = "Élan vital, 東京, 12 % “so” 🎵\nsecond line"
    assert printable(text) == text


@pytest.mark.parametrize(
    ("found", "shown"),
    [("\x1b[2J", r"\x1b[2J"), ("a\rb", r"a\rb"), ("\u202eexe", r"\u202eexe"), ("\ud800", r"\ud800"), ("\x9b", r"\x9b")],
)
def test_what_moves_the_cursor_or_turns_the_text_is_an_escape(found, shown):
    assert printable(found) == shown


@given(st.text(st.characters()))
def test_nothing_but_line_ends_controls_anything_and_all_can_be_written(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert {unicodedata.category(c)[0] for c in shown.replace("\n", "")} <= set("LMNPS") | {"Z"}
    assert all(c == " " for c in shown if unicodedata.category(c)[0] == "Z")
    assert printable(shown) == shown


def test_neither_a_message_nor_what_a_command_prints_moves_the_cursor(capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *handler: None)  # this process is pytest's

    def main():
        print("a song called \x1b[2J", "\ud800", flush=True)
        raise InputError("the file holds \x1b]0;title\x07\ud800")

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == "a song called \\x1b[2J \\ud800\n"
    assert printed.err == "error: the file holds \\x1b]0;title\\x07\\ud800\n"


def test_a_message_is_printable_wherever_it_is_quoted():
    error = InputError("the file holds \x1b[2J")
    assert f"{error}" == str(error) == r"the file holds \x1b[2J"
    assert str(InputError()) == "" and repr(InputError("a")) == "InputError('a')"
