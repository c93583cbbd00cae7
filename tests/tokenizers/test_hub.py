"""Loading torch models: folders without network, and what cannot be loaded."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
from helpers import edit_json
from helpers.torch_models import encodec_folder, hubert_folder, torch, transformers  # noqa: F401 (fixtures)

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers.encodec import EncodecCodec
from hafm_jax.tokenizers.hubert import HubertFeatures


def test_a_folder_never_touches_the_network(hubert_folder, encodec_folder, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    HubertFeatures(hubert_folder, 1)
    EncodecCodec(encodec_folder)


def test_unusable_sources_are_named(hubert_folder, encodec_folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no config"):
        HubertFeatures(tmp_path / "absent", 1)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(InputError, match="cannot be loaded"):
        HubertFeatures(tmp_path, 1)
    with pytest.raises(InputError, match=r"EnCodec|lacks"):  # another model's weights must not leave random ones behind
        EncodecCodec(hubert_folder)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0},
        {"hidden_size": "wide"},
        {"conv_dim": 7},
        {"num_hidden_layers": -1},
        {"hidden_act": "boom"},
        {"conv_kernel": []},
        {"layer_norm_eps": None},
        {"conv_stride": [0] * 7},
    ],
)
def test_a_config_of_a_strangers_model_is_one_line(hubert_folder, tmp_path, change):
    folder = shutil.copytree(hubert_folder, tmp_path / "model")
    edit_json(folder / "config.json", **change)
    with pytest.raises(InputError, match="model"):
        HubertFeatures(folder, 1)


def test_a_config_without_end_is_refused(hubert_folder, tmp_path):
    folder = shutil.copytree(hubert_folder, tmp_path / "model")
    (folder / "config.json").write_text('{"a":' * 200_000)
    with pytest.raises(InputError, match="nested too deeply"):
        HubertFeatures(folder, 1)
    os.truncate(folder / "config.json", 300_000_000)
    with pytest.raises(InputError, match="300,000,000 bytes"):
        HubertFeatures(folder, 1)


def test_pickled_weights_are_not_loaded(hubert_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((hubert_folder / "config.json").read_bytes())
    model = transformers.HubertModel.from_pretrained(hubert_folder)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        HubertFeatures(tmp_path, 1)


def test_without_torch_the_extra_is_named(hubert_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for load in (lambda: HubertFeatures(hubert_folder, 1), lambda: EncodecCodec("x/y")):
        with pytest.raises(InputError, match=r'pip install "hafm_jax\[torch\]"'):
            load()
