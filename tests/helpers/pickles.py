"""A pickle that must never be loaded."""

from __future__ import annotations

import os
from pathlib import Path


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)
