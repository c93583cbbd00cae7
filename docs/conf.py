"""The site that `make docs` builds: README, docs/ and a reference from the docstrings.

The source folder is the repository's root, so that links between README, docs/ and other files are the same on the
site and in the repository. Nothing here uses the network.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import hafm_jax  # noqa: E402

project = "hafm_jax"
author = "the hafm_jax authors"
version = release = hafm_jax.__version__

extensions = ["sphinx.ext.autodoc", "myst_parser"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md", "launch/README.md"]
exclude_patterns = [".*", "build", "hafm_jax", "tests", "benchmarks", "*.egg-info"]
myst_heading_anchors = 3  # headings are link targets, under the names that GitHub gives them
highlight_language = "none"  # commands and diagrams have no one language

html_theme = "furo"
html_title = f"hafm_jax {version}"
html_extra_path = ["_site"]  # index.html, which leads to docs/index.html
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "special-members": "__call__"}
default_role = "code"  # docstrings set names in single backticks
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*")]  # types in signatures are links only where they have a page

CODE = re.compile(r"(`[^`]+`)")
MARKUP = re.compile(r"([*_|\\])")


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain prose with code in `backticks` and in indented blocks: make reStructuredText of it."""
    text: list[str] = []
    in_block = False
    for line in lines:
        after_blank = not text or not text[-1].strip()
        indented = line.startswith("    ")
        if indented and after_blank and not in_block:
            text += ["::", ""]
        if line.strip():
            in_block = indented and (in_block or after_blank)
        if in_block:
            text.append(line)
        else:
            parts = CODE.split(line)
            text.append("".join(part if part.startswith("`") else MARKUP.sub(r"\\\1", part) for part in parts))
    lines[:] = text


def skip(app, what, name, obj, skipped: bool, options) -> bool | None:
    """Leave out the fields of a NamedTuple, whose docstrings say "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app) -> None:
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", as_rst)
