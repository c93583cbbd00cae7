"""What the user sets for a run: the fields of its configuration (configs/base.py), checked, and its token sets."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.common.options import check_number, check_word, from_fields
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.transformer import REMAT
from hafm_jax.training.step import stage_config

TokenSets = list[tuple[Path, float]]  # folders and their weights

BELOW_ONE = math.nextafter(1.0, 0.0)
MOST_STEPS = 2**31 - 1  # the state counts them in int32
EMBEDDINGS = ("random", "tokenizers")  # what embeddings and heads may start from
# Field -> its kind, its least and its largest value.
RANGES: dict[str, tuple[type, float, float]] = {
    **dict.fromkeys(("steps", "batch_size", "accumulate_steps"), (int, 1, MOST_STEPS)),
    **dict.fromkeys(("log_every", "eval_every", "eval_batches"), (int, 1, math.inf)),
    **dict.fromkeys(("checkpoint_every", "keep_checkpoints"), (int, 1, math.inf)),
    **dict.fromkeys(("warmup_steps", "sample_every", "profile_first_step", "profile_steps"), (int, 0, math.inf)),
    **dict.fromkeys(("weight_decay", "z_loss"), (float, 0, math.inf)),
    **dict.fromkeys(("learning_rate", "clip_norm"), (float, 1e-12, math.inf)),  # 0 would train nothing
    **dict.fromkeys(("condition_dropout", "history_corruption", "beta1", "beta2"), (float, 0, BELOW_ONE)),
    "seed": (int, 0, 2**31 - 1),
}
FOLDERS = ("start_from", "tokenizers")  # or ""
FIELDS = (*RANGES, *FOLDERS, "stage", "size", "position", "window_cells", "compute_dtype")
FIELDS += ("embeddings", "remat", "mesh", "sampling")


def token_sets(arguments: list[str]) -> TokenSets:
    """The values of --data, each DIR or DIR=WEIGHT; a folder whose own name has a "=" is itself.

    Raises InputError where a weight is not a number, and where both a folder DIR=WEIGHT and a folder DIR are there.
    """
    return [_token_set(argument) for argument in arguments]


def _token_set(argument: str) -> tuple[Path, float]:
    directory, equals, text = argument.rpartition("=")
    try:
        weight = float(text) if equals else None
    except ValueError:
        weight = None
    if not equals or os.path.exists(argument):  # Path.exists raises on names that are too long
        if weight is not None and os.path.exists(directory):
            raise InputError(
                f"--data {argument} is the folder of that name, or {directory} with the weight {text}, and both are "
                f"there: give {argument}=1, or {directory}/={text}"
            )
        return Path(argument), 1.0
    if weight is None or not directory:
        raise InputError(
            f"--data {argument}: {text!r} is not a weight, and there is no folder of the whole name; expected TOKENS "
            "or TOKENS=NUMBER"
        )
    return Path(directory), weight


def _check_mesh(data: int, fsdp: int, tensor: int) -> None:
    for name, value in (("data", data), ("fsdp", fsdp), ("tensor", tensor)):
        check_number(name, value, int, -1, MOST_STEPS)


def check_config(config: ConfigDict) -> None:
    """Raises InputError where a field is missing or cannot be used: before anything is read or compiled."""
    if missing := [name for name in FIELDS if name not in config]:
        raise InputError(f"the configuration has no {', '.join(missing)}; expected all fields of configs/base.py")
    for name, limits in RANGES.items():
        check_number(f"--config.{name}", config[name], *limits)
    for name in FOLDERS:
        if not isinstance(config[name], str):
            raise InputError(f"--config.{name} is {config[name]!r}; expected the name of a folder, or nothing")
    from_fields(_check_mesh, config.mesh, "--config.mesh")
    check_word("--config.remat", config.remat, REMAT)
    check_word("--config.embeddings", config.embeddings, EMBEDDINGS)
    from_fields(Sampling.checked, config.sampling, "--config.sampling")
    stage_config(config)
    if config.history_corruption and config.batch_size == 1:
        raise InputError(
            f"--config.history_corruption is {config.history_corruption} and --config.batch_size 1; expected at "
            "least 2, since a corrupted history comes from another window of the batch: set one of them"
        )
    if config.embeddings == "tokenizers" and not config.tokenizers:
        raise InputError(
            "--config.embeddings=tokenizers needs the folder of the tokenizers that made the tokens: set "
            "--config.tokenizers, or --config.embeddings=random"
        )
