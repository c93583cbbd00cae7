"""A sweep's runs: their sizes and budgets, their training configurations, their cost."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from configs.scaling import get_config
from hafm_jax.common.errors import InputError
from hafm_jax.model.config import StageConfig, find_size, num_layer_parameters, num_parameters, train_flops
from hafm_jax.scaling.plan import Plan, duration, folder, plan_rows
from hafm_jax.scaling.rules import learning_rate
from hafm_jax.streams import STAGES


@pytest.fixture
def plan() -> Plan:
    return Plan(get_config(), ["tokens"])


def test_every_size_meets_every_budget(plan):
    runs, config = plan.runs(), plan.config
    assert [run.index for run in runs] == list(range(len(runs)))
    assert len({folder(run) for run in runs}) == len(runs)
    for stage, of_stage in config.stages.items():
        for flops in of_stage.budgets_flops:
            row = [r for r in runs if r.stage == stage and r.isoflop and math.isclose(r.flops, flops, rel_tol=0.05)]
            assert [run.size for run in row] == list(config.sizes)
            assert len({run.isoflop for run in row}) == 1
        swept = [r for r in runs if r.stage == stage and r.size in config.rates.sizes and not (r.isoflop or r.held_out)]
        if stage in config.rates.stages:
            assert {(r.size, r.learning_rate_factor) for r in swept} == {
                (size, factor) for size in config.rates.sizes for factor in config.rates.factors
            }
            assert len({run.tokens for run in swept}) == 1
        held_out = [r for r in runs if r.stage == stage and r.held_out]
        assert [run.size for run in held_out] == list(config.held_out.sizes)
        largest = max(r.flops for r in runs if r.stage == stage and not r.held_out)
        assert all(run.flops > 1.5 * largest for run in held_out)


def test_a_run_is_what_its_training_makes(plan):
    for run in plan.runs():
        training = plan.training(run)
        config = StageConfig.of_size(run.stage, run.size, window_cells=training.window_cells)
        windows = training.steps * training.batch_size
        assert run.tokens == windows * training.window_cells * STAGES[run.stage].target.tokens_per_cell
        assert run.flops == windows * train_flops(config, training.window_cells)
        assert (run.parameters, run.parameters_total) == (num_layer_parameters(config), num_parameters(config))
        assert training.learning_rate == run.learning_rate
        assert math.isclose(run.learning_rate, learning_rate(config.d_model) * run.learning_rate_factor)
        assert training.eval_batches * training.batch_size == plan.config.validation_windows
        assert math.ceil(training.steps / training.checkpoint_every) <= plan.config.evaluations


def test_a_grid_of_lengths_and_seeds(plan):
    plan.config.stages.semantic.update(budgets_flops=(), tokens=(200_000, 400_000))
    plan.config.update(seeds=(0, 1))
    grid = [r for r in plan.runs() if r.stage == "semantic" and r.size in plan.config.sizes and not r.held_out]
    of_rule = [r for r in grid if r.learning_rate_factor == 1]
    found = {(r.size, round(r.tokens / 200_000), r.seed) for r in of_rule if r.size != plan.config.rates.sizes[0]}
    sizes = set(plan.config.sizes) - {plan.config.rates.sizes[0]}
    assert found == {(size, n, seed) for size in sizes for n in (1, 2) for seed in (0, 1)}


def test_time_and_cost_are_those_of_the_device(plan):
    plan.config.devices = {"one": {"flops_per_s": 1e12, "least_step_s": 0.5, "start_s": 7.0, "usd_per_hour": 36.0}}
    run = plan.runs()[0]
    training = plan.training(run)
    assert run.flops / training.steps < 0.1e12  # every step takes the least time
    evaluated = math.ceil(training.steps / training.eval_every) * plan.config.validation_windows
    config = StageConfig.of_size(run.stage, run.size, window_cells=training.window_cells)
    expected_s = 7.0 + 0.5 * training.steps + evaluated * train_flops(config, training.window_cells) / 3 / 1e12
    assert math.isclose(plan.seconds(run, "one"), expected_s)
    head, row, *sums = plan_rows(plan, [run], "one")
    assert row[head.index("USD")] == f"{expected_s / 100:.2f}"
    assert row[head.index("time")] == duration(expected_s) and len(sums) == 2


def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    plan.write(tmp_path)
    again = Plan.read(tmp_path)
    assert again.runs() == plan.runs() and again.data == plan.data
    assert all(again.training(run) == plan.training(run) for run in plan.runs())


def test_messages_for_bad_configurations(plan, tmp_path):
    with pytest.raises(InputError, match="plan first"):
        Plan.read(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"config": 3}))
    with pytest.raises(InputError, match="plan first"):
        Plan.read(tmp_path)
    plan.config.validation_windows = 100
    with pytest.raises(InputError, match="validation_windows is 100; expected a power of two"):
        plan.runs()
    plan.config.validation_windows = 2
    with pytest.raises(InputError, match="validation_windows, 2: raise it"):
        plan.runs()
    plan.config.update(sizes=("huge",), validation_windows=128)
    with pytest.raises(InputError, match="WIDTHxLAYERSxHEADS"):
        plan.runs()


def test_sizes_have_names_or_numbers():
    assert dataclasses.astuple(find_size("96x3x6")) == (96, 3, 6)
    assert find_size("base").d_model == 1024
    for name in ("96x3", "0x1x1", "96x3x6x", "tiny"):
        with pytest.raises(InputError, match="expected one of demo"):
            find_size(name)


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (0.4, 119, 150, 7200, 3 * 86400)] == ["0 s", "119 s", "2.5 min", "2 h", "3 d"]
