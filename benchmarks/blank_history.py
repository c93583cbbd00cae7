"""What blank history does, on validation songs: the same model, drawn with several weights of it and several seeds.

    python benchmarks/blank_history.py --songs SONGS

Bands are the coarse codebooks' (the fine stage has no part in this); validation_songs.py says how they are measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from validation_songs import Songs, compare

from hafm_jax.accompany import Accompanist
from hafm_jax.common.errors import run_command

WEIGHTS = {  # of blank history in the semantic and in the coarse stage
    f"{semantic:g}, {coarse:g}": {"semantic": semantic, "coarse": coarse}
    for semantic, coarse in ((0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (1.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0))
}


def draw(accompanist: Accompanist, weights: str, songs: Songs) -> np.ndarray:
    sampling = {
        name: own._replace(blank_history=WEIGHTS[weights].get(name, 0.0)) for name, own in accompanist.sampling.items()
    }
    return songs.accompany(accompanist, sampling=sampling, skip_fine=True)


def main() -> None:
    compare(__doc__, list(WEIGHTS), draw, Path("benchmarks/results/blank_history.json"))


if __name__ == "__main__":
    run_command(main)
