"""Train one stage: python -m hafm_jax.train --config configs/base.py --config.stage=coarse --data TOKENS --workdir DIR

Reads a token set (tokenize/extract_tokens.py). Writes to the work directory config.json, metrics.jsonl (a line a
logged step) and checkpoints/; run again with the same directory, it goes on from the last checkpoint.
Any field of the config can be set: --config.steps=1000 --config.batch_size=8 ...

Axes: B batch, F frames, K codebooks.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from hafm_jax import __version__, data, model
from hafm_jax.checkpoint import Checkpoints
from hafm_jax.errors import InputError, run_command
from hafm_jax.loss import stage_loss
from hafm_jax.optim import learning_rate, optimizer
from hafm_jax.records import TokenRecords
from hafm_jax.sizes import StageConfig, num_parameters, train_flops

CONFIG = config_flags.DEFINE_config_file("config", "configs/base.py", "A file of configs/; its fields are flags too.")
DATA = flags.DEFINE_string("data", None, "Token set: the folder that tokenize/extract_tokens.py wrote.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and metrics go.")

State = dict[str, Any]  # params, opt_state, step


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


def split_batch(config: StageConfig, batch: data.Batch) -> tuple[list[jax.Array], jax.Array]:
    """(condition tokens in the stage's order, target tokens), each [B, F, K]."""
    return [batch[s.name] for s in config.streams.conditions], batch[config.streams.target.name]


def init_state(config: StageConfig, optimizer: optax.GradientTransformation, key: jax.Array) -> State:
    params = model.init(config, key)
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


def train_step(
    config: StageConfig, training: ConfigDict, optimizer: optax.GradientTransformation, state: State, batch: data.Batch
) -> tuple[State, dict[str, jax.Array]]:
    """One optimiser step. Its randomness (which examples lose their condition) depends on seed and step alone."""
    conditions, target = split_batch(config, batch)
    key = jax.random.fold_in(jax.random.key(training.seed), state["step"])
    drop = jax.random.bernoulli(key, training.condition_dropout, (target.shape[0],))
    conditions = model.null_conditions(config, conditions, drop)

    def objective(params):
        logits = model.forward(config, params, conditions, target, remat=training.remat)
        return stage_loss(logits, target, training.z_loss)

    (_, by_codebook), gradients = jax.value_and_grad(objective, has_aux=True)(state["params"])
    updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
    metrics = {
        "loss": jnp.mean(by_codebook),
        "loss_per_codebook": by_codebook,
        "gradient_norm": optax.global_norm(gradients),
        "learning_rate": learning_rate(training)(state["step"]),
    }
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "opt_state": opt_state, "step": state["step"] + 1}, metrics


@partial(jax.jit, static_argnums=0)
def eval_step(config: StageConfig, params: model.Params, batch: data.Batch) -> jax.Array:
    """Cross-entropy of each codebook on one batch: nats a token [K]."""
    conditions, target = split_batch(config, batch)
    return stage_loss(model.forward(config, params, conditions, target), target)[1]


def evaluate(config: StageConfig, params: model.Params, batches: list[data.Batch]) -> np.ndarray:
    """Mean cross-entropy of each codebook over the batches: nats a token [K]."""
    return np.mean([eval_step(config, params, batch) for batch in batches], axis=0)


class Metrics:
    """Appends lines to metrics.jsonl. A step's values are fetched only when the next step is already running."""

    def __init__(self, path: Path, first_step: int):
        self._file = path.open("a")
        self._held: tuple[int, dict] | None = None
        self._last = (first_step, time.monotonic())

    def hold(self, step: int, values: dict) -> None:
        self._held = (step, values)

    def flush(self, tokens_per_step: int) -> float | None:
        """Write what is held; returns its loss, if there was any."""
        if not self._held:
            return None
        (step, values), self._held = self._held, None
        loss = float(values["loss"])  # waits for the device
        (last_step, last_s), now_s = self._last, time.monotonic()
        seconds = now_s - last_s
        rate = (step - last_step) * tokens_per_step / seconds
        self._last = (step, now_s)
        self.write(step, values | {"seconds": seconds, "tokens_per_s": rate})
        return loss

    def write(self, step: int, values: dict) -> None:
        plain = {name: np.asarray(value).tolist() for name, value in values.items()}
        if not all(np.isfinite(value).all() for value in plain.values()):
            raise InputError(f"the loss is not finite at step {step} ({plain}): lower --config.learning_rate")
        self._file.write(json.dumps({"step": step} | plain) + "\n")
        self._file.flush()
        self._last = (self._last[0], time.monotonic())  # what came before (evaluation, say) is no training time

    def close(self) -> None:
        self._file.close()


