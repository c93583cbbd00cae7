"""One optimiser step and one evaluation, sharded: what a training configuration makes of a stage.

Axes: B batch, A accumulated parts of it, F frames, K codebooks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.dataset.loader import Batch
from hafm_jax.model import sharding, transformer
from hafm_jax.model.attention import num_computed_pairs
from hafm_jax.model.config import StageConfig, train_flops
from hafm_jax.streams import Stage
from hafm_jax.training.loss import stage_loss
from hafm_jax.training.optim import learning_rate, optimizer

State = dict[str, Any]  # params, opt_state, step
MOMENT_DTYPES = ("float32", "bfloat16")
CORRUPTION_SPAN = 0.2  # ours: how long the false music lasts on average, of the window: 2 s of 10, some bars


def stage_config(config: ConfigDict) -> StageConfig:
    """The model part of a training configuration. Raises InputError on a value that makes no model."""
    try:
        return StageConfig.of_size(
            config.stage,
            config.size,
            window_cells=config.window_cells,
            position=config.position,
            compute_dtype=config.compute_dtype,
        )
    except ValueError as error:
        raise InputError(f"--config: {error}") from error


def split_batch(config: StageConfig, batch: Batch) -> tuple[list[jax.Array], jax.Array]:
    """(condition tokens in the stage's order, target tokens), each [B, F, K]."""
    return [batch[s.name] for s in config.stage.conditions], batch[config.stage.target.name]


def step_flops(config: StageConfig, batch_size: int) -> int:
    """FLOPs that a step computes without remat: the model's products (sizes.train_flops), what attention in blocks
    adds, pairs that the mask hides and scores that the backward pass forms again, and the softmax over the vocabulary,
    which counts at small widths. Other elementwise work is left out."""
    tokens = config.stage.num_tokens(config.window_cells)
    pairs = num_computed_pairs(config.stage, config.window_cells, config.position)
    # Of each pair, in each layer, a product of 2 D FLOPs: two forward and five backward, of which the model has four.
    added = 2 * config.d_model * config.num_layers * (7 * pairs - 6 * tokens * (tokens + 1) // 2)
    target = config.stage.target
    logits = config.window_cells * target.tokens_per_cell * target.vocabulary
    # Of each logit: maximum, difference and sum, and backward a product and a difference.
    return batch_size * (train_flops(config, config.window_cells) + added + 5 * logits)


def init_state(
    config: StageConfig,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    vectors: transformer.TokenVectors | None = None,
) -> State:
    params = transformer.init(config, key, vectors)
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


def corrupt_history(stage: Stage, target: jax.Array, share: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(history, labels), each int [B, F, K]: what stands for the target as the model's past, and what it is to predict.

    Against exposure bias: a model that has seen true pasts alone follows its own mistakes rather than its conditions.
    Of a window a share of its cells, drawn between 0 and its `share` [B], holds the music of the batch's next window
    instead, in stretches of CORRUPTION_SPAN on average. The first codebook of a false frame is still to be that of the
    window's own music. Its later codebooks are to fit the first one that stands there, as they are sampled.
    """
    num_windows, frames, codebooks = target.shape
    cells = frames // stage.target.frames_per_cell
    begins_key, share_key, false_key = jax.random.split(key, 3)
    begins = jax.random.bernoulli(begins_key, 1 / max(1.0, CORRUPTION_SPAN * cells), (num_windows, cells))
    shares = share[:, None] * jax.random.uniform(share_key, (num_windows, 1))
    is_false = jax.random.bernoulli(false_key, shares, (num_windows, cells))  # of a window's stretches, by number
    is_false = jnp.take_along_axis(is_false, jnp.cumsum(begins, 1) - begins[:, :1], axis=1)
    is_false = jnp.repeat(is_false, stage.target.frames_per_cell, axis=1)[..., None]  # [B, F, 1]
    history = jnp.where(is_false, jnp.roll(target, -1, axis=0), target)
    return history, jnp.where(jnp.arange(codebooks) == 0, target, history)


def train_step(
    config: StageConfig, training: ConfigDict, optimizer: optax.GradientTransformation, state: State, batch: Batch
) -> tuple[State, dict[str, jax.Array]]:
    """One optimiser step. Its randomness (which examples lose their condition, and where their past is false) depends
    on seed and step alone."""
    conditions, target = split_batch(config, batch)
    key = jax.random.fold_in(jax.random.key(training.seed), state["step"])
    drop = jax.random.bernoulli(key, training.condition_dropout, (target.shape[0],))
    conditions = transformer.null_conditions(config, conditions, drop)
    history = labels = target
    if training.false_history:
        share = jnp.where(drop, 0, training.history_corruption)  # without its condition a stage has its past alone
        history, labels = corrupt_history(config.stage, target, share, jax.random.fold_in(key, 1))

    def objective(params, conditions, history, labels):
        logits = transformer.forward(config, params, conditions, history, remat=training.remat)
        return stage_loss(logits, labels, training.z_loss)

    def gradients_of(conditions, history, labels):
        value_and_gradients = jax.value_and_grad(objective, has_aux=True)
        (_, by_codebook), gradients = value_and_gradients(state["params"], conditions, history, labels)
        return by_codebook, gradients

    parts = training.accumulate_steps
    if parts == 1:
        by_codebook, gradients = gradients_of(conditions, history, labels)
    else:
        # Every device's examples are in every part.
        split = [
            sharding.constrain(x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), None, "batch")  # [A, B / A, F, K]
            for x in (*conditions, history, labels)
        ]

        def accumulate(sums, part):
            return jax.tree.map(jnp.add, sums, gradients_of(list(part[:-2]), *part[-2:])), None

        zeros = (jnp.zeros(config.stage.target.codebooks), jax.tree.map(jnp.zeros_like, state["params"]))
        sums, _ = jax.lax.scan(accumulate, zeros, split)
        by_codebook, gradients = jax.tree.map(lambda x: x / parts, sums)

    updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
    metrics = {
        "loss": jnp.mean(by_codebook),
        "loss_per_codebook": by_codebook,
        "gradient_norm": optax.tree.norm(gradients),
        "learning_rate": learning_rate(training)(state["step"]),
    }
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "opt_state": opt_state, "step": state["step"] + 1}, metrics


@partial(jax.jit, static_argnums=0)
def eval_step(config: StageConfig, params: transformer.Params, batch: Batch) -> jax.Array:
    """Cross-entropy of each codebook on one batch: nats a token [K]."""
    conditions, target = split_batch(config, batch)
    return stage_loss(transformer.forward(config, params, conditions, target), target)[1]


class ShardedStep:
    """A run's compiled functions, for one mesh. Nothing of the state ever lies on one device unsplit.

    Raises InputError where the batch or the heads cannot be dealt out to the devices.
    """

    def __init__(self, training: ConfigDict, mesh: Mesh):
        self.config, self.mesh = stage_config(training), mesh
        if training.remat not in transformer.REMAT:
            raise InputError(f"--config.remat is {training.remat!r}; expected one of {', '.join(transformer.REMAT)}")
        if training.moment_dtype not in MOMENT_DTYPES:
            raise InputError(
                f"--config.moment_dtype is {training.moment_dtype!r}; expected one of {', '.join(MOMENT_DTYPES)}"
            )
        together = sharding.batch_shards(mesh) * training.accumulate_steps
        if training.batch_size % together:
            raise InputError(
                f"--config.batch_size {training.batch_size} is no multiple of {together}, the devices that share it "
                "(mesh.data x mesh.fsdp) times accumulate_steps: set it to one"
            )
        if self.config.num_heads % mesh.shape["tensor"]:
            raise InputError(
                f"the {self.config.num_heads} heads of size {training.size} cannot be dealt out to mesh.tensor "
                f"{mesh.shape['tensor']}: set --config.mesh.tensor to a divisor"
            )
        transform = optimizer(training)
        start = partial(init_state, self.config, transform)
        self.key = jax.random.key(training.seed)
        shapes = jax.eval_shape(start, self.key)
        self.state_shardings = sharding.state_shardings(mesh, shapes)
        self.state_shapes = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self.state_shardings
        )
        self.batch_sharding = sharding.batch_sharding(mesh)
        self._init = jax.jit(start, out_shardings=self.state_shardings)
        self.step = jax.jit(
            partial(train_step, self.config, training, transform),
            donate_argnums=0,
            out_shardings=(self.state_shardings, None),
        )

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Of a global batch."""
        return {
            s.name: jax.ShapeDtypeStruct(
                (batch_size, self.config.window_cells * s.frames_per_cell, s.codebooks),
                jnp.int32,
                sharding=self.batch_sharding,
            )
            for s in self.config.stage.streams
        }

    def compile(self, batch_size: int) -> jax.stages.Compiled:
        """The step, ahead of time: (state, batch) -> (state, metrics); the state given is used up."""
        with jax.set_mesh(self.mesh):
            return self.step.lower(self.state_shapes, self.batch_shapes(batch_size)).compile()

    def init(self, vectors: transformer.TokenVectors | None = None) -> State:
        """The state before the first step (model.init)."""
        with jax.set_mesh(self.mesh):
            return self._init(self.key, vectors)

    def place(self, rows: Batch) -> dict[str, jax.Array]:
        """This process's rows of a batch -> the global batch on the devices."""
        return {name: jax.make_array_from_process_local_data(self.batch_sharding, x) for name, x in rows.items()}

    def evaluate(self, params: transformer.Params, batches: list[dict[str, jax.Array]]) -> np.ndarray:
        """Mean cross-entropy of each codebook over the batches: nats a token [K]."""
        with jax.set_mesh(self.mesh):
            return np.mean([eval_step(self.config, params, batch) for batch in batches], axis=0)
