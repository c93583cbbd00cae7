"""One training run of a stage, from its configuration and token sets to its last checkpoint.

A work directory holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and, where the configuration asks for
them, sounds/ and profile/. A run that finds a checkpoint there goes on from it, bit for bit.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from hafm_jax import __version__
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes
from hafm_jax.dataset import fingerprint, loader
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.model import sharding, transformer
from hafm_jax.model.config import num_parameters, train_flops
from hafm_jax.model.pretrained import load_model
from hafm_jax.tokenizers.folder import token_vectors
from hafm_jax.training import hosts
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.log import RunLog
from hafm_jax.training.preview import Audition
from hafm_jax.training.step import ShardedStep, State, stage_config
from hafm_jax.training.workdir import read_description, restore_last

TokenSets = list[tuple[Path, float]]  # folders and their weights


# Field -> the least that it may be, and what it must stay below.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("steps", "batch_size", "accumulate_steps"), (1, math.inf)),
    **dict.fromkeys(("log_every", "eval_every", "eval_batches", "checkpoint_every", "keep_checkpoints"), (1, math.inf)),
    **dict.fromkeys(("keep_every", "sample_every", "profile_first_step", "profile_steps"), (0, math.inf)),
    **dict.fromkeys(("warmup_steps", "weight_decay", "z_loss"), (0, math.inf)),
    **dict.fromkeys(("learning_rate", "clip_norm"), (1e-12, math.inf)),  # 0 would train nothing
    **dict.fromkeys(("condition_dropout", "history_corruption", "beta1", "beta2"), (0, 1)),
    "seed": (0, 2**31),
}


EMBEDDINGS = ("random", "tokenizers")  # where they start


def check_config(config: ConfigDict) -> None:
    """Raises InputError where a field cannot be used: before anything is read or compiled."""
    for name, (least, below) in RANGES.items():
        if not least <= config[name] < below:
            most = f" and below {below}" if below < math.inf else ""
            raise InputError(f"--config.{name} is {config[name]}; expected at least {least}{most}")
    if config.history_corruption and config.batch_size == 1:
        raise InputError(
            f"--config.history_corruption is {config.history_corruption} and --config.batch_size 1; expected at "
            "least 2, since what is false comes from the batch's other windows: set one of them"
        )
    if config.embeddings not in EMBEDDINGS:
        raise InputError(f"--config.embeddings is {config.embeddings!r}; expected one of {', '.join(EMBEDDINGS)}")
    if config.embeddings == "tokenizers" and not config.tokenizers:
        raise InputError(
            "--config.embeddings=tokenizers needs the folder of the tokenizers that made the tokens: set "
            "--config.tokenizers, or --config.embeddings=random"
        )


class Preempted(Exception):
    """The machine goes away; the message says what was saved."""


class NotFinite(InputError):
    """The loss or its gradient is no number any more."""


def token_sets(arguments: list[str]) -> TokenSets:
    """What --data says: DIR or DIR=WEIGHT."""
    sets = []
    for argument in arguments:
        directory, equals, weight = argument.rpartition("=")
        try:
            sets.append((Path(directory), float(weight)) if equals else (Path(argument), 1.0))
        except ValueError as error:
            raise InputError(f"--data {argument}: {weight!r} is no weight; expected TOKENS or TOKENS=NUMBER") from error
    return sets


def describe(config: ConfigDict, mixture: loader.Mixture) -> dict[str, Any]:
    """What config.json holds: the configuration, the data, the versions and the machine."""
    return {
        "config": config.to_dict(),
        "data": fingerprint.describe_data(mixture),
        "versions": {"hafm_jax": __version__, "jax": jax.__version__, "python": platform.python_version()},
        "devices": sorted({d.device_kind for d in jax.devices()}),
        "device_count": jax.device_count(),
        "cores": os.cpu_count(),
    }


# What may change when a run goes on: how the work is laid out, how often it is written, but nothing that is computed.
FREE = ("mesh", "remat", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints", "keep_every")
FREE += ("sample_every", "sampling", "tokenizers", "profile_first_step", "profile_steps")


# Fields that configurations did not always have, and what runs of before then did.
SINCE = {"embeddings": "random", "history_corruption": 0.0, "start_from": ""}


def changed_fields(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Fields of two configurations, in which a run's results would differ."""
    before = SINCE | before
    return [k for k, v in now.items() if k not in FREE and before.get(k) != v]


