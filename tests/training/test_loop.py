"""Training on tiny models: it learns, it resumes where it stopped, and the trained model generates its songs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pkgutil
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Songs, generate_window, random_record, read_lines, write_token_set
from ml_collections import ConfigDict

from configs import demo, overfit
from configs.base import get_config
from hafm_jax.common.errors import InputError
from hafm_jax.common.resume import NoLocks, claim
from hafm_jax.dataset import loader, records
from hafm_jax.model import decode, transformer
from hafm_jax.model.config import SIZES, Size, num_parameters
from hafm_jax.model.sharding import make_mesh
from hafm_jax.streams import STAGES
from hafm_jax.training import loop, workdir
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.corruption import corrupt_history
from hafm_jax.training.optim import optimizer
from hafm_jax.training.settings import check_config
from hafm_jax.training.step import ShardedStep, eval_step, init_state, split_batch, stage_config, step_flops, train_step
from hafm_jax.training.storage import claim_workdir


@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_a_few_crops_are_learnt_by_heart_and_generated_back(stage, tiny):
    tiny.update(stage=stage, steps=150, learning_rate=5e-3)
    config = stage_config(tiny)
    source = Songs(random_record(4, seed=i) for i in range(2))
    batches = loader.train_batches([(source, 1)], config.stage, 4, 2, seed=0)
    transform = optimizer(tiny)
    state = jax.jit(lambda key: init_state(config, transform, key))(jax.random.key(0))
    step = jax.jit(lambda state, batch: train_step(config, tiny, transform, state, batch))
    losses = []
    for i in range(tiny.steps):
        state, metrics = step(state, batches[i])
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(np.log(STAGES[stage].target.vocabulary), rel=0.1)  # untrained: uniform
    assert losses[-1] < 0.05

    conditions, target = split_batch(config, batches[0])
    np.testing.assert_allclose(np.mean(eval_step(config, state["params"], batches[0])), losses[-1], atol=0.05)
    greedy, empty = decode.Sampling(guidance_scale=1.0, temperature=0.0), np.zeros_like(target)
    generated = generate_window(config, state["params"], conditions, empty, 0, target.shape[1], greedy)
    assert (generated == target).mean() > 0.98


def test_a_run_logs_its_steps_and_resumes_bit_for_bit(tiny, token_set, tmp_path, monkeypatch):
    whole = loop.train(tiny, [(token_set, 1.0)], tmp_path / "whole")
    lines = read_lines(tmp_path / "whole" / "metrics.jsonl")
    assert [x["step"] for x in lines if "loss" in x] == [2, 4, 6]
    assert [x["step"] for x in lines if "validation_loss" in x] == [3, 6]
    logged = lines[0]
    assert logged["loss"] == pytest.approx(np.mean(logged["loss_per_codebook"]), rel=1e-5)
    assert logged["tokens_per_s"] > 0 and logged["gradient_norm"] > 0

    save = loop.Checkpoints.save

    def save_and_stop(self, step, state):
        save(self, step, state)
        self.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Checkpoints, "save", save_and_stop)
        loop.train(tiny, [(token_set, 1.0)], tmp_path / "cut")
    resumed = loop.train(tiny, [(token_set, 1.0)], tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused_by_storage(*_: object, **__: object) -> None:
    raise ValueError('RESOURCE_EXHAUSTED: Error writing "x" in OCDBT database: Failed to write 7 bytes to file 7')


@pytest.fixture
def compiled_once(monkeypatch) -> None:
    """Runs of one configuration share their compiled functions."""

    class Shared(ShardedStep):
        compile = cache(ShardedStep.compile)

    made: dict[str, Shared] = {}

    def sharded(training: ConfigDict, mesh: jax.sharding.Mesh) -> Shared:
        key = json.dumps(training.to_dict())
        made[key] = made.get(key) or Shared(training, mesh)
        return made[key]

    monkeypatch.setattr(loop, "ShardedStep", sharded)


FULL = [  # what fails, how, after how many calls, and what is saved then
    ("hafm_jax.training.checkpoint.ocp.CheckpointManager.save", refused_by_storage, 1, "step 3 is saved"),
    ("hafm_jax.training.log.EventsWriter.flush", disk_full, 2, "step 3 is saved"),
    ("hafm_jax.training.log.EventsWriter.flush", disk_full, 0, "no step is saved"),
]


@pytest.mark.usefixtures("compiled_once")
def test_on_a_full_disk_it_says_what_is_saved_and_resumes_bit_for_bit(tiny, token_set, tmp_path, monkeypatch):
    train = partial(loop.train, tiny, [(token_set, 1.0)])
    whole = train(tmp_path / "whole")
    for number, (where, fails, after, saved) in enumerate(FULL):
        workdir, calls, works = tmp_path / f"full{number}", [], pkgutil.resolve_name(where)

        def sometimes(*arguments, calls=calls, after=after, works=works, fails=fails, **more):
            calls.append(arguments)
            return (works if len(calls) <= after else fails)(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(where, sometimes)
            message = rf"cannot write .*the disk is full.*{saved} in .*run the same command again"
            with pytest.raises(InputError, match=message):
                train(workdir)
        jax.tree.map(np.testing.assert_array_equal, whole, train(workdir))
        steps = [[x["step"] for x in read_lines(run / "metrics.jsonl")] for run in (workdir, tmp_path / "whole")]
        assert steps[0] == steps[1]  # no step is logged twice


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A function that gives a disk of tmp_path a size, for those who may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(size: str) -> Path:
        how = f"size={size}" + ",remount" * os.path.ismount(disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", disk], capture_output=True).returncode:
            pytest.skip("needs the right to mount a disk")
        return disk

    yield resize
    subprocess.run(["umount", disk], capture_output=True)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_a_disk_that_is_full_while_a_checkpoint_is_written(tiny, token_set, tmp_path, small_disk):
    tiny.update(checkpoint_every=1, keep_checkpoints=50, steps=8)
    train = partial(loop.train, tiny, [(token_set, 1.0)])
    disk = small_disk("9m")  # three checkpoints
    with pytest.raises(InputError, match=r"the disk is full.*step [1-4] is saved"):
        train(disk / "run")
    small_disk("90m")
    resumed = train(disk / "run")
    jax.tree.map(np.testing.assert_array_equal, train(tmp_path / "whole"), resumed)
    assert sorted(int(path.name) for path in (disk / "run" / "checkpoints").iterdir()) == list(range(1, 9))


@pytest.mark.usefixtures("compiled_once")
def test_a_second_training_is_refused_and_disturbs_nothing(tiny, token_set, tmp_path):
    loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")
    first = Checkpoints(tmp_path / "run", 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"}
    with pytest.raises(InputError, match=r"run is in use by another training; .*give another --workdir$"):
        loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"} == before
    first.close()
    loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")


def test_a_file_system_without_locks_is_said(tiny, tmp_path, monkeypatch, capsys):
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with claim_workdir(tmp_path):
        error = capsys.readouterr().err
    assert error.startswith("warning: ") and "cannot lock files" in error and str(tmp_path) in error
    with pytest.raises(NoLocks, match="expected one that can"), claim(tmp_path / "claim"):
        pass


@pytest.mark.usefixtures("compiled_once")
def test_a_damaged_description_is_named_and_can_be_replaced(tiny, token_set, tmp_path):
    train = partial(loop.train, tiny, [(token_set, 1.0)])
    whole = train(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = path.read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    for damaged in (b"", b'{"x', b"[1]", content[: len(content) // 2], content.replace(b'"config"', b'"conf\xffg"')):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"config\.json cannot be read .*restore it from a copy"):
            train(tmp_path / "run")
    path.unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        train(tmp_path / "run")
    train(tmp_path / "other")  # as the message says
    shutil.copy(tmp_path / "other" / "config.json", path)
    jax.tree.map(np.testing.assert_array_equal, whole, train(tmp_path / "run"))


def test_a_flipped_bit_of_a_description_is_named_or_harmless(tiny, token_set, tmp_path):
    tiny.size = "16x1x1"
    description = workdir.describe(tiny, [(records.TokenRecords(token_set, "train"), 1.0)])
    workdir.start_workdir(tmp_path, description | {"started_from": description | {"step": 3}}, resumed=False)
    path = tmp_path / "config.json"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        for use in (partial(workdir.start_workdir, tmp_path, description, True), partial(workdir.load_run, tmp_path)):
            with pytest.raises(InputError, match=r"config\.json|another|no complete checkpoint") as found:
                use()
                raise InputError("another: taken as it is")
            refused += "config.json" in str(found.value)
            path.write_bytes(damaged)
    assert refused > 30


def test_another_configuration_or_data_does_not_resume(tiny, token_set, tmp_path):
    def resume(directory: Path, weight: float = 1.0, **fields) -> None:
        config = ConfigDict(tiny.to_dict() | fields)
        description = workdir.describe(config, [(records.TokenRecords(directory, "train"), weight)])
        workdir.start_workdir(tmp_path, description, resumed=(tmp_path / "config.json").exists())

    resume(token_set)
    resume(write_token_set(tmp_path / "copy"), log_every=7, remat="layer")  # computes the same
    other_data = write_token_set(tmp_path / "other", seed=100)
    for arguments, message in (
        ({"directory": token_set, "beta2": 0.9}, "another beta2:"),
        ({"directory": other_data}, "another data:"),
        ({"directory": token_set, "weight": 2.0}, "another data:"),
        ({"directory": other_data, "seed": 1}, "another seed, data:"),
    ):
        with pytest.raises(InputError, match=message):
            resume(**arguments)


def test_a_gradient_that_is_not_finite_is_not_saved_and_the_advice_helps(tiny, token_set, tmp_path):
    # At step 3 the weights are so large that the loss is still finite and its gradient is not.
    tiny.update(learning_rate=1e10, clip_norm=1e30, steps=4, checkpoint_every=1)
    with pytest.raises(loop.NotFinite, match=r"gradient_norm is not finite at step 3;.*new --workdir"):
        loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")
    sharded = ShardedStep(tiny, make_mesh(-1, 1, 1))
    checkpoints = Checkpoints(tmp_path / "run", tiny.keep_checkpoints)
    step, state = checkpoints.restore_latest(sharded.state_shapes)
    checkpoints.close()
    assert step == 2 and all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    songs = records.TokenRecords(token_set, "train")
    expected = loader.train_batches([(songs, 1)], sharded.config.stage, 4, 2, tiny.seed)[2]
    with np.load(tmp_path / "run" / "not-finite-3-0.npz") as batch:
        np.testing.assert_array_equal(batch["vocal_semantic"], expected["vocal_semantic"])

    tiny.update(learning_rate=1e-3)
    with pytest.raises(InputError, match="another learning_rate: give a new --workdir"):
        loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")
    assert loop.train(tiny, [(token_set, 1.0)], tmp_path / "new")["step"] == 4


def test_a_run_makes_sounds_with_the_tokenizers_that_made_its_tokens(tiny, tokenizers, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", Size(32, 1, 2))
    monkeypatch.setattr(decode, "generate_window", lambda config, weights, conditions, target, *_: target)
    centroids = json.loads((tokenizers / "semantic" / "config.json").read_text())["centroids_sha256"]
    token_set = write_token_set(tmp_path / "tokens", made_by={"semantic": {"centroids_sha256": centroids}})
    tiny.update(stage="coarse", window_cells=2, steps=3, sample_every=2, tokenizers=str(tokenizers))
    loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")
    sounds = {path.stem for path in (tmp_path / "run" / "sounds").iterdir()}
    expected = [("generated", 2), ("generated", 3), ("song", 2)]  # two songs; also at the end
    assert sounds == {f"{name}-{i}-{step}" for name, step in expected for i in (0, 1)}

    other = write_token_set(tmp_path / "other", made_by={"semantic": {"centroids_sha256": "5ea"}})
    with pytest.raises(InputError, match=r"centroids_sha256 .*; --data has 5ea"):
        loop.train(tiny, [(other, 1.0)], tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_bad_configurations_are_refused(tiny, token_set, tmp_path):
    for field, value, message in (
        ("stage", "drums", "semantic, coarse, fine"),
        ("size", "huge", "demo"),
        ("position", "sideways", "clock"),
        ("window_cells", 0, "a whole number from 1 to"),
        ("window_cells", 99, "8 cells"),
        ("batch_size", 64, "fills no batch"),
    ):
        config = ConfigDict(tiny.to_dict() | {field: value})
        with pytest.raises(InputError, match=message):
            loop.train(config, [(token_set, 1.0)], tmp_path / "run")
    tiny.update(history_corruption=0.5, batch_size=1)
    with pytest.raises(InputError, match="at least 2, since a corrupted history comes from another window"):
        loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_full_size_makes_one_training_step_and_a_short_decode():
    config = get_config()
    config.update(stage="coarse", window_cells=1, batch_size=1)
    stage = stage_config(config)
    assert num_parameters(stage) == pytest.approx(83e6, rel=0.1)
    transform = optimizer(config)
    state = jax.jit(lambda key: init_state(stage, transform, key))(jax.random.key(0))
    assert num_parameters(stage) == sum(x.size for x in jax.tree.leaves(state["params"]))
    batch = loader.train_batches([(Songs([random_record(1)]), 1)], stage.stage, 1, 1, 0)[0]
    step = jax.jit(lambda s, b: train_step(stage, config, transform, s, b), donate_argnums=0)
    state, metrics = step(state, batch)
    assert float(metrics["loss"]) == pytest.approx(np.log(1024), rel=0.1)
    conditions, target = split_batch(stage, batch)
    out = generate_window(stage, state["params"], conditions, np.zeros_like(target), 0, 1, decode.Sampling())
    assert out.shape == (1, 3, 4) and int(out.max()) < 1024


@pytest.mark.parametrize(
    "config", [demo.get_config(run) for run in (*demo.RECIPES, *demo.FOLLOW_UPS)] + [overfit.get_config()]
)
def test_configurations_have_the_fields_of_base(config):
    base = get_config()
    assert {name: type(value) for name, value in config.items()} == {name: type(value) for name, value in base.items()}
    config.tokenizers = "TOKENIZERS"  # demo.py's asks for them
    check_config(config)
    stage_config(config)


@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_a_corrupted_history_holds_spans_of_the_next_windows_music(stage):
    stage, windows, cells, share = STAGES[stage], 1000, 60, 0.8
    shape = (windows, cells * stage.target.frames_per_cell, stage.target.codebooks)
    target = np.random.default_rng(0).integers(0, 10**6, shape)  # so many ids that no two are equal by chance
    of_window = jnp.repeat(jnp.array([share, 0.0]), jnp.array([windows - 100, 100]))
    history, labels = map(np.asarray, corrupt_history(stage, jnp.asarray(target), of_window, jax.random.key(0)))

    corrupted = (history != target).any(-1)
    np.testing.assert_array_equal(history, np.where(corrupted[..., None], np.roll(target, -1, 0), target))
    np.testing.assert_array_equal(labels[..., 0], target[..., 0])
    np.testing.assert_array_equal(labels[..., 1:], history[..., 1:])

    by_cell = corrupted.reshape(windows, cells, -1)
    assert (by_cell == by_cell[..., :1]).all()
    assert not by_cell[-100:].any()
    by_cell = by_cell[:-100, :, 0]
    # A window's share u is uniform up to 0.8, a span of it lasts 12 cells: the means of u, and over the 59 edges of
    # 2 u (1 - u) / 12. Over keys these means spread by 0.012 and 0.046 (standard deviations).
    assert by_cell.mean() == pytest.approx(share / 2, abs=0.03)
    changes = (by_cell[:, 1:] != by_cell[:, :-1]).sum(1)
    assert changes.mean() == pytest.approx(59 / 12 * (share - 2 / 3 * share**2), abs=0.15)
    assert (~by_cell).all(1).any() and by_cell.mean(1).max() > share


def test_parts_of_a_batch_make_the_same_step_and_z_loss_counts(tiny):
    tiny.update(stage="coarse", batch_size=4, z_loss=0.1, condition_dropout=0.5, history_corruption=0.9)
    config = stage_config(tiny)
    source = Songs(random_record(4, seed=i) for i in range(4))
    batch = loader.train_batches([(source, 1)], config.stage, 4, 4, seed=0)[0]
    mesh = make_mesh(-1, 1, 1)

    def metrics_of(parts: int) -> np.ndarray:
        sharded = ShardedStep(ConfigDict(tiny.to_dict() | {"accumulate_steps": parts}), mesh)
        _, metrics = sharded.compile(4)(sharded.init(), sharded.place(batch))
        return np.array([metrics["gradient_norm"], *metrics["loss_per_codebook"]])

    conditions, target = split_batch(config, batch)
    key = jax.random.fold_in(jax.random.key(tiny.seed), 0)
    drop = jax.random.bernoulli(key, 0.5, (4,))
    conditions = transformer.null_conditions(config, conditions, drop)
    assert 0 < drop.sum() < 4
    history, labels = corrupt_history(config.stage, target, 0.9 * ~drop, jax.random.fold_in(key, 1))
    assert (history != target).any()

    def objective(params):
        logits = transformer.forward(config, params, conditions, history)
        by_codebook = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean((0, 1))
        return by_codebook.mean() + 0.1 * jnp.mean(jax.nn.logsumexp(logits, axis=-1) ** 2), by_codebook

    params = jax.jit(lambda: transformer.init(config, jax.random.key(tiny.seed)))()
    gradients, by_codebook = jax.jit(jax.grad(objective, has_aux=True))(params)
    expected = [optax.tree.norm(gradients), *by_codebook]
    for parts in (1, 4):
        np.testing.assert_allclose(metrics_of(parts), expected, rtol=1e-5)


@pytest.mark.parametrize(("stage", "window_cells"), [("semantic", 64), ("coarse", 16), ("fine", 16)])
def test_analytic_flops_are_those_that_the_compiler_counts(stage, window_cells, tiny):
    """Every loop has one iteration here, since the compiler counts a loop's body once."""
    tiny.update(stage=stage, size="96x1x6", window_cells=window_cells)
    sharded = ShardedStep(tiny, make_mesh(1, 1, 1))
    counted = sharded.compile(tiny.batch_size).cost_analysis()["flops"]
    assert counted == pytest.approx(step_flops(sharded.config, tiny.batch_size), rel=0.05)


@pytest.mark.parametrize("position", ["clock", "index"])
def test_memory_of_a_step_grows_with_the_length_not_with_its_square(position, tiny, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", Size(32, 1, 4))  # narrow, with many heads: squares would outweigh the rest
    tiny.update(stage="fine", position=position, batch_size=1, remat="attention")

    def temporary_bytes(num_cells: int) -> int:
        sharded = ShardedStep(ConfigDict(tiny.to_dict() | {"window_cells": num_cells}), make_mesh(-1, 1, 1))
        return sharded.compile(1).memory_analysis().temp_size_in_bytes

    assert temporary_bytes(84) < 2.1 * temporary_bytes(42)  # 2,016 and 1,008 tokens
