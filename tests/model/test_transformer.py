from __future__ import annotations

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_params, random_tokens, tiny_config

from hafm_jax.model import attention, transformer
from hafm_jax.model.config import SIZES, StageConfig, num_parameters
from hafm_jax.streams import STAGES

forward = jax.jit(transformer.forward, static_argnums=0)


@pytest.mark.parametrize("position", ["clock", "index"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", STAGES)
def test_analytic_parameters_are_the_real_ones(stage, size, position):
    config = StageConfig.of_size(stage, size, window_cells=10, position=position)
    shapes = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
    assert num_parameters(config) == sum(x.size for x in jax.tree.leaves(shapes))


def test_base_has_the_size_of_the_authors_checkpoints():
    total = sum(num_parameters(StageConfig.of_size(s, "base", window_cells=250)) for s in STAGES)
    assert 245e6 < total < 260e6


@pytest.mark.parametrize("stage", STAGES)
def test_embeddings_and_heads_can_start_as_their_tokens_vectors(stage):
    config, key = tiny_config(stage, window_cells=10), jax.random.key(0)
    rng = np.random.default_rng(0)
    vectors = {"semantic": rng.random((1, 500, 20), np.float32), "codec": rng.random((8, 1024, 48), np.float32)}
    random, start = transformer.init(config, key), transformer.init(config, key, vectors)
    jax.tree.map(np.testing.assert_array_equal, random["blocks"], start["blocks"])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.shape, y.shape), random, start)

    def cosines(x):
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        return x @ x.swapaxes(-1, -2)  # [K, V, V]

    ends = jax.tree.map(np.asarray, start["embedder"])
    target = config.stage.target
    tables = {name: table[:, :-1] for name, table in ends["conditions"].items()} | {target.name: ends["target"]}
    for stream in config.stage.streams:
        books = vectors[stream.tokenizer][stream.first_codebook : stream.first_codebook + stream.codebooks]
        asked = cosines(books - books.mean(1, keepdims=True))
        found = {"embeddings": tables[stream.name]}
        if stream is target:
            found["heads"] = ends["heads"].swapaxes(1, 2)
        for table in found.values():
            # A random projection keeps a cosine to about 1 / sqrt(width).
            assert np.abs(cosines(table) - asked).mean() < 1.5 * config.d_model**-0.5
            assert np.corrcoef(cosines(table).ravel(), asked.ravel())[0, 1] > 0.5
    for name, table in ends["conditions"].items():
        null = random["embedder"]["conditions"][name][:, -1]  # has no sound
        np.testing.assert_array_equal(table[:, -1], null)
    if stage == "coarse":
        np.testing.assert_array_equal(tables["vocal_semantic"], tables["instrumental_semantic"])


def test_remat_changes_no_gradient_and_keeps_less():
    config = tiny_config("semantic", window_cells=20, num_layers=8)
    params = random_params(config)
    conditions, target = random_tokens("semantic", 1, 20)

    def loss(params, remat):
        return jnp.mean(jax.nn.logsumexp(transformer.forward(config, params, conditions, target, remat=remat), -1))

    compiled = {r: jax.jit(jax.grad(loss), static_argnums=1).lower(params, r).compile() for r in transformer.REMAT}
    gradients = {remat: program(params) for remat, program in compiled.items()}
    for remat in ("attention", "layer"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients["none"], gradients[remat])
    taken = {remat: program.memory_analysis().temp_size_in_bytes for remat, program in compiled.items()}
    # Attention's result, [T, D], and its normalisers, [T, H]: in float32, for every layer.
    kept = 4 * config.num_layers * STAGES["semantic"].num_tokens(20) * (config.d_model + config.num_heads)
    assert taken["attention"] - taken["layer"] > 0.8 * kept
    assert taken["none"] - taken["attention"] > 8 * kept  # q, k, v, norms, the feed-forward's activations