def start_workdir(workdir: Path, description: dict[str, Any], resumed: bool) -> None:
    """Write config.json; on resume every process checks first that it is the same run that goes on."""
    path = workdir / "config.json"
    if resumed:
        before = json.loads(path.read_text())
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
        write_bytes(path, json.dumps(description, indent=2).encode() + b"\n")


def _check_finite(values: dict[str, jax.Array], step: int, batches: Any, workdir: Path) -> None:
    """Raises NotFinite where the loss of `step` or its gradient is no number, and keeps this process's rows of its
    batch. The loss alone would tell a step too late: it is that of the parameters before the update."""
    names = [name for name in ("loss", "gradient_norm") if not np.isfinite(values[name])]
    if not names:
        return
    path = workdir / f"not-finite-{step}-{jax.process_index()}.npz"
    np.savez(path, **batches[step - 1])
    raise NotFinite(
        f"{names[0]} is not finite at step {step}; its batch is kept in {path}, the last good checkpoint in {workdir}: "
        "look at the batch, or train with a lower --config.learning_rate into a new --workdir"
    )


def _vectors(config: ConfigDict) -> transformer.TokenVectors | None:
    """What embeddings and heads start from."""
    return token_vectors(Path(config.tokenizers)) if config.embeddings == "tokenizers" else None


def _start_from(
    config: ConfigDict, sharded: ShardedStep, data: dict[str, Any]
) -> tuple[transformer.Params, dict[str, Any]]:
    """The parameters of the run that `start_from` names, or of the model's stage, and what config.json says of them:
    what is known of the run that made them, and how far it came.

    Raises InputError where there are none, or where their model or their tokens are of another kind.
    """
    source = Path(config.start_from)
    before = read_description(source)
    if "stages" in before:
        trained = load_model(config.start_from, [config.stage]).stages[config.stage]
        found, before = trained.config, trained.facts
    else:
        trained, found = None, stage_config(ConfigDict(before["config"]))
    expected = sharded.config
    for field in ("stage_name", "d_model", "num_layers", "num_heads", "position"):
        if getattr(found, field) != getattr(expected, field):
            raise InputError(
                f"--config.start_from={source} has the {field} {getattr(found, field)}; this run has "
                f"{getattr(expected, field)}: set --config.stage, size and position as there, or start from another one"
            )
    if before["data"]["tokenizers"] != data["tokenizers"]:
        raise InputError(
            f"--config.start_from={source} learnt the tokens of {before['data']['tokenizers']}, --data has those of "
            f"{data['tokenizers']}: its ids mean other sounds; extract --data with the same tokenizers"
        )
    if trained is None:
        return restore_last(source, before, sharded.state_shapes)
    shardings = jax.tree.map(lambda like: like.sharding, sharded.state_shapes["params"])
    return jax.device_put(trained.params, shardings), before


