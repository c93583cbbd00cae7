"""runs.jsonl: what is written is read, and what is damaged is named."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from helpers.made_runs import make_run, make_sweep

from hafm_jax.common.errors import InputError
from hafm_jax.scaling.runs import read_runs, write_runs


def test_what_is_written_is_read(tmp_path):
    runs = make_sweep(noise=0.01)
    write_runs(tmp_path / "runs.jsonl", runs[::-1])
    assert read_runs(tmp_path / "runs.jsonl") == runs
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "done"}, "status is 'done'; expected one of finished, diverged, unfinished"),
        ({"loss": None}, "loss is None; expected a positive number, since the run is finished"),
        ({"loss": float("nan")}, "loss is nan"),
        ({"status": "diverged"}, "loss is 2.0; expected none, since the run is diverged"),
        ({"loss_per_codebook": [2.0, 2.0]}, "expected 1 positive numbers"),
        ({"stage": "vocal"}, "stage is 'vocal'"),
        ({"parameters": 0}, "parameters is 0"),
        ({"tokens": 1.5}, "tokens is 1.5"),
        ({"held_out": 1}, "held_out is 1"),
        ({"isoflop": True}, "isoflop is True"),
        ({"curve": [[2, 1.0], [1, 1.0]]}, "tokens rising"),
        ({"extra": 1}, "'extra'"),
        ({"flops": -1.0}, "flops is -1.0"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, changes, reason):
    lines = [json.dumps(asdict(make_run(0))), json.dumps(asdict(make_run(1)) | changes)]
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 2: ") as caught:
        read_runs(tmp_path / "runs.jsonl")
    assert reason in str(caught.value)


def test_other_damage(tmp_path):
    path = tmp_path / "runs.jsonl"
    with pytest.raises(InputError, match="cannot be read"):
        read_runs(path)
    line = json.dumps(asdict(make_run(3)))
    missing = asdict(make_run(0))
    del missing["flops"]
    for content, message in (
        (line[:-5], "line 1"),
        (f"{line}\n{line}\n", r"\[3\] more than once"),
        (json.dumps(missing), r"\['flops'\] missing"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_runs(path)