@pytest.mark.parametrize("stage", STAGES)
def test_a_condition_enters_at_its_own_place_and_a_target_one_later(stage):
    config = tiny_config(stage)
    conditions, target = random_tokens(stage, 1, 2)
    flat, as_streams = jax.flatten_util.ravel_pytree((conditions, target))  # conditions first, frame by frame
    bos = flat.size - target.size

    def inputs(params, flat):
        return transformer.embedder(config, params["embedder"]).embed(config, *as_streams(flat))[0]  # [T, D]

    @jax.jit
    def moved(params):
        """[T tokens, T places]: which inputs change with the token."""
        others = jnp.where(jnp.eye(flat.size) == 1, flat ^ 1, flat)  # in their vocabularies, which are even
        return jnp.any(jax.vmap(inputs, (None, 0))(params, others) != inputs(params, flat), axis=-1)

    own, next_one = np.eye(flat.size), np.eye(flat.size, k=1)  # none for the last target, which is no input
    expected = np.concatenate([own[:bos], next_one[bos:]]) != 0
    np.testing.assert_array_equal(moved(random_params(config)), expected)


@pytest.mark.parametrize("position", ["clock", "index"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_place_sees_every_input_up_to_its_own_and_none_after_it(stage, position):
    """By gradient. So a target sees the whole condition, later frames included, BOS and all targets before it."""
    config = tiny_config(stage, position, num_layers=1)  # one: a place sees others directly, not through third ones
    params = random_params(config)
    conditions, target = random_tokens(stage, 1, 2)
    bos = sum(x.size for x in conditions)
    rng = np.random.default_rng(0)
    from_hidden = rng.standard_normal((bos, config.d_model))  # one random sum of each place
    from_logits = rng.standard_normal((*target.shape, config.stage.target.vocabulary))

    @jax.jit
    def run(params):
        """(Norms of the gradients [T outputs, T inputs], logits). A condition's output is the layer's."""
        model_ends = transformer.embedder(config, params["embedder"])
        bias = model_ends.blocked_bias(config, num_cells=2)
        layer = transformer.block(config, jax.tree.map(lambda p: p[0], params["blocks"]))

        def outputs(x):
            x = layer.attention_out_and_ffn(x, attention.causal_attention(*layer.qkv(x), bias))
            logits = model_ends.logits(x[:, bos:].reshape(*target.shape, -1))
            read = [jnp.sum(x[0, :bos] * from_hidden, axis=-1), jnp.sum(logits * from_logits, axis=-1).ravel()]
            return jnp.concatenate(read), logits

        jacobian, logits = jax.jacrev(outputs, has_aux=True)(model_ends.embed(config, conditions, target))
        return jnp.linalg.norm(jacobian[:, 0], axis=-1), logits

    norms, logits = run(params)
    np.testing.assert_allclose(logits, forward(config, params, conditions, target), atol=1e-4)  # this is its layer
    np.testing.assert_array_equal(norms != 0, np.tril(np.ones(norms.shape)) != 0)


def test_dropped_conditions_do_not_matter():
    config = tiny_config("coarse")
    params = random_params(config)
    drop = jnp.array([True, False])
    (a, target), (b, _) = random_tokens("coarse", 2, 4, seed=0), random_tokens("coarse", 2, 4, seed=1)
    x, y = (forward(config, params, transformer.null_conditions(config, c, drop), target) for c in (a, b))
    np.testing.assert_array_equal(x[0], y[0])
    assert np.abs(x[1] - y[1]).max() > 0.1


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_products_are_summed_in_float32(dtype):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((3, 4, 64), (3, 5, 64)))
    found = jax.jit(lambda a, b: attention.einsum_float32("hqe,hte->hqt", a, b))(a, b)
    assert found.dtype == jnp.float32
    expected = np.einsum("hqe,hte->hqt", np.asarray(a, np.float64), np.asarray(b, np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-5)  # 64 products of size 1, rounded at 1e-7
