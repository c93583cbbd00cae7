"""One training run of a stage, from its configuration and token sets to its last checkpoint.

A work directory holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and, where the configuration asks for
them, sounds/ and profile/. A run that finds a checkpoint there resumes from it, bit for bit.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import make_folder
from hafm_jax.dataset import fingerprint, loader
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.model import sharding
from hafm_jax.model.config import num_parameters, train_flops
from hafm_jax.training import hosts
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.log import RunLog
from hafm_jax.training.preview import Preview
from hafm_jax.training.settings import TokenSets, check_config
from hafm_jax.training.start_from import first_state
from hafm_jax.training.step import ShardedStep, State
from hafm_jax.training.storage import writing
from hafm_jax.training.workdir import describe, start_workdir


class Preempted(Exception):
    """The machine goes away; the message says what was saved."""


class NotFinite(InputError):
    """The loss or its gradient is NaN or infinite."""


@dataclass
class Run:
    """A training run before its first step: its data, its functions and its files."""

    config: ConfigDict
    workdir: Path
    num_records: int  # to train on
    batches: Any  # [step] -> this process's rows of the batch
    validation: list[dict[str, jax.Array]]  # batches on the devices
    sharded: ShardedStep
    preview: Preview | None
    checkpoints: Checkpoints
    first_step: int

    @property
    def tokens_per_step(self) -> int:
        stage = self.sharded.config
        return self.config.batch_size * stage.stage.num_tokens(stage.window_cells)

    @property
    def flops_per_step(self) -> float:
        return self.config.batch_size * train_flops(self.sharded.config, self.sharded.config.window_cells)


def prepare(config: ConfigDict, token_sets: TokenSets, workdir: Path) -> tuple[Run, State]:
    """Check everything, open data and work directory, and place the state to start or resume from on the devices.

    Raises InputError where config, data or work directory cannot be used.
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
    preview = Preview(stage, config, held_out[0][0]) if config.sample_every else None

    make_folder(workdir, "--workdir")
    checkpoints = Checkpoints(workdir, config.keep_checkpoints)
    try:
        resumed = checkpoints.latest() is not None
        if resumed:
            start_workdir(workdir, description, resumed)
            first_step, state = checkpoints.restore_latest(sharded.state_shapes)
        else:
            first_step, state = 0, first_state(config, sharded, description)
            start_workdir(workdir, description, resumed)
    except InputError:
        checkpoints.close()
        raise
    num_records = description["data"]["records"]
    run = Run(config, workdir, num_records, batches, validation, sharded, preview, checkpoints, first_step)
    return run, state


def compile_step(run: Run, verbose: bool) -> jax.stages.Compiled:
    """The training step of the run, compiled; `verbose` prints its size, its memory and the time to compile it."""
    started_s = time.monotonic()
    step_fn = run.sharded.compile(run.config.batch_size)
    if verbose:
        plan = step_fn.memory_analysis()
        planned = plan.argument_size_in_bytes + plan.temp_size_in_bytes if plan else float("nan")
        print(
            f"{run.config.stage} stage: {num_parameters(run.sharded.config) / 1e6:.1f} M parameters, "
            f"{run.tokens_per_step} tokens and {run.flops_per_step / 1e9:.0f} GFLOP a step, {run.num_records} training "
            f"records, from step {run.first_step}\nmesh "
            f"{' x '.join(f'{k} {v}' for k, v in run.sharded.mesh.shape.items())} on {jax.device_count()} x "
            f"{jax.devices()[0].device_kind}: {planned / 1e9:.2f} GB a device, compiled in "
            f"{time.monotonic() - started_s:.0f} s",
            flush=True,
        )
    return step_fn


class _Trace:
    """The profiler's trace of some steps: from `profile_first_step`, or from the first step of a resumed run if that is
    later, and never past the last step."""

    def __init__(self, run: Run):
        first = max(run.first_step, run.config.profile_first_step)
        self._steps = range(first, min(first + run.config.profile_steps, run.config.steps))
        self._folder = run.workdir / "profile"

    def before(self, step: int) -> None:
        if self._steps and step == self._steps.start:
            jax.profiler.start_trace(self._folder)

    def after(self, step: int, state: State, ends: bool) -> None:
        if step in self._steps and (ends or step + 1 == self._steps.stop):
            jax.block_until_ready(state)
            jax.profiler.stop_trace()


