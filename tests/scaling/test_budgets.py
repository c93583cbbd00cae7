"""What tokens cost and what budgets buy, against closed forms and a search of SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.made_runs import LAWS, known_loss
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from hafm_jax.model.config import SIZES, StageConfig, num_parameters, train_flops
from hafm_jax.scaling.budgets import TokenCost, fit_token_cost
from hafm_jax.scaling.loss_law import Law

FLAT = TokenCost(np.array([6.0, 0.0, 0.0, 0.0]))  # C = 6 N D
exponents = st.floats(0.1, 1.0)


@given(alpha=exponents, beta=exponents, log_a=st.floats(2, 10), log_b=st.floats(2, 10), flops=st.floats(1e12, 1e22))
def test_the_best_size_where_cost_goes_as_size(alpha, beta, log_a, log_b, flops):
    """Hoffmann et al. 2022, equation 4."""
    n, d = FLAT.best(Law(1.0, log_a, alpha, log_b, beta), flops)
    g = (alpha * np.exp(log_a) / (beta * np.exp(log_b))) ** (1 / (alpha + beta))
    known = g * (flops / 6) ** (beta / (alpha + beta))
    if known > 1:  # half a parameter is nobody's best size
        assert n == pytest.approx(known, rel=1e-6)
        assert d == pytest.approx(flops / 6 / known, rel=1e-6)


@given(factors=st.tuples(*[st.floats(0, 1e3)] * 4), flops=st.floats(1e12, 1e20), stage=st.sampled_from(sorted(LAWS)))
def test_the_best_size_at_any_cost_is_what_a_search_finds(factors, flops, stage):
    cost = TokenCost(np.array(factors) * [0.01, 0.1, 1, 1] + [1, 0, 0, 0])
    e, a, alpha, b, beta = LAWS[stage]
    n, d = cost.best(Law(e, np.log(a), alpha, np.log(b), beta), flops)

    def loss(log_n):
        return known_loss(LAWS[stage], np.exp(log_n), flops / cost(np.exp(log_n)))

    found = minimize_scalar(loss, bounds=(0, 60), method="bounded", options={"xatol": 1e-10})
    assert cost(n) * d == pytest.approx(flops)
    assert known_loss(LAWS[stage], n, d) <= found.fun * (1 + 1e-12)
    assert np.log(n) == pytest.approx(found.x, abs=1e-3)


def test_draws_and_budgets_broadcast():
    law = Law(
        np.ones((3, 1)),
        np.full((3, 1), 4.0),
        np.array([[0.3], [0.4], [0.5]]),
        np.full((3, 1), 5.0),
        np.full((3, 1), 0.4),
    )
    flops = np.geomspace(1e12, 1e15, 4)
    n, d = FLAT.best(law, flops)
    assert n.shape == d.shape == (3, 4)
    one = Law(*(values[1, 0] for values in vars(law).values()))
    assert n[1] == pytest.approx(FLAT.best(one, flops)[0])


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_the_cost_of_real_sizes(stage):
    """Of tiny sizes and of all in the table; then of the tiny ones alone, asked for the table's."""
    tiny = [(48, 1, 2), (64, 2, 2), (96, 2, 4), (144, 3, 6), (192, 4, 8)]
    shapes = tiny + [(size.d_model, size.num_layers, size.num_heads) for size in SIZES.values()]
    configs = [StageConfig(stage, *shape, window_cells=64) for shape in shapes]
    bare = [StageConfig(stage, c.d_model, 0, c.num_heads, 64) for c in configs]  # all but the layers
    parameters = np.array([num_parameters(c) - num_parameters(b) for c, b in zip(configs, bare, strict=True)], float)
    flops = np.array([train_flops(c, 64) for c in configs], float)
    tokens = np.full(len(configs), 64.0 * configs[0].stage.target.tokens_per_cell)
    cost, error = fit_token_cost(parameters, tokens, flops)
    assert error == pytest.approx(np.abs(cost(parameters) * tokens / flops - 1).max()) and error < 0.12
    few, _ = fit_token_cost(parameters[:5], tokens[:5], flops[:5])
    assert few(parameters) * tokens == pytest.approx(flops, rel=0.25)  # 6 N D is off by 2 to 9 times
    slope = np.log(cost(parameters * 1.001) / cost(parameters)) / np.log(1.001)
    assert cost.elasticity(parameters) == pytest.approx(slope, rel=1e-3)


def test_the_cost_of_a_plain_transformer():
    n = np.geomspace(1e4, 1e7, 5)
    cost, error = fit_token_cost(n, np.full(5, 1e6), 6 * n * 1e6)
    assert cost.factors == pytest.approx([6, 0, 0, 0], abs=1e-6) and error < 1e-9
