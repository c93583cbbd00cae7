"""The stage Transformer: one class for the semantic, the coarse and the fine stage.

Sequence: [condition streams | BOS, target shifted right], one causal Transformer over all of it. Position p of the
target part predicts token p of the target, so it has the time of token p.

Modules hold the parameters (Flax NNX) and the arithmetic of one layer; the rest of the package uses `params`, a nested
dict of arrays, and the functions at the end of this file.

Axes: B batch, T sequence tokens, F frames, K codebooks, D model, H heads, E head width, G feed-forward, V vocabulary,
L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hafm_jax.model import attention, sharding
from hafm_jax.model.attention import BlockedBias, blocked_bias, causal_attention, einsum_float32
from hafm_jax.model.config import StageConfig
from hafm_jax.model.position import PositionBias, initial_tables, table_names
from hafm_jax.streams import Stream, interleave

Params = dict  # nested: name -> dict or jax.Array
TokenVectors = Mapping[str, np.ndarray]  # tokenizer -> [K, V, D'], the sound of its ids (tokenizers.token_vectors)

EMBEDDING_STD = 0.02  # GPT-2's
RMS_EPSILON = 1e-6  # T5
# Ours, for embeddings and heads that start as their tokens' vectors: large enough that Adam's first steps, each of
# about the learning rate, do not erase them. Not tuned; see docs/notebook.md.
VECTOR_EMBEDDING_STD = 0.5
VECTOR_HEAD_STD = 0.05

# What the backward pass computes again of a layer: nothing, everything but the attention's result, or everything from
# the layer's input. Each needs less memory than the one above it and more work.
REMAT = {
    "none": lambda layer: layer,
    "attention": partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(*attention.SAVED)),
    "layer": jax.checkpoint,
}


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """RMSNorm over the last axis, in float32, returned in x's dtype."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + RMS_EPSILON)
    return (y * scale).astype(x.dtype)


class BackendWeight:
    """The one seam for a backend that keeps a weight in a form of its own: the weight brings its products.

    What multiplies by a parameter here asks it; `hafm_jax.model.weights` has the only kind there is.
    """

    def product(self, x: jax.Array) -> jax.Array:
        """As `product` below, over the axes that the weight was made for."""
        raise NotImplementedError

    def head_logits(self, x: jax.Array, codebook: jax.Array) -> jax.Array:
        """As `head_logits` below."""
        raise NotImplementedError


def product(x: jax.Array, weight: nnx.Param, contracted: int = 1) -> jax.Array:
    """x [..., C] times a weight [C, ...], over the `contracted` axes where they meet, in x's dtype."""
    w = weight.get_value()
    return w.product(x) if isinstance(w, BackendWeight) else jnp.tensordot(x, w, contracted)


def head_logits(x: jax.Array, heads: nnx.Param, codebook: jax.Array) -> jax.Array:
    """x [B, D] by the head of `codebook` (a scalar) of heads [K, D, V] -> float32 [B, V]."""
    w = heads.get_value()
    if isinstance(w, BackendWeight):
        return w.head_logits(x, codebook)
    return einsum_float32("bd,dv->bv", x, w[codebook])


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
    return nnx.Param(std * jax.random.normal(rngs.params(), shape))


