"""How much does each stage lose? Stages of the model on validation songs, with the true band's tokens as given in place
of the stages before them.

    python -m experiments.true_tokens --songs SONGS [--seeds 2] [--out experiments/results/true_tokens.json]

`validation_songs.py` describes how bands are measured. Fine tokens drawn evenly from all ids are the mark of a fine
stage that has learnt nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.validation_songs import CELLS, Songs, compare
from hafm_jax.accompany import Accompanist, SamplingOptions
from hafm_jax.common.errors import run_command
from hafm_jax.evaluation.systems import COARSE_BOOKS
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.streams import STREAMS
from hafm_jax.tokenizers.semantic import instrumental_tokens


class Way(NamedTuple):
    """Streams whose tokens are the true band's; fine ones are the "model"'s, "any" of all ids, or None at all."""

    true: tuple[str, ...] = ()
    fine: str | None = "model"


WAYS = {
    "all stages": Way(),
    "semantic and coarse stage": Way(fine=None),
    "true semantic tokens, coarse stage": Way(("instrumental_semantic",), fine=None),
    "true semantic tokens, coarse and fine stage": Way(("instrumental_semantic",)),
    "true coarse tokens, fine stage": Way(("coarse",)),
    "true coarse tokens, any fine ones": Way(("coarse",), fine="any"),
}


def draw(accompanist: Accompanist, name: str, songs: Songs) -> np.ndarray:
    way, given = WAYS[name], {}
    if "instrumental_semantic" in way.true:
        semantic = [instrumental_tokens(accompanist.tokenizer, band, RATE_HZ) for band in songs.bands]
        given["instrumental_semantic"] = np.stack(semantic)[..., None]
    if "coarse" in way.true:
        given["coarse"] = accompanist.codec.encode(songs.bands)[..., :COARSE_BOOKS]
    if way.fine == "any":
        fine = STREAMS["fine"]
        shape = (CELLS * fine.frames_per_cell, fine.codebooks)
        given["fine"] = np.stack(
            [np.random.default_rng(seed).integers(fine.vocabulary, size=shape) for seed in songs.seeds]
        )
    return songs.accompany(accompanist, options=SamplingOptions(skip_fine=way.fine is None), given=given)


def main() -> None:
    compare(__doc__, list(WAYS), draw)


if __name__ == "__main__":
    run_command(main)
