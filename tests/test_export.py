"""From three training runs to one model directory that loads."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial

import jax
import numpy as np
import pytest
from helpers.full_disk import REASON, files_of_at_most

from configs.base import get_config
from hafm_jax import export
from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.model.config import SIZES, Size
from hafm_jax.model.pretrained import load_model
from hafm_jax.streams import STAGES
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.optim import optimizer
from hafm_jax.training.step import init_state, stage_config
from hafm_jax.training.workdir import load_run


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", Size(32, 1, 2))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Work directories of finished runs, each with two checkpoints, and their states: (stage, step) -> state."""
    folder, states = tmp_path_factory.mktemp("trained"), {}
    for stage in STAGES:
        config = get_config()
        config.update(stage=stage, size="tiny", window_cells=4, steps=20)
        workdir = folder / stage
        workdir.mkdir()
        description = {"config": config.to_dict(), "data": {"records": 3, "fingerprint": "0123456789abcdef"}}
        description |= {"versions": {"jax": jax.__version__}, "devices": ["cpu"], "cores": 2}
        (workdir / "config.json").write_text(json.dumps(description))
        lines = [
            {"step": 10, "loss": 6.0, "seconds": 60.0},
            {"step": 20, "loss": 5.0, "seconds": 120.0},
            {"step": 20, "validation_loss": 5.25, "validation_loss_per_codebook": [5.0, 5.5]},
            {"step": 30, "loss": 1.0, "seconds": 600.0},  # after the last checkpoint: its weights are lost
        ]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        start = jax.jit(partial(init_state, stage_config(config), optimizer(config)))
        checkpoints = Checkpoints(workdir, config.keep_checkpoints)
        for step in (10, 20):
            states[stage, step] = start(jax.random.key(step))
            checkpoints.save(step, states[stage, step])
        checkpoints.close()
    return folder, states


@pytest.fixture
def runs(trained, tmp_path):
    """A copy that a test may change."""
    folder, states = trained
    shutil.copytree(folder, tmp_path / "runs")
    return [tmp_path / "runs" / stage for stage in STAGES], states


@pytest.fixture
def run_export(tokenizers, tmp_path, monkeypatch):
    """Export runs into tmp_path/model; returns that folder."""

    def run(workdirs, *more):
        out = tmp_path / "model"
        arguments = ["--workdir", *workdirs, "--tokenizers", tokenizers, "--out", out, *more]
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        export.main()
        return out

    return run


def test_the_last_checkpoints_become_a_model(runs, run_export):
    workdirs, states = runs
    out = run_export(workdirs, "--trained-on", "three hymns", "--limits", "hymns only")
    model = load_model(str(out))
    assert list(model.stages) == list(STAGES)
    for name, weights in model.stages.items():
        jax.tree.map(np.testing.assert_array_equal, weights.params, jax.device_get(states[name, 20]["params"]))
        facts = weights.facts
        assert (facts["step"], facts["loss"], facts["validation_loss"], facts["minutes"]) == (20, 5.0, 5.25, 3.0)
    card = (out / "README.md").read_text()
    assert "5.250 (5.00 5.50)" in card and "| semantic | " in card and "3 songs: three hymns" in card
    assert "Limits: hymns only" in card


def test_the_card_counts_the_runs_that_a_stage_came_from(runs, run_export):
    workdirs, _ = runs
    path = workdirs[0] / "config.json"
    description = json.loads(path.read_text())
    versions = description["versions"] | {"jax": "9.9"}
    first = description | {"step": 4000, "minutes": 30.5, "config": description["config"] | {"seed": 9}}
    first |= {"devices": ["gpu"], "versions": versions}
    other = description["data"] | {"fingerprint": "fedcba9876543210"}
    second = description | {"step": 500, "minutes": 30.5, "data": other, "started_from": first}
    path.write_text(json.dumps(description | {"started_from": second}))
    card = (run_export(workdirs) / "README.md").read_text()
    assert "| 4000 x 64 + 500 x 64 + 20 x 64 | 30.5 on gpu + 30.5 on cpu + 3 on cpu |" in card
    assert "| 20 x 64 | 3 on cpu |" in card
    assert f"(token set 0123456789ab and fedcba987654), with\n  jax 9.9 and {jax.__version__}, seed 0 and 9." in card


def test_the_card_has_the_training_of_the_codec():
    assert export.codec_facts({"codec": "encodec"}) == ""
    made = {"steps": 10, "batch_size": 2, "seconds": 1.0, "songs": 3, "minutes": 4.2}
    figures = {f"{k}_books": {"spectral_distance_db": 4.0 / k} for k in (4, 8)}
    facts = export.codec_facts({"training": made, "evaluation": {"songs": 5, **figures}})
    assert "10 steps of 2 x 1 s on 3 songs in 4 minutes" in facts
    assert "4 books copy at 1.00 dB" in facts and "8 books copy at 0.50 dB" in facts


