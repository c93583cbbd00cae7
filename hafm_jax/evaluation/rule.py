"""How an evaluation chooses its clips. Quick to import, for the command's --help."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hafm_jax.common.options import check_file_name, check_number
from hafm_jax.corpus.screening import Limits


@dataclass(frozen=True)
class Rule:
    """How clips are chosen. Clips do not overlap; in each both stems sound, the vocal above the gate."""

    split: str = "test"
    num_clips: int | None = None  # None: all
    reference_split: str = "train"
    num_reference_clips: int = 256
    vocal_gate_dbfs: float = Limits().vocal_gate_dbfs
    seed: int = 0

    def __post_init__(self):
        """Raises InputError on a value that no evaluation can have."""
        for name in ("split", "reference_split"):
            check_file_name(name, getattr(self, name))
        if self.num_clips is not None:
            check_number("num_clips", self.num_clips, int, 1, math.inf)
        check_number("num_reference_clips", self.num_reference_clips, int, 1, math.inf)
        check_number("seed", self.seed, int, 0, math.inf)
        if self.vocal_gate_dbfs != -math.inf:  # no gate
            check_number("vocal_gate_dbfs", self.vocal_gate_dbfs, float, -math.inf, math.inf)
