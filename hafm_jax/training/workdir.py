"""Read what a training run left in its work directory."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.model.pretrained import StageWeights
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.transformer import Params
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.optim import optimizer
from hafm_jax.training.step import State, init_state, stage_config


def read_description(workdir: Path) -> dict[str, Any]:
    """Its config.json (training.describe). Raises InputError where there is none."""
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; expected a work directory of hafm_jax.train")
    return json.loads(path.read_text())


def restore_last(workdir: Path, description: dict[str, Any], like: State) -> tuple[Params, dict[str, Any]]:
    """The parameters of its last checkpoint that can be read, as `like` says (Checkpoints.restore), and what is known
    of the run: its description, the step and the losses there. Raises InputError where there is no checkpoint."""
    checkpoints = Checkpoints(workdir, keep=1)
    found = checkpoints.restore_latest(like)
    checkpoints.close()
    if found is None:
        raise InputError(f"{workdir} holds no complete checkpoint; train to --config.checkpoint_every steps at least")
    step, state = found
    return state["params"], description | {"step": step} | last_metrics(workdir, step)


def load_run(workdir: Path) -> StageWeights:
    """The last checkpoint of a training run that can be read. Raises InputError where there is none."""
    description = read_description(workdir)
    training = ConfigDict(description["config"])
    config = stage_config(training)
    shapes = jax.eval_shape(partial(init_state, config, optimizer(training)), jax.random.key(0))
    params, facts = restore_last(workdir, description, shapes)
    return StageWeights(config, params, facts, Sampling(**training.get("sampling", {})))


def last_metrics(workdir: Path, step: int) -> dict[str, Any]:
    """The last logged losses up to `step`, and how many minutes the run has trained."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    facts: dict[str, Any] = {}
    for line in lines:
        if line["step"] <= step:
            facts |= {k: v for k, v in line.items() if "loss" in k}
    facts["minutes"] = round(sum(line.get("seconds", 0.0) for line in lines if line["step"] <= step) / 60, 1)
    return facts
