from __future__ import annotations

import jax
import numpy as np
import pytest
from helpers import random_params, random_record, tiny_config
from helpers.vocal_use import vocal_use
from scipy.special import log_softmax

from hafm_jax.common.errors import InputError
from hafm_jax.dataset.loader import crop
from hafm_jax.model import transformer

RECORDS = [random_record(9, seed=i) for i in range(3)]  # two windows of four cells, one cell left over


@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_only_the_vocal_is_swapped_for_the_next_songs(stage):
    config = tiny_config(stage)
    params = random_params(config)
    use = vocal_use(config, params, RECORDS)
    assert use.right.shape == use.wrong.shape == (6,)
    own, other = (crop(r, config.stage, 4, 4) for r in (RECORDS[2], RECORDS[0]))  # the last song's second window

    forward = jax.jit(transformer.forward, static_argnums=0)
    for found, vocal in ((use.right[5], own), (use.wrong[5], other)):
        tokens = own | {"vocal_semantic": vocal["vocal_semantic"]}
        conditions = [tokens[s.name][None] for s in config.stage.conditions]
        target = tokens[config.stage.target.name][None]
        log_probability = log_softmax(np.float64(forward(config, params, conditions, target)), axis=-1)
        expected = -np.take_along_axis(log_probability, target[..., None], axis=-1).mean()
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_that_ignores_the_vocal_has_no_margin():
    config = tiny_config("semantic")
    params = random_params(config)
    params["embedder"]["conditions"]["vocal_semantic"][:] = 1.0
    use = vocal_use(config, params, RECORDS)
    assert use.margin == 0.0 and use.standard_error == 0.0
    use = vocal_use(config, random_params(config), RECORDS)
    assert abs(use.margin) > 0.0 and use.standard_error > 0.0


def test_one_song_has_no_other_songs_vocal():
    with pytest.raises(InputError, match="1 records"):
        vocal_use(tiny_config("semantic"), random_params(tiny_config("semantic")), RECORDS[:1])
