"""One optimiser step and one evaluation of a stage, as a training configuration describes them, on a device mesh.

Axes: B batch, A accumulated parts of it, F frames, K codebooks, V vocabulary.
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
from hafm_jax.common.options import from_fields
from hafm_jax.dataset.loader import Batch
from hafm_jax.model import sharding, transformer
from hafm_jax.model.attention import num_computed_pairs
from hafm_jax.model.config import StageConfig, train_flops
from hafm_jax.training.corruption import corrupt_history
from hafm_jax.training.optim import learning_rate, optimizer

State = dict[str, Any]  # params, opt_state, step


def stage_config(config: ConfigDict) -> StageConfig:
    """The model part of a training configuration. Raises InputError on a value that the model cannot have."""
    fields = {name: config[name] for name in ("stage", "size", "window_cells", "position", "compute_dtype")}
    return from_fields(StageConfig.of_size, fields, "--config")


def split_batch(config: StageConfig, batch: Batch) -> tuple[list[jax.Array], jax.Array]:
    """(condition tokens in the stage's order, target tokens), each [B, F, K]."""
    return [batch[s.name] for s in config.stage.conditions], batch[config.stage.target.name]


def step_flops(config: StageConfig, batch_size: int) -> int:
    """FLOPs that a step computes without remat. Elementwise work outside the softmax is left out.

    The sum of the model's products (config.train_flops), of what attention in blocks adds (pairs that the mask hides,
    scores that the backward pass computes again), and of the softmax over the vocabulary, which matters at small
    widths.
    """
    tokens = config.stage.num_tokens(config.window_cells)
    pairs = num_computed_pairs(config.stage, config.window_cells, config.position)
    # A product of 2 D FLOPs for each pair in each layer: two forward and five backward; train_flops has four of these.
    added = 2 * config.d_model * config.num_layers * (7 * pairs - 6 * tokens * (tokens + 1) // 2)
    target = config.stage.target
    logits = config.window_cells * target.tokens_per_cell * target.vocabulary
    # For each logit: maximum, difference and sum, and backward a product and a difference.
    return batch_size * (train_flops(config, config.window_cells) + added + 5 * logits)


def init_state(
    config: StageConfig,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    vectors: transformer.TokenVectors | None = None,
) -> State:
    params = transformer.init(config, key, vectors)
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


def stage_loss(logits: jax.Array, target: jax.Array, z_loss: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """The loss that training minimises, and the cross-entropy of each codebook: nats a token, (scalar, [K]).

    logits float32 [B, F, K, V], target ids [B, F, K]. Every codebook has the same weight [paper]. `z_loss` times the
    squared log-normaliser keeps logits from drifting (PaLM uses 1e-4); only the first value includes it.
    """
    by_codebook = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, target), axis=(0, 1))
    drift = jnp.mean(jnp.square(jax.nn.logsumexp(logits, axis=-1)))
    return jnp.mean(by_codebook) + z_loss * drift, by_codebook


def train_step(
    config: StageConfig, training: ConfigDict, optimizer: optax.GradientTransformation, state: State, batch: Batch
) -> tuple[State, dict[str, jax.Array]]:
    """One optimiser step. Its randomness (which examples lose their condition, and where their history is corrupted)
    depends on seed and step alone."""
    conditions, target = split_batch(config, batch)
    key = jax.random.fold_in(jax.random.key(training.seed), state["step"])
    drop = jax.random.bernoulli(key, training.condition_dropout, (target.shape[0],))
    conditions = transformer.null_conditions(config, conditions, drop)
    history = labels = target
    if training.history_corruption:
        share = jnp.where(drop, 0, training.history_corruption)  # without its condition a stage has only its past
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
    """A run's compiled functions, for one mesh. The state is never materialised unsharded on one device.

    Raises InputError where the batch or the heads cannot be divided among the devices.
    """

    def __init__(self, training: ConfigDict, mesh: Mesh):
        self.config, self.mesh = stage_config(training), mesh
        together = sharding.batch_shards(mesh) * training.accumulate_steps
        if training.batch_size % together:
            raise InputError(
                f"--config.batch_size {training.batch_size} is not a multiple of {together}, the devices that share it "
                "(mesh.data x mesh.fsdp) times accumulate_steps: set it to one"
            )
        if self.config.num_heads % mesh.shape["tensor"]:
            raise InputError(
                f"the {self.config.num_heads} heads of size {training.size} cannot be divided among mesh.tensor "
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
        """The shapes of a global batch, by stream."""
        return {
            s.name: jax.ShapeDtypeStruct(
                (batch_size, self.config.window_cells * s.frames_per_cell, s.codebooks),
                jnp.int32,
                sharding=self.batch_sharding,
            )
            for s in self.config.stage.streams
        }

    def compile(self, batch_size: int) -> jax.stages.Compiled:
        """Compile the step, (state, batch) -> (state, metrics). It reuses the memory of the state that it receives."""
        with jax.set_mesh(self.mesh):
            return self.step.lower(self.state_shapes, self.batch_shapes(batch_size)).compile()

    def init(self, vectors: transformer.TokenVectors | None = None) -> State:
        """The state before the first step (transformer.init)."""
        with jax.set_mesh(self.mesh):
            return self._init(self.key, vectors)

    def place(self, rows: Batch) -> dict[str, jax.Array]:
        """This process's rows of a batch -> the global batch on the devices."""
        return {name: jax.make_array_from_process_local_data(self.batch_sharding, x) for name, x in rows.items()}

    def evaluate(self, params: transformer.Params, batches: list[dict[str, jax.Array]]) -> np.ndarray:
        """Mean cross-entropy of each codebook over the batches: nats a token [K]."""
        with jax.set_mesh(self.mesh):
            return np.mean([eval_step(self.config, params, batch) for batch in batches], axis=0)
