from __future__ import annotations

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import random_params, tiny_config

from hafm_jax.common import safetensors_io
from hafm_jax.common.errors import InputError
from hafm_jax.model import pretrained
from hafm_jax.model.sampling import Sampling


def test_a_model_directory_comes_back_as_it_was_saved(tiny_model):
    model = pretrained.load_model(str(tiny_model))
    assert list(model.stages) == ["semantic", "coarse", "fine"]
    for name, stage in model.stages.items():
        assert stage.config.stage_name == name
        jax.tree.map(np.testing.assert_array_equal, stage.params, random_params(stage.config))
    for part in ("README.md", "semantic/config.json", "semantic/centroids.safetensors", "codec/config.json"):
        assert (model.directory / part).is_file()


def test_every_stage_keeps_its_sampling(tiny_model, tmp_path):
    model = pretrained.load_model(str(tiny_model))
    ways = {"semantic": Sampling(5.0, 0.7, 100, 0.9), "coarse": Sampling(1.0), "fine": Sampling(temperature=0.0)}
    stages = {name: replace(stage, sampling=ways[name]) for name, stage in model.stages.items()}
    pretrained.save_model(tmp_path, stages, tiny_model, "a card", "float16")
    assert {name: s.sampling for name, s in pretrained.load_model(str(tmp_path)).stages.items()} == ways


def test_half_precision_weights_are_rounded_not_broken(tmp_path):
    params = random_params(tiny_config("semantic"))
    safetensors_io.save(tmp_path / "x.safetensors", params, "float16")
    back = safetensors_io.load(tmp_path / "x.safetensors", params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(np.float16), b), params, back)
    params["embedder"]["bos"][0] = 1e6  # beyond float16
    with pytest.raises(InputError, match=r"embedder\.bos"):
        safetensors_io.save(tmp_path / "y.safetensors", params, "float16")
    assert not (tmp_path / "y.safetensors").exists()


def edit_config(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


NOT_OURS = "expected a model directory"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json cannot be read .No such file"),
        (lambda d: (d / "config.json").write_text("{"), NOT_OURS),
        (lambda d: (d / "fine.safetensors").unlink(), "fine.safetensors is missing"),
        (lambda d: (d / "fine.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"no json!"), "not a safetensors file"),
        (lambda d: shutil.copy(d / "coarse.safetensors", d / "fine.safetensors"), "not of one model"),
        (lambda d: edit_config(d, lambda c: c.update(format_version=99)), "format version 99"),
        (lambda d: edit_config(d, lambda c: c["stages"].pop("coarse")), "no coarse stage"),
        (lambda d: edit_config(d, lambda c: c["stages"]["fine"].pop("sampling")), NOT_OURS),
        (lambda d: edit_config(d, lambda c: c["stages"]["coarse"]["config"].update(d_model=64)), "not of one model"),
        (lambda d: edit_config(d, lambda c: c["stages"]["coarse"]["sampling"].update(colour=1)), "argument 'colour'"),
        (lambda d: edit_config(d, lambda c: c["stages"]["coarse"]["config"].update(colour=1)), "argument 'colour'"),
    ],
)
def test_missing_and_mismatched_parts_are_named(tiny_model, tmp_path, damage, message):
    directory = tmp_path / "model"
    shutil.copytree(tiny_model, directory)
    damage(directory)
    with pytest.raises(InputError, match=message):
        pretrained.load_model(str(directory))


def test_a_source_that_is_not_a_model_is_refused_without_a_traceback(tmp_path):
    for source in (str(tmp_path / "nowhere" / "at" / "all"), str(tmp_path), "owner/name-that-is-not-here"):
        with pytest.raises(InputError):
            pretrained.load_model(source)


def test_a_folder_without_tokenizers_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"semantic/config\.json"):
        pretrained.save_model(tmp_path / "out", {}, tmp_path, "", "float32")
    assert not (tmp_path / "out").exists()