def train(config: ConfigDict, token_sets: TokenSets, workdir: Path, quiet: bool = False) -> State:
    """Train to `config.steps` and return the last state. `quiet`: print nothing and show no progress bar.

    Raises InputError where config or data cannot be used, where another training has the work directory, or where it
    cannot be written, NotFinite where the loss or its gradient is NaN or infinite, Preempted after SIGTERM,
    KeyboardInterrupt after Ctrl-C; where the run had begun, the message says what is saved.
    """
    run, state = prepare(config, token_sets, workdir)
    verbose = hosts.is_first() and not quiet
    step_fn = compile_step(run, verbose)
    try:
        with ExitStack() as to_close:
            preemption = hosts.Preemption()
            to_close.callback(preemption.close)
            to_close.callback(run.checkpoints.close)  # waits until the last save is complete
            return _train(run, state, step_fn, preemption, verbose, to_close)
    except NotFinite:
        raise
    except InputError as error:
        step = run.checkpoints.latest()
        saved = f"no step is saved in {workdir}" if step is None else f"step {step} is saved in {workdir}"
        raise InputError(f"{error}; {saved}: mend that, and run the same command again, which resumes") from error


def _train(
    run: Run,
    state: State,
    step_fn: jax.stages.Compiled,
    preemption: hosts.Preemption,
    verbose: bool,
    to_close: ExitStack,
) -> State:
    """The steps of the run. `to_close` receives what is to be closed after them, last to first."""
    config, workdir, trace = run.config, run.workdir, _Trace(run)
    log = RunLog(workdir, run.first_step, run.tokens_per_step, run.flops_per_step, writes=hosts.is_first())
    to_close.callback(log.close)
    reading = loader.prefetch(run.batches, run.first_step)
    to_close.callback(reading.close)
    progress = tqdm(total=config.steps, initial=run.first_step, desc=config.stage, unit="step", disable=not verbose)
    to_close.callback(progress.close)
    pending = None  # (step, metrics) that are read when the next step is already under way, so that no device waits

    def flush_metrics(last: bool = False) -> None:
        if pending is not None:
            step, values = pending
            _check_finite(values, step, run)
            if last or step % config.log_every == 0:
                log.log(step, values)
                progress.set_postfix(loss=f"{float(values['loss']):.3f}")

    for step in range(run.first_step, config.steps):
        trace.before(step)
        with log.waiting():
            batch = run.sharded.place(next(reading))
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state, values = step_fn(state, batch)
        flush_metrics()
        done = step + 1
        pending = (done, values)
        progress.update()
        last, preempted = done == config.steps, preemption.reached(done)
        trace.after(step, state, preempted)
        evaluates = not preempted and (last or done % config.eval_every == 0)
        previews = not preempted and run.preview and (last or done % config.sample_every == 0)
        saves = preempted or last or done % config.checkpoint_every == 0
        if not (evaluates or previews or saves):
            continue
        flush_metrics(last)
        pending = None
        with log.paused():
            if evaluates:
                loss = run.sharded.evaluate(state["params"], run.validation)
                log.write(done, {"validation_loss": loss.mean(), "validation_loss_per_codebook": loss})
            if previews:
                for name, sound in run.preview.sounds(state["params"]).items():
                    log.audio(done, name, sound, run.preview.rate_hz)
            if saves:
                run.checkpoints.save(done, state)
        if preempted and not last:
            ended = KeyboardInterrupt if preemption.interrupted else Preempted
            raise ended(f"step {done} of {config.steps} is saved in {workdir}; run the same command again")
    return state


def _check_finite(values: dict[str, jax.Array], step: int, run: Run) -> None:
    """Raises NotFinite where the loss of `step` or its gradient is NaN or infinite, and keeps this process's rows of
    its batch. The loss alone would show it a step late: it is that of the parameters before the update."""
    names = [name for name in ("loss", "gradient_norm") if not np.isfinite(values[name])]
    if not names:
        return
    path = run.workdir / f"not-finite-{step}-{jax.process_index()}.npz"
    with writing(path):
        np.savez(path, **run.batches[step - 1])
    raise NotFinite(
        f"{names[0]} is not finite at step {step}; its batch is kept in {path}, the last good checkpoint in "
        f"{run.workdir}: look at the batch, or train with a lower --config.learning_rate into a new --workdir"
    )