def test_a_missing_or_unfinished_run_is_refused(runs, run_export, tmp_path):
    workdirs, _ = runs
    with pytest.raises(InputError, match="expected one run each"):
        run_export(workdirs[:2])
    with pytest.raises(InputError, match=r"config\.json is missing"):
        run_export([tmp_path / "none"])
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((workdirs[0] / "config.json").read_text())
    with pytest.raises(InputError, match="no complete checkpoint"):
        run_export([unfinished])
    assert not (tmp_path / "model").exists()


def test_a_damaged_last_checkpoint_is_skipped(runs):
    (workdir, *_), states = runs
    for file in (workdir / "checkpoints" / "20").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    weights = load_run(workdir)
    jax.tree.map(np.testing.assert_array_equal, weights.params, states["semantic", 10]["params"])
    assert (weights.facts["step"], weights.facts["loss"]) == (10, 6.0)


@pytest.mark.parametrize(
    ("log", "facts"),
    [
        (None, {}),
        ("", {}),
        ('{"step": 10, "loss": 6.0, "seconds": 60.0}\n\n{"step": 20, "lo', {"loss": 6.0, "minutes": 1.0}),
        ("\0\xff\n[1]\n{}\n" + '{"step": 10, "loss": 6.0}\n', {"loss": 6.0, "minutes": 0.0}),
    ],
)
def test_whole_weights_are_exported_whatever_became_of_the_log(log, facts, runs, run_export):
    workdirs, states = runs
    path = workdirs[0] / "metrics.jsonl"
    path.unlink()
    if log is not None:
        path.write_text(log, encoding="latin-1")
    out = run_export(workdirs)
    weights = load_model(str(out)).stages["semantic"]
    jax.tree.map(np.testing.assert_array_equal, weights.params, jax.device_get(states["semantic", 20]["params"]))
    assert {name: weights.facts[name] for name in ("loss", "minutes") if name in weights.facts} == facts
    row = next(line for line in (out / "README.md").read_text().splitlines() if line.startswith("| semantic |"))
    assert row.endswith("| not logged () |") and ("minutes" in facts or "| not logged on cpu |" in row)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "out", ["runs", "runs/semantic", "runs/coarse/model", "tokenizers/codec", "tokenizers/semantic", "others", "notes"]
)
def test_neither_runs_nor_tokenizers_nor_files_of_others_are_replaced(runs, tokenizers, out, tmp_path, monkeypatch):
    """`runs` holds a folder `semantic` as a model does; `others` are other tokenizers, `notes` a folder with a page."""
    workdirs, _ = runs
    shutil.copytree(tokenizers, tmp_path / "tokenizers")
    shutil.copytree(tokenizers, tmp_path / "others")
    (tmp_path / "others" / "codec" / "config.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("My notes")
    before = files_of(tmp_path)
    arguments = ["--workdir", *workdirs, "--tokenizers", tmp_path / "tokenizers", "--out", tmp_path / out]
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    with pytest.raises(InputError, match=r"which is read; expected|that no export wrote; expected"):
        export.main()
    assert files_of(tmp_path) == before


def test_a_model_is_exported_again_also_after_an_interruption_and_beside_its_tokenizers(
    runs, tokenizers, tmp_path, monkeypatch
):
    workdirs, _ = runs
    out = tmp_path / "model"
    shutil.copytree(tokenizers, out)
    arguments = ["--workdir", *workdirs, "--tokenizers", out, "--out", out]
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    export.main()
    whole = files_of(out)
    export.main()
    assert files_of(out) == whole
    (out / "config.json").unlink()  # written last
    (out / "fine.safetensors").unlink()
    export.main()
    assert files_of(out) == whole


def test_a_full_disk_while_exporting_is_one_reason(runs, run_export, tmp_path):
    workdirs, _ = runs
    with files_of_at_most(2_000), pytest.raises(OutputError, match=rf"cannot write .*\({REASON}\); expected"):
        run_export(workdirs)
    assert not (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize("field", ["centroids_sha256", "codec_sha256"])
def test_runs_on_other_tokens_are_refused(field, runs, run_export, tmp_path):
    workdirs, _ = runs
    path = workdirs[2] / "config.json"
    described = json.loads(path.read_text())
    described["data"]["tokenizers"] = {field: "cd"}
    path.write_text(json.dumps(described))
    with pytest.raises(InputError, match=f"{field} .*; the fine run has cd"):
        run_export(workdirs)
    assert not (tmp_path / "model").exists()
