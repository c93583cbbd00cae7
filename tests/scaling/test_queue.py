"""The files of a sweep's runs, damaged: named with the file and the remedy, or left out; nothing is replaced before."""

from __future__ import annotations

import json

import pytest
from helpers import contents, edit_json

from configs.scaling import get_config
from hafm_jax import sweep
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_json
from hafm_jax.scaling import queue
from hafm_jax.scaling.plan import Plan

DAMAGES = {
    "empty": b"",
    "cut": b'{"x',
    "not text": b"\xff\xfe{}",
    "a list": b"[1, 2]",
    "nested": b"[" * 100_000,
    "no names": b"{}",
}
MACHINE = {"versions": {"jax": "0.10"}, "devices": ["cpu"], "device_count": 1, "cores": 2}


@pytest.fixture
def swept(tmp_path):
    """A planned sweep whose first run has begun, and whose second has ended: (folder, plan, folders of the two)."""
    (tmp_path / "tokens").mkdir()
    workdir = tmp_path / "sweep"
    config = get_config()
    config.stages = {"semantic": {"window_cells": 4, "budgets_flops": (), "tokens": (4_000, 8_000)}}
    config.sizes, config.rates.sizes = ("16x1x1",), ()
    config.held_out.update(sizes=("16x3x1",), budget_flops=1e9)
    config.update(evaluations=4, validation_windows=16)
    plan = Plan(config, [str(tmp_path / "tokens")])
    workdir.mkdir()
    plan.write(workdir)
    folders = [queue.run_directory(workdir, run) for run in plan.runs()[:2]]
    for folder, run in zip(folders, plan.runs(), strict=False):
        folder.mkdir(parents=True)
        write_json(folder / "config.json", {"config": plan.training(run).to_dict()} | MACHINE)
        steps = plan.training(run).steps
        records = [{"step": n, "validation_loss": 5.0, "validation_loss_per_codebook": [5.0]} for n in (1, steps)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = plan.runs()[1]
    write_json(folders[1] / "result.json", queue.sealed(queue._result("finished", run, steps, folders[1])))
    return workdir, plan, folders


def test_undamaged_it_can_be_planned_again_and_collected(swept):
    workdir, plan, _ = swept
    queue.check_same_runs(workdir, plan)
    runs = queue.collect(workdir, plan)
    assert [run.status for run in runs] == ["unfinished", "finished", "unfinished"]
    assert [len(run.curve) for run in runs] == [2, 2, 0] and runs[1].loss == 5.0
    assert queue.machines(workdir, plan) == [MACHINE]
    assert queue.make_run(workdir, plan, plan.runs()[1]) == "finished"
    assert queue.share_done(workdir, plan, plan.runs()[1]) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_config_or_result_of_a_run_is_named(swept, damage):
    workdir, plan, (begun, ended) = swept
    for path, calls in (
        (begun / "config.json", [queue.check_same_runs, queue.machines]),
        (ended / "result.json", [queue.collect, lambda *a: queue.share_done(*a, plan.runs()[1])]),
    ):
        kept = path.read_bytes()
        path.write_bytes(DAMAGES[damage])
        for call in calls:
            with pytest.raises(InputError, match=rf"{path} cannot be read .*remove"):
                call(workdir, plan)
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "changes",
    [{"status": "unfinished"}, {"status": "done"}, {"loss": None}, {"curve": [1]}, {"loss_per_codebook": [5.0, 5.0]}],
)
def test_a_result_that_no_run_can_have_is_named(swept, changes):
    workdir, plan, (_, ended) = swept
    edit_json(ended / "result.json", **changes)
    with pytest.raises(InputError, match=r"result\.json.* how the run ended: remove it, and the run resumes"):
        queue.collect(workdir, plan)


@pytest.mark.parametrize("damage", [*DAMAGES.values(), b'{"step": "1"}', b'{"step": 1, "validation_loss": null}'])
def test_damaged_records_are_left_out_of_the_curve_of_a_run(swept, damage):
    workdir, plan, (begun, _) = swept
    path = begun / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + damage + b"\n")
    assert queue.share_done(workdir, plan, plan.runs()[0]) == 1
    assert len(queue.collect(workdir, plan)[0].curve) == 2


def test_a_run_whose_last_losses_are_not_logged_has_no_result(swept):
    _, plan, (_, ended) = swept
    path = ended / "metrics.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(
        InputError, match=r"metrics\.jsonl cannot be read .*the losses of step \d+: remove the run's folder"
    ):
        queue._result("finished", plan.runs()[1], plan.training(plan.runs()[1]).steps, ended)


def test_a_refused_plan_replaces_nothing(swept, tmp_path):
    workdir, _, (_, ended) = swept
    before = contents(workdir)
    (ended / "result.json").write_bytes(b"")
    (tmp_path / "config.py").write_text(
        "from hafm_jax.scaling.plan import Plan\nfrom pathlib import Path\n"
        f"def get_config():\n    config = Plan.read(Path({str(workdir)!r})).config\n"
        "    config.evaluations = 5\n    config.stages.semantic.tokens = (4_000, 8_000, 16_000)\n    return config\n"
    )
    for folder in workdir.glob("runs/*/config.json"):
        folder.unlink()  # so that other evaluations are not another run
    command = ["plan", "--config", str(tmp_path / "config.py"), "--data", str(tmp_path / "tokens")]
    with pytest.raises(InputError, match=r"result\.json cannot be read \(it is empty\)"):
        sweep.main([*command, "--workdir", str(workdir), "--device", "cpu"])
    assert contents(workdir) == before