def train(config: ConfigDict, token_sets: TokenSets, workdir: Path, quiet: bool = False) -> State:
    """Train to `config.steps` and return the last state. `quiet`: without a word or a bar on the terminal.

    Raises InputError where config or data cannot be used, NotFinite where the loss or its gradient is no number any
    more, Preempted after SIGTERM, KeyboardInterrupt after Ctrl-C; the message of the last two says what was saved.
    """
    check_config(config)
    mesh = sharding.make_mesh(**config.mesh)
    sharded = ShardedStep(config, mesh)
    stage = sharded.config
    mixture, held_out = (
        [(TokenRecords(directory, split), weight) for directory, weight in token_sets]
        for split in ("train", "validation")
    )
    description = describe(config, mixture)
    hosts.check_equal(description["data"]["fingerprint"], "the token set")
    if config.tokenizers:
        fingerprint.check_made_by(Path(config.tokenizers), {"--data": description["data"]["tokenizers"]})
    index, count = sharding.rows_of_process(mesh, config.batch_size)
    windows = (stage.stage, stage.window_cells, config.batch_size)
    rows = {"process_index": index, "process_count": count}
    batches = loader.train_batches(mixture, *windows, config.seed, **rows)
    validation = loader.eval_batches(held_out, *windows, config.eval_batches, **rows)
    validation = [sharded.place(batch) for batch in loader.prefetch(validation, 0)]
    audition = Audition(stage, config, held_out[0][0]) if config.sample_every else None

    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {workdir}: {error.strerror}; choose another --workdir") from error
    checkpoints = Checkpoints(workdir, config.keep_checkpoints, config.keep_every)
    resumed = checkpoints.latest() is not None
    params = None
    if config.start_from and not resumed:
        params, description["started_from"] = _start_from(config, sharded, description["data"])
    start_workdir(workdir, description, resumed)
    if resumed:
        first_step, state = checkpoints.restore_latest(sharded.state_shapes)
    elif params is not None:
        first_step, state = 0, sharded.init() | {"params": params}
    else:
        first_step, state = 0, sharded.init(_vectors(config))

    tokens_per_step = config.batch_size * stage.stage.num_tokens(stage.window_cells)
    flops_per_step = config.batch_size * train_flops(stage, stage.window_cells)
    started_s = time.monotonic()
    step_fn = sharded.compile(config.batch_size)
    speaks = hosts.is_first() and not quiet
    if speaks:
        plan = step_fn.memory_analysis()
        planned = plan.argument_size_in_bytes + plan.temp_size_in_bytes if plan else float("nan")
        print(
            f"{config.stage} stage: {num_parameters(stage) / 1e6:.1f} M parameters, {tokens_per_step} tokens and "
            f"{flops_per_step / 1e9:.0f} GFLOP a step, {description['data']['records']} training records, from step "
            f"{first_step}\nmesh {' x '.join(f'{k} {v}' for k, v in mesh.shape.items())} on {jax.device_count()} x "
            f"{jax.devices()[0].device_kind}: {planned / 1e9:.2f} GB a device, compiled in "
            f"{time.monotonic() - started_s:.0f} s",
            flush=True,
        )
    log = RunLog(workdir, first_step, tokens_per_step, flops_per_step, writes=hosts.is_first())
    notice = hosts.Preemption()
    reading = loader.prefetch(batches, first_step)
    progress = tqdm(total=config.steps, initial=first_step, desc=config.stage, unit="step", disable=not speaks)
    held = None  # (step, metrics): looked at when the next step is already under way, so that no device waits
    # From `profile_first_step`, or from where a resumed run begins if that is later, but never past the end.
    first_profiled = max(first_step, config.profile_first_step)
    profiling = range(first_profiled, min(first_profiled + config.profile_steps, config.steps))

    def look(log_it: bool) -> None:
        nonlocal held
        if held is not None:
            (step, values), held = held, None
            _check_finite(values, step, batches, workdir)
            if log_it or step % config.log_every == 0:
                log.log(step, values)
                progress.set_postfix(loss=f"{float(values['loss']):.3f}")

    try:
        for step in range(first_step, config.steps):
            if profiling and step == profiling.start:
                jax.profiler.start_trace(workdir / "profile")
            asked_s = time.monotonic()
            batch = sharded.place(next(reading))
            log.waited(time.monotonic() - asked_s)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, values = step_fn(state, batch)
            look(False)
            done = step + 1
            held = (done, values)
            progress.update()
            last, end = done == config.steps, notice.reached(done)
            if step in profiling and (done == profiling.stop or end):
                jax.block_until_ready(state)
                jax.profiler.stop_trace()
            evaluates = done % config.eval_every == 0 or last
            saves = done % config.checkpoint_every == 0 or last or end
            samples = audition and (done % config.sample_every == 0 or last)
            if not (evaluates or saves or samples):
                continue
            look(last)
            aside_s = time.monotonic()
            if evaluates and not end:
                by_codebook = sharded.evaluate(state["params"], validation)
                log.write(done, {"validation_loss": by_codebook.mean(), "validation_loss_per_codebook": by_codebook})
            if samples and not end:
                for name, sound in audition.sounds(state["params"]).items():
                    log.audio(done, name, sound, audition.rate_hz)
            if saves:
                checkpoints.save(done, state)
            log.aside(time.monotonic() - aside_s)
            if end and not last:
                ended = KeyboardInterrupt if notice.interrupted else Preempted
                raise ended(f"step {done} of {config.steps} is saved in {workdir}; run the same command again")
    finally:
        reading.close()
        progress.close()
        log.close()
        checkpoints.close()  # what is being saved is saved to its end
        notice.close()
    return state
