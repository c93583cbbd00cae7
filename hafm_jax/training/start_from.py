"""Where a run takes its first parameters from: random values, its tokenizers' vectors, another run, or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import reading
from hafm_jax.model.pretrained import load_model
from hafm_jax.model.transformer import Params
from hafm_jax.tokenizers.folder import token_vectors
from hafm_jax.training.step import ShardedStep, State, stage_config
from hafm_jax.training.workdir import DESCRIPTION, read_description, restore_last, run_config


def first_state(config: ConfigDict, sharded: ShardedStep, description: dict[str, Any]) -> State:
    """The state before the first step. With `start_from`, `description` receives the facts of that run: started_from.

    Raises InputError where there are no such parameters, or where they are of another model or other tokens.
    """
    if config.start_from:
        params, description["started_from"] = _parameters_of(config, sharded, description["data"])
        return sharded.init() | {"params": params}
    return sharded.init(token_vectors(Path(config.tokenizers)) if config.embeddings == "tokenizers" else None)


def _parameters_of(config: ConfigDict, sharded: ShardedStep, data: dict[str, Any]) -> tuple[Params, dict[str, Any]]:
    """The parameters of the run, or of the model's stage, that `start_from` names, and the facts of that run."""
    source = Path(config.start_from)
    before = read_description(source)
    trained = None
    if "stages" in before:
        trained = load_model(config.start_from, [config.stage]).stages[config.stage]
        before = trained.facts
    found = trained.config if trained else stage_config(run_config(source, before))
    for field in ("stage_name", "d_model", "num_layers", "num_heads", "position"):
        if getattr(found, field) != getattr(sharded.config, field):
            raise InputError(
                f"--config.start_from={source} has the {field.removesuffix('_name')} {getattr(found, field)}; this run "
                f"has {getattr(sharded.config, field)}: set --config.stage, size and position as there, or start from "
                "another one"
            )
    with reading(source / "config.json", DESCRIPTION):
        made_by = before["data"]["tokenizers"]
    if made_by != data["tokenizers"]:
        raise InputError(
            f"--config.start_from={source} was trained on tokens of {made_by}, --data has those "
            f"of {data['tokenizers']}: its ids mean other sounds; extract --data with the same tokenizers"
        )
    if trained is None:
        return restore_last(source, before, sharded.state_shapes)
    shardings = jax.tree.map(lambda like: like.sharding, sharded.state_shapes["params"])
    return jax.device_put(trained.params, shardings), before
