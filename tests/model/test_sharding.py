"""Eight simulated devices against one, in processes of their own: their number is fixed when JAX starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import CACHE, ROOT, TESTS
from jax.sharding import AbstractMesh, PartitionSpec

from configs.base import get_config
from hafm_jax.common.errors import InputError
from hafm_jax.model import sharding
from hafm_jax.model.config import StageConfig
from hafm_jax.streams import STAGES
from hafm_jax.training.optim import optimizer
from hafm_jax.training.step import init_state


# `left` of one device's memory: embeddings and heads are gathered, and XLA sums gradients whole on CPUs.
@pytest.mark.slow
@pytest.mark.parametrize("stage, position, parts, left", [("semantic", "index", 1, 0.25), ("coarse", "clock", 2, 0.4)])
def test_any_mesh_computes_the_same(stage, position, parts, left, tmp_path):
    command = [sys.executable, TESTS / "helpers" / "sharded_steps.py", stage, position, str(parts), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert "rematerialization" not in run.stderr  # XLA's word for a layout that needs a copy of everything
    found = json.loads(run.stdout.splitlines()[-1])
    restored = found.pop("restored")
    assert restored == {"step": 4, "same": True, "placed": True}
    alone = found.pop("(1, 1, 1)")
    assert alone["losses"][-1] < alone["losses"][0] - 0.1
    for of_mesh in found.values():
        np.testing.assert_allclose(of_mesh["losses"], alone["losses"], atol=1e-5)  # sums in another order
        np.testing.assert_allclose(of_mesh["validation"], alone["validation"], atol=1e-5)
    share = {mesh: of_mesh["share_of_state"] for mesh, of_mesh in found.items()}
    assert share["(8, 1, 1)"] == 1  # `data` copies the state
    assert share["(1, 8, 1)"] < 0.16  # `fsdp` splits all of it but norms and tables
    assert share["(2, 2, 2)"] < 0.4  # matrices by four, embeddings by two
    assert found["(1, 8, 1)"]["init_bytes"] < 0.16 * alone["init_bytes"]
    assert found["(1, 8, 1)"]["step_bytes"] < left * alone["step_bytes"]


# Matrices and embeddings are split by their width over `fsdp`, by heads, hidden units or vocabulary over `tensor`.
SPLIT = {
    "blocks/query_key_value": PartitionSpec(None, "fsdp", None, "tensor", None),
    "blocks/attention_out": PartitionSpec(None, "tensor", None, "fsdp"),
    "blocks/ffn_in": PartitionSpec(None, "fsdp", None, "tensor"),
    "blocks/ffn_out": PartitionSpec(None, "tensor", "fsdp"),
    "embedder/conditions/vocal_semantic": PartitionSpec(None, None, "fsdp"),
    "embedder/conditions/instrumental_semantic": PartitionSpec(None, None, "fsdp"),
    "embedder/conditions/coarse": PartitionSpec(None, None, "fsdp"),
    "embedder/target": PartitionSpec(None, None, "fsdp"),
    "embedder/heads": PartitionSpec(None, "fsdp", "tensor"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_large_parameters_and_their_moments_are_split(stage):
    mesh = AbstractMesh((1, 2, 2), sharding.MESH_AXES)
    config = StageConfig.of_size(stage, "base", window_cells=250)
    shapes = jax.eval_shape(lambda: init_state(config, optimizer(get_config()), jax.random.key(0)))
    shardings = sharding.state_shardings(mesh, shapes)
    moments = shardings["opt_state"][1][0]
    for tree in (shardings["params"], moments.mu, moments.nu):
        for path, sharded in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            assert sharded.spec == SPLIT.get(name, PartitionSpec()), name
    whole = [x.size for x, s in zip(*map(jax.tree.leaves, (shapes, shardings)), strict=True) if s.is_fully_replicated]
    assert max(whole) < 1e5  # norms and tables


def test_a_mesh_that_is_not_that_of_the_devices_is_refused():
    devices = jax.device_count()
    assert dict(sharding.make_mesh(-1, 1, 1).shape) == {"data": devices, "fsdp": 1, "tensor": 1}
    for shape in ((devices + 1, 1, 1), (-1, devices + 1, 1), (0, 1, 1), (-1, -1, 1)):
        with pytest.raises(InputError, match=rf"does not make {devices} devices"):
            sharding.make_mesh(*shape)
