"""The work directory of a training run: describe a run in it, check what a resumed run may change, read it back."""

from __future__ import annotations

import os
import platform
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from hafm_jax import __version__
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, reading, write_json
from hafm_jax.dataset import fingerprint, loader
from hafm_jax.model.pretrained import StageWeights
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.transformer import Params
from hafm_jax.training import hosts
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.log import read_metrics
from hafm_jax.training.optim import optimizer
from hafm_jax.training.settings import check_config
from hafm_jax.training.step import State, init_state, stage_config

# Fields that may change when a run resumes: how the work is laid out and how often it is written, nothing computed.
RESUMABLE_FIELDS = ("mesh", "remat", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints")
RESUMABLE_FIELDS += ("sample_every", "sampling", "tokenizers", "profile_first_step", "profile_steps")
DESCRIPTION = (
    "the description of a run that hafm_jax.train wrote: restore it from a copy, or begin the same run in another "
    "--workdir and copy its config.json here"
)


def describe(config: ConfigDict, mixture: loader.Mixture) -> dict[str, Any]:
    """The content of config.json: the configuration, the data, the versions and the machine."""
    return {
        "config": config.to_dict(),
        "data": fingerprint.describe_data(mixture),
        "versions": {"hafm_jax": __version__, "jax": jax.__version__, "python": platform.python_version()},
        "devices": sorted({d.device_kind for d in jax.devices()}),
        "device_count": jax.device_count(),
        "cores": os.cpu_count(),
    }


def changed_fields(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The fields in which two configurations differ and a run's results would differ too."""
    return [k for k, v in now.items() if k not in RESUMABLE_FIELDS and before.get(k) != v]


def start_workdir(workdir: Path, description: dict[str, Any], resumed: bool) -> None:
    """Write config.json. On resume every process checks first that configuration and data are those of the run.

    Raises InputError where they are not.
    """
    if resumed:
        before = read_description(workdir)
        if "started_from" in before:
            description["started_from"] = before["started_from"]
        changed = changed_fields(before["config"], description["config"])
        if any(description["data"].get(k) != v for k, v in before["data"].items()):
            changed.append("data")
        if changed:
            raise InputError(
                f"{workdir} holds a run with another {', '.join(changed)}: give a new --workdir, or the same settings"
            )
    if hosts.is_first():
        write_json(workdir / "config.json", description)


def read_description(workdir: Path) -> dict[str, Any]:
    """The content of config.json, of a work or a model directory. Raises InputError where there is none, or where it
    has not what `describe` writes."""
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; expected a work directory of hafm_jax.train, with {DESCRIPTION}")
    description = read_json(path, DESCRIPTION)
    if "stages" not in description:  # of a model: load_model checks it
        with reading(path, DESCRIPTION):
            _check_description(description)
    return description


def _check_description(description: dict[str, Any]) -> None:
    """Raises KeyError or TypeError where something is missing that resuming or exporting a run reads."""
    config, data = description["config"], description["data"]
    wanted = {"config": dict, "data": dict, "versions": dict, "devices": list}
    values = {name: (description[name], kind) for name, kind in wanted.items()}
    values |= {"batch_size": (config["batch_size"], int), "seed": (config["seed"], int)}
    values |= {"fingerprint": (data["fingerprint"], str), "records": (data["records"], int)}
    values |= {"devices": (description["devices"][:1], list)}
    for name, (value, kind) in values.items():
        if not isinstance(value, kind) or value == []:
            raise TypeError(f"{name} is {value!r}")
    if "started_from" in description:
        before = description["started_from"]
        _check_description(before)
        if not isinstance(before["step"], int):
            raise TypeError(f"step is {before['step']!r}")


def run_config(workdir: Path, description: dict[str, Any]) -> ConfigDict:
    """The configuration of a run. Raises InputError where a field cannot be used."""
    with reading(workdir / "config.json", DESCRIPTION):
        config = ConfigDict(description["config"])  # ValueError on names with dots
    try:
        check_config(config)
    except InputError as error:
        raise InputError(f"{workdir / 'config.json'}: {error}") from error
    return config


def restore_last(workdir: Path, description: dict[str, Any], like: State) -> tuple[Params, dict[str, Any]]:
    """The parameters of the last whole checkpoint, placed as in `like` (Checkpoints.restore), and the run's facts:
    its description, the step and the losses there. Changes nothing. Raises InputError where there is no checkpoint."""
    checkpoints = Checkpoints(workdir, keep=None)
    found = checkpoints.restore_latest(like)
    checkpoints.close()
    if found is None:
        raise InputError(
            f"{workdir} holds no complete checkpoint; expected one: train for at least --config.checkpoint_every steps"
        )
    step, state = found
    return state["params"], description | {"step": step} | last_metrics(workdir, step)


def load_run(workdir: Path) -> StageWeights:
    """The last whole checkpoint of a training run. Raises InputError where there is none, and where the run's
    description is damaged; damaged metrics are left out of its facts."""
    description = read_description(workdir)
    training = run_config(workdir, description)
    shapes = jax.eval_shape(partial(init_state, stage_config(training), optimizer(training)), jax.random.key(0))
    params, facts = restore_last(workdir, description, shapes)
    return StageWeights(stage_config(training), params, facts, Sampling(**training.sampling))


def last_metrics(workdir: Path, step: int) -> dict[str, Any]:
    """The last logged losses up to `step`, and the minutes of training until then, as far as they are logged."""
    facts: dict[str, Any] = {}
    records = read_metrics(workdir, step)
    for record in records:
        facts |= {k: v for k, v in record.items() if "loss" in k}
    if records:
        facts["minutes"] = round(sum(record.get("seconds", 0.0) for record in records) / 60, 1)
    return facts
