"""Stage configurations, the table of sizes, and the cost of each: parameters and FLOPs, analytically.

Symbols: D model width, H heads, L layers, F feed-forward width, V vocabulary, K codebooks, T sequence tokens.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from hafm_jax.common.errors import InputError
from hafm_jax.common.options import check_number, check_word
from hafm_jax.model import ranges
from hafm_jax.model.position import num_tables, table_buckets
from hafm_jax.streams import STAGES, Stage


@dataclass(frozen=True)
class Size:
    d_model: int
    num_layers: int
    num_heads: int


SIZES = {
    "demo": Size(128, 4, 4),  # ours: three stages and a codec in 16 MB
    "small": Size(512, 12, 8),  # ours
    "base": Size(1024, 6, 16),  # inferred from the sizes of the authors' checkpoints: 250 M in three stages
    "large": Size(1024, 24, 16),  # ours, for scaling
    "xl": Size(2048, 24, 32),  # ours, for scaling
}
POSITIONS = ("clock", "index")
COMPUTE_DTYPES = ("float32", "bfloat16")


def find_size(name: str) -> Size:
    """A row of SIZES, or any other size as WIDTHxLAYERSxHEADS, for example 96x3x6. Raises InputError for all else."""
    if isinstance(name, str):
        if name in SIZES:
            return SIZES[name]
        if re.fullmatch(r"[1-9]\d{0,9}(x[1-9]\d{0,9}){2}", name, re.ASCII):
            return Size(*map(int, name.split("x")))
    raise InputError(f"size is {name!r:.80}; expected one of {', '.join(SIZES)}, or WIDTHxLAYERSxHEADS as in 96x3x6")


@dataclass(frozen=True)
class StageConfig:
    """Everything that determines a stage model's arrays and arithmetic. Hashable, for use as a static argument.

    `window_cells` is the length trained on, in cells of 40 ms; the sampler's windows have the same length.
    `position` is "clock" (time differences, ours) or "index" (sequence distances, the paper's).
    `compute_dtype` applies to matrix products; parameters, softmax, norms, logits and loss are float32.
    """

    stage_name: str
    d_model: int
    num_layers: int
    num_heads: int
    window_cells: int
    position: str = "clock"
    compute_dtype: str = "bfloat16"

    def __post_init__(self):
        """Raises InputError on a value that a model cannot have."""
        check_word("stage_name", self.stage_name, STAGES)
        check_word("position", self.position, POSITIONS)
        check_word("compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        for name, limits in ranges.STAGE.items():
            check_number(name, getattr(self, name), *limits)
        if self.d_model % self.num_heads:
            raise InputError(f"d_model {self.d_model} is not a multiple of num_heads {self.num_heads}")

    @classmethod
    def of_size(cls, stage: str, size: str, **fields) -> StageConfig:
        return cls(stage_name=stage, **(asdict(find_size(size)) | fields))

    @property
    def stage(self) -> Stage:
        return STAGES[self.stage_name]

    @property
    def head_dim(self) -> int:
        return self.d_model // self.num_heads

    @property
    def ffn_dim(self) -> int:
        """8/3 of the width, so that GEGLU's three matrices cost what T5's two of 4 D do, up to a multiple of 128."""
        return -(-8 * self.d_model // (3 * 128)) * 128


def num_layer_parameters(config: StageConfig) -> int:
    """Weights of the layers' products: without embeddings, heads, norms and bias tables. The N of scaling laws."""
    return config.num_layers * (4 * config.d_model**2 + 3 * config.d_model * config.ffn_dim)


def num_parameters(config: StageConfig) -> int:
    """Parameters of one stage, embeddings and heads included."""
    d, stage = config.d_model, config.stage
    embeddings = sum(s.codebooks * (s.vocabulary + 1) for s in stage.conditions)  # + 1: the NULL id
    embeddings += stage.target.codebooks * stage.target.vocabulary + 1  # + 1: BOS
    embeddings += len(stage.streams)  # segments
    heads = stage.target.codebooks * stage.target.vocabulary
    norms = config.num_layers * (2 * d + 2 * config.head_dim) + d
    tables = num_tables(stage, config.position) * table_buckets(config.position) * config.num_heads
    return d * (embeddings + heads) + norms + num_layer_parameters(config) + tables


def forward_flops(config: StageConfig, num_cells: int) -> int:
    """FLOPs of one forward pass over a crop of `num_cells`: matrix products and causal attention (half the square)."""
    tokens = config.stage.num_tokens(num_cells)
    target = config.stage.target
    layers = 2 * tokens * num_layer_parameters(config)
    attention = 2 * config.num_layers * tokens * (tokens + 1) * config.d_model  # scores, values: half the square each
    heads = 2 * num_cells * target.tokens_per_cell * config.d_model * target.vocabulary
    return layers + attention + heads


def train_flops(config: StageConfig, num_cells: int) -> int:
    """FLOPs of one training step on one crop: the backward pass costs twice the forward pass. Remat is not counted."""
    return 3 * forward_flops(config, num_cells)
