"""The optimiser: AdamW with linear warm-up, cosine decay and clipping by the global norm."""

from __future__ import annotations

import jax
import optax
from ml_collections import ConfigDict


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Step -> learning rate: from 0 up over `warmup_steps`, then a cosine down to a tenth of the peak at `steps`."""
    warmup = min(config.warmup_steps, config.steps - 1)
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, config.steps, end_value=0.1 * config.learning_rate
    )


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Weight decay holds for matrices and embeddings, not for norms, bias tables and BOS."""

    def decayed(params):
        def keep(path, _):
            names = [p.key for p in path]
            return not (names[-1].endswith("norm") or names[-1] == "bos" or "position" in names)

        return jax.tree_util.tree_map_with_path(keep, params)

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config), b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay, mask=decayed
        ),
    )