class Block(nnx.Module):
    """One pre-norm layer: attention with QK-norm, then GEGLU; no biases."""

    def __init__(self, config: StageConfig, rngs: nnx.Rngs):
        d, h, e, g = config.d_model, config.num_heads, config.head_dim, config.ffn_dim
        residual = (2 * config.num_layers) ** -0.5  # GPT-2: the residual stream keeps its size at any depth
        self.attention_norm = nnx.Param(jnp.ones(d))
        self.query_key_value = _normal(rngs, (d, 3, h, e), d**-0.5)
        self.query_norm = nnx.Param(jnp.ones(e))
        self.key_norm = nnx.Param(jnp.ones(e))
        self.attention_out = _normal(rngs, (h, e, d), residual * d**-0.5)
        self.ffn_norm = nnx.Param(jnp.ones(d))
        self.ffn_in = _normal(rngs, (d, 2, g), d**-0.5)
        self.ffn_out = _normal(rngs, (g, d), residual * g**-0.5)

    def qkv(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x [B, T, D] -> normed and scaled queries, normed keys, values, each [B, H, T, E]."""
        y = rms_norm(x, self.attention_norm[...])
        q, k, v = product(y, self.query_key_value).transpose(2, 0, 3, 1, 4)
        q = rms_norm(q, self.query_norm[...]) * q.shape[-1] ** -0.5
        return q, rms_norm(k, self.key_norm[...]), v

    def attention_out_and_ffn(self, x: jax.Array, attended: jax.Array) -> jax.Array:
        """The residual stream x [B, T, D] and what the heads read [B, H, T, E] -> the next layer's x."""
        x = x + product(attended.swapaxes(1, 2), self.attention_out, 2)
        y = rms_norm(x, self.ffn_norm[...])
        gate, value = jnp.moveaxis(product(y, self.ffn_in), 2, 0)
        return x + product(jax.nn.gelu(gate) * value, self.ffn_out)


class Embedder(nnx.Module):
    """Everything before and after the layers: embeddings, bias tables, final norm, heads."""

    def __init__(self, config: StageConfig, rngs: nnx.Rngs):
        stage, d = config.stage, config.d_model
        target = stage.target
        self.conditions = nnx.Dict(
            {s.name: _normal(rngs, (s.codebooks, s.vocabulary + 1, d), EMBEDDING_STD) for s in stage.conditions}
        )
        self.target = _normal(rngs, (target.codebooks, target.vocabulary, d), EMBEDDING_STD)
        self.bos = _normal(rngs, (d,), EMBEDDING_STD)
        self.segments = _normal(rngs, (len(stage.streams), d), EMBEDDING_STD)
        tables = initial_tables(stage, config.position, config.num_heads)
        self.position = nnx.Dict({name: nnx.Param(jnp.asarray(table)) for name, table in tables.items()})
        self.final_norm = nnx.Param(jnp.ones(d))
        self.heads = _normal(rngs, (target.codebooks, d, target.vocabulary), EMBEDDING_STD)

    def embed_conditions(self, config: StageConfig, conditions: Sequence[jax.Array]) -> jax.Array:
        """Condition tokens, int [B, F, K] a stream in the stage's order -> [B, T_conditions, D]."""
        parts = []
        for i, (stream, tokens) in enumerate(zip(config.stage.conditions, conditions, strict=True)):
            table = sharding.constrain(self.conditions[stream.name][...])  # [K, V + 1, D], gathered
            x = table[jnp.arange(stream.codebooks), tokens]  # [B, F, K, D]
            parts.append(x.reshape(x.shape[0], -1, x.shape[-1]) + self.segments[i])
        return jnp.concatenate(parts, axis=1)

    def embed_bos(self) -> jax.Array:
        """The target's first input -> [D]."""
        return self.bos[...] + self.segments[-1]

    def embed_target(self, tokens: jax.Array, codebook: jax.Array | int) -> jax.Array:
        """Target tokens int [...] of the given codebooks [...] as inputs -> [..., D]."""
        return sharding.constrain(self.target[...])[codebook, tokens] + self.segments[-1]

    def embed(self, config: StageConfig, conditions: Sequence[jax.Array], target: jax.Array) -> jax.Array:
        """The whole input: conditions, BOS, and the target [B, F, K] without its last token -> [B, T, D]."""
        codebooks = jnp.broadcast_to(jnp.arange(target.shape[-1]), target.shape)
        shifted = self.embed_target(interleave(target)[:, :-1], interleave(codebooks)[:, :-1])
        bos = jnp.broadcast_to(self.embed_bos(), (target.shape[0], 1, config.d_model))
        return jnp.concatenate([self.embed_conditions(config, conditions), bos, shifted], axis=1)

    def _tables(self, config: StageConfig) -> dict[str, jax.Array]:
        return {name: self.position[name][...] for name in table_names(config.stage, config.position)}

    def bias(self, config: StageConfig, num_cells: int) -> PositionBias:
        """The relative position bias of a window of `num_cells`, row by row."""
        return PositionBias(self._tables(config), config.stage, num_cells, config.position)

    def blocked_bias(self, config: StageConfig, num_cells: int, num_tokens: int | None = None) -> BlockedBias:
        """The same in blocks, for attention over a whole window or its first `num_tokens`."""
        tables = {
            name: sharding.constrain(jnp.broadcast_to(table, (sharding.batch_shards(), *table.shape)), "batch")
            for name, table in self._tables(config).items()
        }
        return blocked_bias(tables, config.stage, num_cells, config.position, num_tokens)

    def logits(self, x: jax.Array) -> jax.Array:
        """The last layer's x [B, F, K, D] -> float32 [B, F, K, V], by each codebook's own head."""
        x = rms_norm(x, self.final_norm[...])
        return einsum_float32("bfkd,kdv->bfkv", x, self.heads[...])

    def token_logits(self, x: jax.Array, codebook: jax.Array) -> jax.Array:
        """The last layer's x [B, D], which predicts a token of `codebook` (a scalar) -> float32 [B, V]."""
        return head_logits(rms_norm(x, self.final_norm[...]), self.heads, codebook)


@cache
def _graphs(config: StageConfig) -> tuple[nnx.GraphDef, nnx.GraphDef]:
    """The static halves of `Embedder` and `Block`."""

    def graph(kind: type[nnx.Module]) -> nnx.GraphDef:
        return nnx.split(nnx.eval_shape(lambda: kind(config, nnx.Rngs(0))))[0]

    return graph(Embedder), graph(Block)


def _start_as_vectors(config: StageConfig, embedder_params: Params, vectors: TokenVectors, key: jax.Array) -> Params:
    """Embeddings and heads as random projections of their tokens' vectors, so that similar sounds start close together.

    Streams of one tokenizer share the projection: equal sounds start equal in each, and the codebooks of a frame add up
    as they do in the codec.
    """

    def projected(stream: Stream, use: int, std: float) -> jax.Array:
        """-> [K, V, D]."""
        books = jnp.asarray(vectors[stream.tokenizer])[stream.first_codebook :][: stream.codebooks]
        books = books - books.mean(1, keepdims=True)
        books = books / jnp.sqrt(jnp.mean(books**2, axis=(1, 2), keepdims=True))
        place = jax.random.fold_in(jax.random.fold_in(key, use), stream.tokenizer == "codec")
        return std * books @ jax.random.normal(place, (books.shape[-1], config.d_model)) / books.shape[-1] ** 0.5

    embedded = {s.name: projected(s, 0, VECTOR_EMBEDDING_STD) for s in config.stage.streams}
    target = config.stage.target
    # The last row of a condition's table is the NULL id's, which has no sound.
    conditions = {name: table.at[:, :-1].set(embedded[name]) for name, table in embedder_params["conditions"].items()}
    heads = projected(target, 1, VECTOR_HEAD_STD).swapaxes(1, 2)  # [K, D, V]
    return embedder_params | {"conditions": conditions, "target": embedded[target.name], "heads": heads}


def init(config: StageConfig, key: jax.Array, vectors: TokenVectors | None = None) -> Params:
    """Fresh float32 parameters {"embedder": ..., "blocks": ... with a leading L}. Under `jax.eval_shape`, their shapes.

    With `vectors`, embeddings and heads start from these instead of at random.
    """

    def arrays(kind: type[nnx.Module], key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.split(kind(config, nnx.Rngs(key)))[1])

    embedder_key, blocks_key = jax.random.split(key)
    blocks = jax.vmap(lambda key: arrays(Block, key))(jax.random.split(blocks_key, config.num_layers))
    embedder_params = arrays(Embedder, embedder_key)
    if vectors is not None:
        embedder_params = _start_as_vectors(config, embedder_params, vectors, embedder_key)
    return {"embedder": embedder_params, "blocks": blocks}


def compute_params(config: StageConfig, params: Params) -> Params:
    """Parameters in the dtype of the computation: `compute_dtype`, but float32 for norms and bias tables."""

    def cast(path, x):
        names = [getattr(p, "key", None) for p in path]
        keep = "position" in names or names[-1].endswith("norm")
        return x.astype(jnp.float32 if keep else config.compute_dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def embedder(config: StageConfig, embedder_params: Params) -> Embedder:
    return nnx.merge(_graphs(config)[0], embedder_params)


def block(config: StageConfig, block_params: Params) -> Block:
    """One layer from its parameters (no leading L)."""
    return nnx.merge(_graphs(config)[1], block_params)


def forward(
    config: StageConfig,
    params: Params,
    conditions: Sequence[jax.Array],
    target: jax.Array,
    *,
    remat: str = "none",
) -> jax.Array:
    """Logits of every target token given the conditions and the target before it (teacher forcing).

    conditions: int [B, F_s, K_s] a stream, in the stage's order; target: int [B, F, K], whole cells of the same
    time; -> float32 [B, F, K, V]. `remat`, one of REMAT, is what the backward pass computes again.
    """
    params = compute_params(config, params)
    model_embedder = embedder(config, params["embedder"])
    frames, codebooks = target.shape[1:]
    x = model_embedder.embed(config, conditions, target)
    bias = model_embedder.blocked_bias(config, frames // config.stage.target.frames_per_cell)

    def layer(x: jax.Array, layer_params: Params) -> tuple[jax.Array, None]:
        layer_block = block(config, layer_params)
        x = layer_block.attention_out_and_ffn(x, causal_attention(*layer_block.qkv(x), bias))
        return sharding.constrain(x, "batch"), None

    x = sharding.constrain(x, "batch")
    x, _ = jax.lax.scan(REMAT[remat](layer), x, params["blocks"])
    return model_embedder.logits(x[:, -frames * codebooks :].reshape(*target.shape, -1))


def null_conditions(config: StageConfig, conditions: Sequence[jax.Array], drop: jax.Array) -> list[jax.Array]:
    """Conditions with every token of the examples where `drop` [B] is true replaced by the stream's NULL id."""
    return [
        jnp.where(drop[:, None, None], stream.null_id, tokens)
        for stream, tokens in zip(config.stage.conditions, conditions, strict=True)
    ]
