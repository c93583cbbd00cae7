"""Text from files of others, made safe for a terminal."""

from __future__ import annotations

from typing import Any, TextIO


def printable(text: str) -> str:
    """The text with everything but letters, marks, blanks and line ends as an escape: no name, licence or message of a
    file can move a terminal's cursor, change its colours, or hide what stands beside it (`\\x1b`, `\\u202e`)."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class PrintableStream:
    """A text stream to which everything is written as `printable` has it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
