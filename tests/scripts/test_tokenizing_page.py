"""The commands of docs/tokenizing.md, pasted in order, replace nothing that an earlier one made."""

from __future__ import annotations

import re

from helpers import ROOT

PARTS = {"fit-kmeans": "/semantic", "train-codec": "/codec"}  # of a tokenizers folder


def test_no_two_commands_write_one_place():
    page = (ROOT / "docs" / "tokenizing.md").read_text()
    blocks = "\n".join(re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)).replace("\\\n", " ")
    written, made = [], set()
    for line in blocks.splitlines():
        if command := re.search(r"hafm tokenize ([\w-]+) .*--out (\w+)", line):
            script, out = command.groups()
            written.append(out + PARTS.get(script, ""))
            made.add(out)
            for option in ("songs", "tokenizers"):
                needed = re.search(rf"--{option} (\w+)", line)
                assert not needed or needed[1] in made, line
        elif redirected := re.search(r"> (\w+/codec)/config.json", line):
            written.append(redirected[1])
        assert not re.search(r"mkdir (?!-p )", line), line  # which fails where the folder is there
    assert len(written) == 7 and len(set(written)) == len(written), written
