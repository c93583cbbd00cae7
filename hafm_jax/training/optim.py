"""The optimiser: AdamW with linear warm-up, cosine decay and clipping by the global norm.

There is no moving average of the parameters: the decay to a tenth of the learning rate already settles them, and an
average would take 4 more bytes for each parameter.
"""

from __future__ import annotations

import jax
import optax
from ml_collections import ConfigDict

# Ours: learning rate of the position bias tables, relative to that of the rest. Adam moves a value by at most the
# learning rate in a step, and a bias must grow to about log(sequence length) = 7 before a head attends to one time.
POSITION_RATE = 10.0


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Step -> learning rate: from 0 up over `warmup_steps`, then a cosine down to a tenth of the peak at `steps`."""
    warmup = min(config.warmup_steps, config.steps - 1)
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, config.steps, end_value=0.1 * config.learning_rate
    )


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW. Weight decay applies to matrices and embeddings, not to norms, bias tables and BOS."""

    def names(path) -> list[str]:
        return [p.key for p in path]

    def tables(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: "position" in names(path), params)

    def decayed(params):
        def keep(path, is_table):
            name = names(path)[-1]
            return not (is_table or name.endswith("norm") or name == "bos")

        return jax.tree_util.tree_map_with_path(keep, tables(params))

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
        optax.masked(optax.scale(POSITION_RATE), tables),
    )
