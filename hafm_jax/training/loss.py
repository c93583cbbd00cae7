"""Cross-entropy of a stage's target, by codebook.

Axes: B batch, F frames, K codebooks, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """logits float32 [B, F, K, V] and ids [B, F, K] -> nats [B, F, K]."""
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)
    return log_normaliser - jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]


def stage_loss(logits: jax.Array, target: jax.Array, z_loss: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """What training minimises, and the cross-entropy of each codebook: nats a token, (scalar, [K]).

    Every codebook weighs the same [paper]. `z_loss` times the squared log-normaliser keeps logits from drifting (PaLM
    uses 1e-4); it is in the first value only.
    """
    by_codebook = jnp.mean(cross_entropy(logits, target), axis=(0, 1))
    drift = jnp.mean(jnp.square(jax.nn.logsumexp(logits, axis=-1)))
    return jnp.mean(by_codebook) + z_loss * drift, by_codebook
