"""What the commands that make tokenizers and tokens let the user choose. Quick to import, for their --help."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("float32", "float16", "bfloat16")  # that torch's networks compute in
VOCAL_NOISE_SIGMA = 0.01  # Gaussian noise on the vocal, which masks a separator's residue of the band [authors' code]


@dataclass(frozen=True)
class Recipe:
    """The settings of a codec's training that the user chooses."""

    steps: int = 6000
    batch_size: int = 16
    seconds: float = 1.0
    learning_rate: float = 1e-3
    seed: int = 0
