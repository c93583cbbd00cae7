"""The loss against SciPy and a closed form, the optimiser against the rule of each of its settings."""

from __future__ import annotations

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.special import log_softmax

from configs.base import get_config
from hafm_jax.training import optim
from hafm_jax.training.step import stage_loss


def test_the_loss_is_the_mean_cross_entropy_in_nats():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 5, 4, 11)).astype(np.float32)
    target = rng.integers(0, 11, (2, 5, 4))
    log_probability = log_softmax(logits.astype(np.float64), axis=-1)
    expected = -np.take_along_axis(log_probability, target[..., None], axis=-1)[..., 0]
    total, by_codebook = stage_loss(logits, target)
    np.testing.assert_allclose(by_codebook, expected.mean((0, 1)), atol=1e-5)
    np.testing.assert_allclose(total, expected.mean(), atol=1e-5)


def test_z_loss_is_the_squared_log_normaliser():
    logits = np.log(np.full((1, 2, 1, 4), np.e**2 / 4, np.float32))  # logsumexp is 2 everywhere
    total, by_codebook = stage_loss(logits, np.zeros((1, 2, 1), int), z_loss=0.5)
    np.testing.assert_allclose(total - by_codebook.mean(), 0.5 * 4, rtol=1e-5)


def test_learning_rate_warms_up_and_decays_to_a_tenth():
    config = ConfigDict({"steps": 100, "warmup_steps": 10, "learning_rate": 1e-3})
    rate = optim.learning_rate(config)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(100)], [0, 5e-4, 1e-3, 1e-4], rtol=1e-5)
    assert rate(55) < rate(30) < rate(10)


def second_update(params, gradients, **fields):
    """The first step of the warm-up has rate 0."""
    config = get_config()
    config.update(steps=10, warmup_steps=1, **fields)
    transform = optim.optimizer(config)
    _, state = transform.update(gradients, transform.init(params), params)
    return transform.update(gradients, state, params)[0]


def test_norms_and_tables_do_not_decay():
    ones = np.ones(2, np.float32)
    ends, blocks = {"position": {"a": ones}, "bos": ones, "heads": ones}, {"key_norm": ones, "ffn_in": ones}
    params = {"embedder": ends, "blocks": blocks}
    updates = second_update(params, jax.tree.map(np.zeros_like, params), learning_rate=1.0, weight_decay=0.1)
    assert (updates["embedder"]["heads"] < 0).all() and (updates["blocks"]["ffn_in"] < 0).all()
    for still in (updates["embedder"]["position"]["a"], updates["embedder"]["bos"], updates["blocks"]["key_norm"]):
        assert (still == 0).all()


def test_tables_learn_faster():
    gradients = {"position": {"a": np.float32([1, -2, 3])}, "heads": np.float32([1, -2, 3])}
    params = jax.tree.map(np.zeros_like, gradients)
    updates = second_update(params, gradients, learning_rate=1e-3, weight_decay=0.0, clip_norm=1e9)
    # Under equal gradients Adam moves every value by the learning rate against the gradient's sign.
    np.testing.assert_allclose(updates["heads"], [-1e-3, 1e-3, -1e-3], rtol=1e-4)
    np.testing.assert_allclose(updates["position"]["a"], 10 * updates["heads"], rtol=1e-6)
