from __future__ import annotations

import jax
import numpy as np
import pytest
from helpers import random_params, random_record, tiny_config

from hafm_jax.common.errors import InputError
from hafm_jax.dataset.loader import crop
from hafm_jax.metrics.vocal_use import vocal_use
from hafm_jax.model import transformer
from hafm_jax.training.loss import cross_entropy

RECORDS = [random_record(9, seed=i) for i in range(3)]  # two windows of four cells, one cell left over


@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_only_the_vocal_is_swapped_for_the_next_songs(stage):
    config = tiny_config(stage)
    params = random_params(config)
    use = vocal_use(config, params, RECORDS)
    assert use.right.shape == use.wrong.shape == (6,)
    own, other = (crop(r, config.stage, 4, 4) for r in (RECORDS[2], RECORDS[0]))  # the last song's second window

    @jax.jit
    def loss(params, conditions, target):
        return cross_entropy(transformer.forward(config, params, conditions, target), target).mean()

    for found, vocal in ((use.right[5], own), (use.wrong[5], other)):
        tokens = own | {"vocal_semantic": vocal["vocal_semantic"]}
        conditions = [tokens[s.name][None] for s in config.stage.conditions]
        target = tokens[config.stage.target.name][None]
        expected = loss(params, conditions, target)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_that_is_deaf_to_the_vocal_has_no_margin():
    config = tiny_config("semantic")
    params = random_params(config)
    params["embedder"]["conditions"]["vocal_semantic"][:] = 1.0
    use = vocal_use(config, params, RECORDS)
    assert use.margin == 0.0 and use.standard_error == 0.0
    hearing = vocal_use(config, random_params(config), RECORDS)
    assert abs(hearing.margin) > 0.0 and hearing.standard_error > 0.0


def test_one_song_has_no_other_songs_vocal():
    with pytest.raises(InputError, match="1 records"):
        vocal_use(tiny_config("semantic"), random_params(tiny_config("semantic")), RECORDS[:1])
