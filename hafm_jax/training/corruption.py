"""History corruption: a stage learns from a past that is partly another song's, as it will sample from its own.

Axes: B batch, F frames, K codebooks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hafm_jax.streams import Stage

CORRUPTION_SPAN = 0.2  # ours: mean length of a corrupted span, as a share of the window: 2 s of 10, some bars


def corrupt_history(stage: Stage, target: jax.Array, share: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(history, labels), each int [B, F, K]: the past that the model is given, and the tokens that it is to predict.

    Against exposure bias: a model that has seen true pasts alone follows its own mistakes rather than its conditions.
    In each window a share of the cells, drawn between 0 and the window's `share` [B], holds the music of the batch's
    next window, in spans of CORRUPTION_SPAN on average. The label of a corrupted frame's first codebook is still the
    window's own token. The labels of its later codebooks fit the first codebook in the history, as in sampling.
    """
    num_windows, frames, codebooks = target.shape
    cells = frames // stage.target.frames_per_cell
    begins_key, share_key, corrupted_key = jax.random.split(key, 3)
    begins = jax.random.bernoulli(begins_key, 1 / max(1.0, CORRUPTION_SPAN * cells), (num_windows, cells))
    shares = share[:, None] * jax.random.uniform(share_key, (num_windows, 1))
    corrupted = jax.random.bernoulli(corrupted_key, shares, (num_windows, cells))  # of each span, by its number
    corrupted = jnp.take_along_axis(corrupted, jnp.cumsum(begins, 1) - begins[:, :1], axis=1)
    corrupted = jnp.repeat(corrupted, stage.target.frames_per_cell, axis=1)[..., None]  # [B, F, 1]
    history = jnp.where(corrupted, jnp.roll(target, -1, axis=0), target)
    return history, jnp.where(jnp.arange(codebooks) == 0, target, history)
