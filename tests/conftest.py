"""Small configurations and data that several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Tests compile far more than they compute: half the compiler's effort, before JAX reads the flags.
CHEAP_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {CHEAP_COMPILATION}"

import jax
import numpy as np
import pytest
from helpers import CACHE, ROOT, TESTS, WINDOW_CELLS, random_params, tiny_config, write_token_set
from hypothesis import settings
from ml_collections import ConfigDict

from configs.base import get_config
from hafm_jax.model.config import SIZES, Size

settings.register_profile("any-machine", deadline=None)  # speed is measured in benchmarks/, not by tests
settings.load_profile("any-machine")

# Programs compiled by an earlier run of the tests are read from disk; a changed program has another key.
os.environ["XDG_CACHE_HOME"] = str(CACHE)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Weights are made by the tests; nothing may be fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Files of tests need not survive a power failure, and waiting for the disk takes 10 ms a file."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """A Ray cluster on this machine, for RAY_ADDRESS: starting it takes longer than joining it, as each test does."""
    pytest.importorskip("ray", reason="needs the extra hafm_jax[ray]")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as monkeypatch:
        paths = [
            str(TESTS),
            str(ROOT),  # its workers import what the drivers call, by name
            os.environ.get("PYTHONPATH", ""),
        ]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def tiny(monkeypatch) -> ConfigDict:
    """A run of six steps of a tiny stage."""
    monkeypatch.setitem(SIZES, "tiny", Size(64, 2, 2))
    config = get_config()
    config.update(size="tiny", window_cells=4, compute_dtype="float32", remat="none")
    config.update(steps=6, batch_size=2, learning_rate=3e-3, warmup_steps=2, weight_decay=0.0, condition_dropout=0.0)
    config.update(log_every=2, eval_every=3, eval_batches=1, checkpoint_every=3)
    return config


@pytest.fixture
def token_set(tmp_path) -> Path:
    return write_token_set(tmp_path / "tokens")


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory) -> Path:
    """Tokenizers with random centroids and weights: real formats and vocabularies, small networks."""
    from hafm_jax.tokenizers import chroma, codecs, semantic, spectral_codec

    directory = tmp_path_factory.mktemp("tokenizers")
    centroids = np.random.default_rng(0).random((500, chroma.DIMENSIONS), np.float32)
    semantic.save_semantic(directory / "semantic", {"features": "chroma"}, centroids)
    config = spectral_codec.SpectralConfig(
        encoder_channels=8, encoder_blocks=1, decoder_channels=8, decoder_blocks=1, latent=4
    )
    codecs.save_spectral(
        directory / "codec", config, jax.jit(spectral_codec.init, static_argnums=0)(config, jax.random.key(0))
    )
    return directory


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tokenizers) -> Path:
    """A whole model directory with random weights."""
    from hafm_jax.model.pretrained import StageWeights, save_model

    directory = tmp_path_factory.mktemp("model")
    stages = {}
    for name, window_cells in WINDOW_CELLS.items():
        config = tiny_config(name, window_cells=window_cells, num_layers=1)  # one layer compiles sooner
        stages[name] = StageWeights(config, random_params(config), {"steps": 0})
    save_model(directory, stages, tokenizers, "# A card\n", "float32")
    return directory
