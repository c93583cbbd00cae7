"""Weights as the sampler keeps them, and all that depends on how: products, the form of the KV cache, its length.

On a CPU they are packed for the kernels of hafm_jax.model.cpu, where these can be built; elsewhere XLA multiplies them
as they are. This file alone knows the difference.

Axes: R rows, T cached tokens, D model, H heads, E head width, K codebooks, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax

from hafm_jax.model import transformer
from hafm_jax.model.attention import dense_attention
from hafm_jax.model.config import StageConfig
from hafm_jax.model.cpu import kernels
from hafm_jax.model.transformer import Params

CACHE_GROWTH_TOKENS = 1024  # ours: the cache's length is a multiple of it; smaller reads less, compiles more programs
CONTRACTED = {"query_key_value": 1, "attention_out": 2, "ffn_in": 1, "ffn_out": 1}  # a block's weight -> its input axes


def missing_kernels() -> str | None:
    """Why weights are not packed here; None where they are."""
    return kernels.load()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed(transformer.BackendWeight):
    """A weight whose `contracted` input axes are the last ones of `array`, as the kernels read it."""

    array: jax.Array
    contracted: int = field(metadata={"static": True})

    def product(self, x: jax.Array) -> jax.Array:
        return kernels.product(x, self.array, self.contracted)

    def head_logits(self, x: jax.Array, codebook: jax.Array) -> jax.Array:
        return kernels.head_logits(x, self.array, codebook)


@partial(jax.tree_util.register_dataclass, data_fields=["embedder", "blocks"], meta_fields=["packed"])
@dataclass(frozen=True)
class Weights:
    """Parameters in the compute dtype, a list of layers; `packed` or not."""

    embedder: Params
    blocks: list[Params]
    packed: bool

    @classmethod
    def prepare(cls, config: StageConfig, params: Params, packed: bool | None = None) -> Weights:
        """Made once for many windows. packed: None for the machine's choice, the kernels where there are any."""
        return _prepare(config, params, kernels.load() is None if packed is None else packed)

    def stored(self, x: jax.Array) -> jax.Array:
        """Keys or values [R, H, T, E] as the cache holds them."""
        return kernels.stored(x) if self.packed else x

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, filled: jax.Array) -> jax.Array:
        """q [R, H, 1, E] to the first `filled` of the cache, the only ones that `bias` [H, 1, T] does not mask."""
        return kernels.attend(q, k, v, bias, filled) if self.packed else dense_attention(q, k, v, bias)

    def capacity(self, filled: int, total: int) -> int:
        """The length T of a cache of which `filled` tokens of `total` are needed: rounded up to what is compiled. The
        kernels read the filled part alone, so theirs is whole from the start."""
        return total if self.packed else min(total, -(-filled // CACHE_GROWTH_TOKENS) * CACHE_GROWTH_TOKENS)


@partial(jax.jit, static_argnames=("config", "packed"))
def _prepare(config: StageConfig, params: Params, packed: bool) -> Weights:
    params = transformer.compute_params(config, params)
    embedder, blocks = params["embedder"], params["blocks"]
    layers = [jax.tree.map(lambda x: x[i], blocks) for i in range(config.num_layers)]  # noqa: B023
    if packed:
        embedder = embedder | {"heads": Packed(jax.vmap(kernels.pack)(embedder["heads"]), 1)}
        layers = [layer | {n: Packed(kernels.pack(layer[n], c), c) for n, c in CONTRACTED.items()} for layer in layers]
    return Weights(embedder, layers, packed)
