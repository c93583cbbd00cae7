"""Text from files of others, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with everything but letters, marks, blanks and line ends as an escape: no name, licence or message of a
    file can move a terminal's cursor, change its colours, or hide what stands beside it (`\\x1b`, `\\u202e`)."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
