"""Which stage loses what? On validation songs: stages of the model, given what the true band says in place of the
stages before them.

    python benchmarks/true_tokens.py --songs SONGS

`validation_songs.py` says how bands are measured. Fine tokens drawn evenly from all there are show what a fine stage
is worth that knows nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from validation_songs import CELLS, Songs, compare

from hafm_jax import accompany
from hafm_jax.accompany import Accompanist
from hafm_jax.common.errors import run_command
from hafm_jax.evaluation.systems import COARSE_BOOKS
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import STAGES
from hafm_jax.tokenizers.semantic import instrumental_tokens


class Way(NamedTuple):
    """Stages whose tokens are the true band's; fine ones are the "model"'s, "any" there are, or None at all."""

    true: tuple[str, ...] = ()
    fine: str | None = "model"


WAYS = {
    "all stages": Way(),
    "semantic and coarse stage": Way(fine=None),
    "true semantic tokens, coarse stage": Way(("semantic",), fine=None),
    "true semantic tokens, coarse and fine stage": Way(("semantic",)),
    "true coarse tokens, fine stage": Way(("semantic", "coarse")),
    "true coarse tokens, any fine ones": Way(("semantic", "coarse"), fine="any"),
}

generate_stage = accompany.generate_stage


def draw(accompanist: Accompanist, name: str, songs: Songs) -> np.ndarray:
    way, tokens = WAYS[name], {}
    if "semantic" in way.true:
        heard = [instrumental_tokens(accompanist.tokenizer, band, RATE_HZ) for band in songs.bands]
        tokens["semantic"] = np.stack(heard)[..., None]
    if "coarse" in way.true:
        tokens["coarse"] = accompanist.codec.encode(songs.bands)[..., :COARSE_BOOKS]
    if way.fine == "any":
        fine = STAGES["fine"].target
        shape = (CELLS * fine.frames_per_cell, fine.codebooks)
        any_token = [np.random.default_rng(seed).integers(fine.vocabulary, size=shape) for seed in songs.seeds]
        tokens["fine"] = np.stack(any_token).astype(np.int32)

    def given(config, *rest) -> np.ndarray:
        return tokens[config.stage_name] if config.stage_name in tokens else generate_stage(config, *rest)

    with mock.patch.object(accompany, "generate_stage", given):
        return songs.accompany(accompanist, skip_fine=way.fine is None)


def main() -> None:
    compare(__doc__, list(WAYS), draw, Path("benchmarks/results/true_tokens.json"))


if __name__ == "__main__":
    run_command(main)
