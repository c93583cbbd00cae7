from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import safetensors.numpy
from helpers import edit_json, random_params, tiny_config

from hafm_jax.common import safetensors_io
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import unsealed
from hafm_jax.model import pretrained
from hafm_jax.model.sampling import Sampling
from hafm_jax.tokenizers.codecs import load_codec
from hafm_jax.tokenizers.semantic import load_semantic


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
    config = unsealed(json.loads(path.read_text()))
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


def rewrite(path, change):
    """The same arrays with one changed, and no digest of it in the config."""
    arrays = safetensors.numpy.load_file(path)
    name = max(arrays, key=lambda name: arrays[name].size)
    safetensors.numpy.save_file(arrays | {name: change(arrays[name])}, path)
    edit_config(path.parent, lambda config: config["stages"][path.stem].pop("sha256"))


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "float64"])
def test_weights_that_are_not_floats_of_at_most_32_bits_are_refused(tiny_model, tmp_path, dtype):
    """Rounded to whole numbers, or to 0 and 1, they would make music too."""
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    rewrite(directory / "fine.safetensors", lambda array: array.astype(dtype))
    with pytest.raises(InputError, match=r"fine\.safetensors holds .* as \w+; expected one of F32, F16, BF16"):
        pretrained.load_model(str(directory))


def test_a_flipped_bit_of_the_weights_is_named_by_its_file(tiny_model, tmp_path):
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    path = directory / "coarse.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1  # the lowest bit of a number
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"coarse\.safetensors has the SHA-256 .*it is damaged, or of another model"):
        pretrained.load_model(str(directory))
    pretrained.load_model(str(directory), ["semantic", "fine"])


def test_a_model_without_digests_loads_as_it_is(tiny_model, tmp_path):
    """As another program wrote it."""
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    rewrite(directory / "fine.safetensors", lambda array: array.astype("float16"))
    (directory / "config.json").write_text((directory / "config.json").read_text().replace("sha256", "made_by"))
    stages = pretrained.load_model(str(directory)).stages
    assert stages["fine"].params["embedder"]["bos"].dtype == np.float32


def test_the_shipped_demo_has_the_digests_of_its_files():
    stages = json.loads((pretrained.DEMO / "config.json").read_text())["stages"]
    codec = json.loads((pretrained.DEMO / "codec" / "config.json").read_text())
    stated = {f"{name}.safetensors": stage["sha256"] for name, stage in stages.items()}
    for name, digest in (stated | {"codec/codec.safetensors": codec["weights_sha256"]}).items():
        assert hashlib.sha256((pretrained.DEMO / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("device", [True, False])
@pytest.mark.parametrize(
    "name",
    [f"{part}config.json" for part in ("", "semantic/", "codec/")]
    + [f"{part}.safetensors" for part in ("fine", "semantic/centroids", "codec/codec")],
)
def test_a_part_that_is_not_a_regular_file_is_refused_without_being_read(tiny_model, tmp_path, name, device):
    """A pipe would wait for ever, and /dev/zero fill the memory."""
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    path = directory / name
    path.unlink()
    path.symlink_to("/dev/zero") if device else os.mkfifo(path)
    with pytest.raises(InputError, match=rf"{path.name} .*not a regular file"):
        pretrained.load_model(str(directory))
        load_semantic(directory / "semantic")
        load_codec(directory / "codec")


@pytest.mark.parametrize("source", ["/etc", "../../secret", "~/private", "./here", "a/b/c", "", 7])
def test_a_model_of_the_hub_opens_nothing_of_this_machine(tiny_model, tmp_path, monkeypatch, source):
    snapshot = shutil.copytree(tiny_model, tmp_path / "snapshot")
    monkeypatch.setattr(pretrained, "from_hub", lambda source, patterns, revision: snapshot)
    assert pretrained.find_model("owner/model") == snapshot
    edit_json(snapshot / "codec" / "config.json", codec="encodec", source="facebook/encodec_24khz")
    assert pretrained.find_model("owner/model") == snapshot
    edit_json(snapshot / "codec" / "config.json", source=source)
    with pytest.raises(InputError, match=r"codec/config\.json has the source .*; expected a Hub id OWNER/NAME"):
        pretrained.find_model("owner/model")
    assert pretrained.find_model(str(snapshot)) == snapshot  # a folder of one's own may name any


def test_a_revision_of_a_model_on_the_hub_is_asked_for_and_demo_is_the_shipped_one(tiny_model, monkeypatch):
    asked = []
    monkeypatch.setattr(pretrained, "from_hub", lambda *which: asked.append(which[::2]) or tiny_model)
    for source in ("owner/a.model", "owner/a.model@v1.0", "owner/a.model@refs/pr/3"):
        assert pretrained.find_model(source) == tiny_model
    assert asked == [("owner/a.model", None), ("owner/a.model", "v1.0"), ("owner/a.model", "refs/pr/3")]
    assert pretrained.find_model("demo") == pretrained.DEMO


def test_a_source_that_is_not_a_model_is_refused_without_a_traceback(tmp_path):
    for source in (str(tmp_path / "nowhere" / "at" / "all"), str(tmp_path), "owner/name-that-is-not-here"):
        with pytest.raises(InputError):
            pretrained.load_model(source)


def test_a_folder_without_tokenizers_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"semantic/config\.json"):
        pretrained.save_model(tmp_path / "out", {}, tmp_path, "", "float32")
    assert not (tmp_path / "out").exists()
