"""Does the vocal reach the model? The loss with the right vocal against the loss with another song's.

Axes: N windows, F frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hafm_jax.common.errors import InputError
from hafm_jax.dataset.layout import cells_of
from hafm_jax.dataset.loader import crop
from hafm_jax.model import transformer
from hafm_jax.model.config import StageConfig
from hafm_jax.model.transformer import Params


class VocalUse(NamedTuple):
    """Mean cross-entropy of each window, nats a token [N]: with the right conditions, and with another song's vocal."""

    right: np.ndarray
    wrong: np.ndarray

    @property
    def margin(self) -> float:
        """The mean increase of the loss with the wrong vocal: nats a token. Above 0 the model uses the vocal."""
        return float(np.mean(self.wrong - self.right))

    @property
    def standard_error(self) -> float:
        """The standard error of the margin, over windows."""
        return float(np.std(self.wrong - self.right, ddof=1) / np.sqrt(len(self.right)))


@partial(jax.jit, static_argnums=0)
def _window_loss(config: StageConfig, params: Params, conditions: list[jax.Array], target: jax.Array) -> jax.Array:
    logits = transformer.forward(config, params, conditions, target)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, target), axis=(1, 2))


def vocal_use(config: StageConfig, params: Params, records: Sequence[Mapping[str, np.ndarray]]) -> VocalUse:
    """The losses of all windows of all records, with the right vocal and with the wrong one.

    The wrong vocal is the next record's at the same time (for the last record, the first one's). All other conditions
    stay right. Raises InputError where there are fewer than two records, or where a record is shorter than a window.
    """
    stage, length = config.stage, config.window_cells
    windows = min((cells_of(record) for record in records), default=0) // length
    if len(records) < 2 or windows < 1:
        raise InputError(
            f"found {len(records)} records of {windows} windows of {length} cells; expected at least two records of "
            "at least one window: use more or longer songs"
        )
    right, wrong = [], []
    for window in range(windows):
        crops = [crop(record, stage, window * length, length) for record in records]
        for i, own in enumerate(crops):
            other = own | {"vocal_semantic": crops[(i + 1) % len(crops)]["vocal_semantic"]}
            pair = {name: np.stack([own[name], other[name]]) for name in own}
            conditions = [pair[s.name] for s in stage.conditions]
            losses = np.asarray(_window_loss(config, params, conditions, pair[stage.target.name]))
            right.append(losses[0])
            wrong.append(losses[1])
    return VocalUse(np.array(right), np.array(wrong))