def describe(config: ConfigDict, records: TokenRecords) -> dict[str, Any]:
    """What config.json holds: the configuration, the data, the versions and the machine."""
    return {
        "config": config.to_dict(),
        "data": {"records": len(records), "fingerprint": records.fingerprint},
        "versions": {"hafm_jax": __version__, "jax": jax.__version__, "python": platform.python_version()},
        "devices": [d.device_kind for d in jax.devices()],
        "cores": os.cpu_count(),
    }


def start_workdir(workdir: Path, description: dict[str, Any], resumed: bool) -> None:
    """Write config.json, or check on resume that it is the same run that goes on."""
    path = workdir / "config.json"
    if resumed:
        before = json.loads(path.read_text())
        changed = [k for k, v in description["config"].items() if before["config"].get(k) != v]
        if before["data"] != description["data"]:
            changed.append("data")
        if changed:
            raise InputError(
                f"{workdir} holds a run with another {', '.join(changed)}: give a new --workdir, or the same settings"
            )
    path.write_text(json.dumps(description, indent=2) + "\n")


def train(config: ConfigDict, data_dir: Path, workdir: Path) -> State:
    """Train to `config.steps` and return the last state. Raises InputError where config or data cannot be used."""
    stage = stage_config(config)
    records = TokenRecords(data_dir, "train")
    validation = list(
        data.eval_batches(
            TokenRecords(data_dir, "validation"),
            stage.streams,
            stage.window_cells,
            config.batch_size,
            config.eval_batches,
        )
    )
    batches = data.train_batches(records, stage.streams, stage.window_cells, config.batch_size, config.seed)

    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {workdir}: {error.strerror}; choose another --workdir") from error
    checkpoints = Checkpoints(workdir, config.keep_checkpoints)
    latest = checkpoints.latest()
    start_workdir(workdir, describe(config, records), resumed=latest is not None)

    transform = optimizer(config)
    start = partial(init_state, stage, transform)
    key = jax.random.key(config.seed)
    if latest is None:
        state = jax.jit(start)(key)
    else:
        state = checkpoints.restore(latest, jax.eval_shape(start, key))
    first_step = int(state["step"])

    step_fn = jax.jit(partial(train_step, stage, config, transform), donate_argnums=0)
    tokens_per_step = config.batch_size * stage.streams.num_tokens(stage.window_cells)
    flops_per_step = config.batch_size * train_flops(stage, stage.window_cells)
    print(
        f"{config.stage} stage: {num_parameters(stage) / 1e6:.1f} M parameters, {tokens_per_step} tokens and "
        f"{flops_per_step / 1e9:.0f} GFLOP a step, {len(records)} training records, from step {first_step}"
    )
    metrics = Metrics(workdir / "metrics.jsonl", first_step)
    progress = tqdm(total=config.steps, initial=first_step, desc=config.stage, unit="step")
    for step in range(first_step, config.steps):
        state, values = step_fn(state, batches[step])
        done = step + 1
        last = done == config.steps
        if (loss := metrics.flush(tokens_per_step)) is not None:
            progress.set_postfix(loss=f"{loss:.3f}")
        progress.update()
        if done % config.log_every == 0 or last:
            metrics.hold(done, values)
        if done % config.eval_every == 0 or last:
            metrics.flush(tokens_per_step)
            by_codebook = evaluate(stage, state["params"], validation)
            metrics.write(done, {"validation_loss": by_codebook.mean(), "validation_loss_per_codebook": by_codebook})
        if done % config.checkpoint_every == 0 or last:
            checkpoints.save(done, state)
    progress.close()
    metrics.close()
    checkpoints.close()
    return state


def main() -> None:
    try:
        flags.FLAGS(sys.argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{str(error).splitlines()[0]}; see --help") from error
    for flag in (DATA, WORKDIR):
        if not flag.value:
            raise InputError(f"--{flag.name} is missing; see --help")
    train(CONFIG.value, Path(DATA.value), Path(WORKDIR.value))


if __name__ == "__main__":
    run_command(main)
