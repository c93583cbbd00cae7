"""What several tests share: small configurations, random weights and tokens, songs in memory, paths."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.common.files import CHECKSUM
from hafm_jax.dataset import writer
from hafm_jax.dataset.layout import FIELDS, cells_of
from hafm_jax.model import decode, transformer
from hafm_jax.model.config import StageConfig
from hafm_jax.model.weights import Weights
from hafm_jax.streams import STAGES, STREAMS

ROOT = Path(__file__).parents[2]  # of the repository
TESTS = ROOT / "tests"
TOKENIZE = ROOT / "tokenize"
CACHE = ROOT / ".pytest_cache"  # of what tests compile; the user's own cache is not ours to fill
WINDOW_CELLS = {"semantic": 30, "coarse": 20, "fine": 10}  # of the model that `tiny_model` makes

# For `jax.jit` of what computes far more than it compiles: the compiler's effort as users have it.
FULL_COMPILATION = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


def tiny_config(stage: str, position: str = "clock", window_cells: int = 4, num_layers: int = 2) -> StageConfig:
    """A stage that compiles in a second: every part is there, twice where parts are counted."""
    return StageConfig(stage, 32, num_layers, 2, window_cells, position=position, compute_dtype="float32")


def random_params(config: StageConfig, seed: int = 0) -> transformer.Params:
    """Random everywhere, bias tables and norms included (fresh ones are 0 and 1), large enough for sharp logits."""
    shapes = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
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


def contents(folder: Path) -> dict[str, bytes]:
    """The files in the folder, without those in its subfolders."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def edit_json(path: Path, **changes: object) -> None:
    """As a person edits a file, and so without its checksum."""
    document = json.loads(path.read_text()) | changes
    document.pop(CHECKSUM, None)
    path.write_text(json.dumps(document))


def random_record(num_cells: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    semantic = {
        name: rng.integers(0, STREAMS[name].vocabulary, 2 * num_cells, dtype=np.int32)
        for name in ("vocal_semantic", "instrumental_semantic")
    }
    return semantic | {"acoustic": rng.integers(0, 1024, (3 * num_cells, 8), dtype=np.int32)}


def write_token_set(
    directory: Path,
    seed: int = 0,
    made_by: dict | None = None,
    *,
    num_train: int = 4,
    num_validation: int = 2,
    num_cells: int = 8,
    num_shards: int = 1,
) -> Path:
    """Songs of random tokens; the first to train on and the first to validate are the same but for their ids."""
    summaries = []
    for split, num_songs in (("train", num_train), ("validation", num_validation)):
        songs = [{"id": f"{split}{i}"} | random_record(num_cells, seed + i) for i in range(num_songs)]
        summaries.append(writer.write_split(directory, split, songs, num_shards))
    writer.write_metadata(directory, summaries, made_by or {"test": True})
    return directory


def generate_window(config, params, conditions, target, start, stop, sampling, *, seed=0, packed=None) -> np.ndarray:
    """decode.generate_window of one batch with fresh weights and keys: int32 [B, F, K]."""
    prepared, keys = Weights.prepare(config, params, packed), jax.random.split(jax.random.key(seed), len(target))
    conditions, target = jax.tree.map(jnp.asarray, (conditions, target))
    return np.asarray(decode.generate_window(config, prepared, conditions, target, start, stop, keys, 0, sampling))


def read_lines(path: Path) -> list[dict]:
    """The documents of a file of JSON lines; of a file that is being written, the complete ones."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


class Songs(list):
    """Records in memory, with what hafm_jax.dataset.loader asks of TokenRecords, and a count of the windows read."""

    directory = "memory"
    reads = 0

    @property
    def num_cells(self) -> np.ndarray:
        return np.array([cells_of(record) for record in self])

    def window(self, number: int, first_cell: int, num_cells: int) -> dict[str, np.ndarray]:
        self.reads += 1
        cells = slice(first_cell, first_cell + num_cells)
        return {
            name: self[number][name][cells.start * form.frames_per_cell : cells.stop * form.frames_per_cell]
            for name, form in FIELDS.items()
        }
