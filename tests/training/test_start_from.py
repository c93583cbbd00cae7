"""The first parameters of a run: its tokenizers' vectors, another run's parameters, or a model's."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import read_lines, write_token_set
from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.model import transformer
from hafm_jax.model.pretrained import load_model, save_model
from hafm_jax.tokenizers.folder import token_vectors
from hafm_jax.training import loop
from hafm_jax.training.step import stage_config
from hafm_jax.training.workdir import load_run


def test_a_run_can_start_from_its_tokenizers(tiny, tokenizers, tmp_path):
    token_set = write_token_set(tmp_path / "tokens", made_by={"semantic": {}, "codec": {}})
    tiny.update(steps=1, warmup_steps=0, learning_rate=1e-9, checkpoint_every=1, embeddings="tokenizers")
    tiny.tokenizers = str(tokenizers)
    state = loop.train(tiny, [(token_set, 1.0)], tmp_path / "run")
    expected = transformer.init(stage_config(tiny), jax.random.key(tiny.seed), token_vectors(tokenizers))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), state["params"], expected)

    refused = ({"tokenizers": ""}, "set --config.tokenizers"), ({"embeddings": "warm"}, "random, tokenizers")
    for fields, message in refused:
        with pytest.raises(InputError, match=message):
            loop.train(ConfigDict(tiny.to_dict() | fields), [(token_set, 1.0)], tmp_path / "other")
    with pytest.raises(InputError, match="another embeddings"):
        loop.train(ConfigDict(tiny.to_dict() | {"embeddings": "random"}), [(token_set, 1.0)], tmp_path / "run")


MADE_BY = {"semantic": {"centroids_sha256": "5ea"}, "codec": {}}


@pytest.fixture
def follow(tiny, tmp_path):
    """Train in the folder `name`, from what is in "first" unless the fields say otherwise."""
    own_tokens = write_token_set(tmp_path / "tokens", made_by=MADE_BY)

    def train(name: str, token_set: Path = own_tokens, **fields) -> dict:
        config = ConfigDict(tiny.to_dict() | {"start_from": str(tmp_path / "first")} | fields)
        return loop.train(config, [(token_set, 1.0)], tmp_path / name)

    return train


@pytest.fixture
def other_tokens(tmp_path) -> Path:
    return write_token_set(tmp_path / "other", made_by=MADE_BY | {"codec": {"weights_sha256": "c0d"}})


def test_a_run_can_start_from_the_parameters_of_another(tiny, follow, other_tokens, tmp_path):
    first = follow("first", start_from="")
    second = follow("second", steps=1, warmup_steps=0, learning_rate=1e-12, seed=7, window_cells=2)
    # A step of Adam moves no parameter by more than the rate.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-7, atol=2e-12), second["params"], first["params"])
    assert second["step"] == 1 and (tmp_path / "first" / "checkpoints" / "6").exists()

    started_from = json.loads((tmp_path / "second" / "config.json").read_text())["started_from"]
    lines = read_lines(tmp_path / "first" / "metrics.jsonl")
    assert started_from["config"] == tiny.to_dict() and started_from["step"] == 6
    assert started_from["validation_loss"] == lines[-1]["validation_loss"]

    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_bytes((tmp_path / "first" / "config.json").read_bytes())
    for fields, message in (
        ({"start_from": str(tmp_path / "none")}, r"none/config\.json is missing"),
        ({"start_from": str(tmp_path / "empty")}, "holds no complete checkpoint"),
        ({"stage": "coarse"}, "has the stage semantic; this run has coarse"),
        ({"position": "index"}, "has the position clock; this run has index"),
        ({"token_set": other_tokens}, "its ids mean other sounds"),
    ):
        with pytest.raises(InputError, match=message):
            follow("refused", **fields)
    assert not (tmp_path / "refused" / "config.json").exists()


def test_a_run_can_start_from_a_model(tiny, follow, other_tokens, tiny_model, tokenizers, tmp_path):
    tiny.update(stage="coarse", steps=1, checkpoint_every=1, warmup_steps=0)
    follow("first", start_from="")
    first = load_run(tmp_path / "first")
    stages = load_model(str(tiny_model)).stages | {"coarse": first}
    save_model(tmp_path / "model", stages, tokenizers, "# A card\n", "float16")
    (tmp_path / "model" / "fine.safetensors").unlink()  # only one stage's weights are read

    from_model = partial(follow, start_from=str(tmp_path / "model"))
    second = from_model("second", learning_rate=1e-12)
    # float16 keeps 11 bits; a step of Adam moves no parameter by more than the rate.
    close = partial(np.testing.assert_allclose, rtol=2**-11, atol=1e-7)
    jax.tree.map(close, second["params"], first.params)
    assert {str(x.dtype) for x in jax.tree.leaves(second["params"])} == {"float32"}
    started_from = json.loads((tmp_path / "second" / "config.json").read_text())["started_from"]
    assert started_from == first.facts and started_from["step"] == 1

    with pytest.raises(InputError, match="has the position clock; this run has index"):
        from_model("refused", position="index")
    with pytest.raises(InputError, match="its ids mean other sounds"):
        from_model("refused", token_set=other_tokens)


def test_a_run_that_started_from_another_resumes_without_it(tiny, token_set, tmp_path):
    loop.train(tiny, [(token_set, 1.0)], tmp_path / "first")
    tiny.start_from = str(tmp_path / "first")
    whole = loop.train(tiny, [(token_set, 1.0)], tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "6")  # 4 is left
    shutil.rmtree(tmp_path / "first")
    resumed = loop.train(tiny, [(token_set, 1.0)], tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    description, expected = ((tmp_path / name / "config.json").read_text() for name in ("cut", "whole"))
    assert json.loads(description)["started_from"]["step"] == 6 and description == expected
    with pytest.raises(InputError, match="another start_from"):
        loop.train(ConfigDict(tiny.to_dict() | {"start_from": ""}), [(token_set, 1.0)], tmp_path / "cut")
