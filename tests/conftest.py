"""Small configurations and data that several tests share."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from hafm_jax import model
from hafm_jax.sizes import StageConfig
from hafm_jax.streams import STAGES, STREAMS

# Programs compiled by an earlier run of the tests are taken from disk; a changed program has another key.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def tiny_config(stage: str, position: str = "clock", window_cells: int = 4) -> StageConfig:
    """A stage that compiles in a second: every part is there, twice where parts are counted."""
    return StageConfig(stage, 32, 2, 2, window_cells, position=position, compute_dtype="float32")


def random_params(config: StageConfig, seed: int = 0) -> model.Params:
    """Random everywhere, bias tables and norms included (fresh ones are 0 and 1), large enough for sharp logits."""
    shapes = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        scale = 1.0 if "position" in [p.key for p in path] else 0.3
        offset = 1.0 if path[-1].key.endswith("norm") else 0.0
        return (offset + scale * rng.standard_normal(x.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_tokens(stage: str, batch: int, num_cells: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """(conditions, target), int32 [B, F, K] each."""
    rng = np.random.default_rng(seed)
    tokens = [
        rng.integers(0, s.vocabulary, (batch, num_cells * s.frames_per_cell, s.codebooks), dtype=np.int32)
        for s in STAGES[stage].streams
    ]
    return tokens[:-1], tokens[-1]


def random_record(num_cells: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    semantic = {
        name: rng.integers(0, STREAMS[name].vocabulary, 2 * num_cells, dtype=np.int32)
        for name in ("vocal_semantic", "instrumental_semantic")
    }
    return semantic | {"acoustic": rng.integers(0, 1024, (3 * num_cells, 8), dtype=np.int32)}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Weights are made by the tests; nothing may be fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
