"""What the commands that make songs and tokens let the user choose. Quick to import, for their --help."""

from __future__ import annotations

import re
from typing import NamedTuple

from hafm_jax.common.errors import InputError

# Layout of a collection -> what its folder holds.
EXPECTED = {
    "folder": "audio files in it or in folders of it",
    "fma": "000/000002.mp3 and so on",
    "musdb": "train/NAME/mixture.wav or train/NAME.stem.mp4, and test likewise",
}
LAYOUTS = tuple(EXPECTED)
VALIDATION_SHARE = TEST_SHARE = 0.05  # of a folder without splits of its own
GIVEN = "given"  # the separator of a collection that has stems


class Part(NamedTuple):
    """Part number/of of the work, counted from 1: every `of`-th task."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"part {text!r}; expected I/N with I in 1..N, as in 2/8")
        return cls(int(match[1]), int(match[2]))

    def file(self, name: str, suffix: str) -> str:
        return f"{name}{suffix}" if self.of == 1 else f"{name}-{self.number}-of-{self.of}{suffix}"

    def share(self, items: list) -> list:
        return items[self.number - 1 :: self.of]
