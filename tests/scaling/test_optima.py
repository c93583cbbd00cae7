"""The best size by each method, on laws, rows and curves whose best size is known."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.made_runs import LAWS, known_loss, make_run
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from hafm_jax.model.config import SIZES as NAMED_SIZES
from hafm_jax.model.config import StageConfig, num_parameters, train_flops
from hafm_jax.scaling.estimates import NotEnough, estimate
from hafm_jax.scaling.loss_law import Law
from hafm_jax.scaling.optima import (
    Curves,
    PowerLaws,
    TokenCost,
    envelope_power_laws,
    fit_token_cost,
    isoflop_power_laws,
    isoflop_rows,
)

# ------------------------------------------------------------------------------------------------------- the law

FLAT = TokenCost(np.array([6.0, 0.0, 0.0, 0.0]))  # C = 6 N D
exponents = st.floats(0.1, 1.0)


@given(alpha=exponents, beta=exponents, log_a=st.floats(2, 10), log_b=st.floats(2, 10), flops=st.floats(1e12, 1e22))
def test_the_best_size_where_cost_goes_as_size(alpha, beta, log_a, log_b, flops):
    """Hoffmann et al. 2022, equation 4."""
    n, d = FLAT.best(Law(1.0, log_a, alpha, log_b, beta), flops)
    g = (alpha * np.exp(log_a) / (beta * np.exp(log_b))) ** (1 / (alpha + beta))
    known = g * (flops / 6) ** (beta / (alpha + beta))
    if known > 1:  # the search begins at one parameter
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


def test_a_best_size_outside_the_search_is_its_nearer_end_and_a_flat_law_has_none():
    tiny, huge, flat = (
        FLAT.best(Law(1.0, log_a, alpha, 5.0, 0.4), 1e12) for log_a, alpha in ((-90, 0.3), (90, 0.02), (4, 0))
    )
    assert (tiny[0], tiny[1]) == (1, 1e12 / 6) and huge[0] == pytest.approx(np.exp(100))
    assert np.isnan(flat).all()


def test_draws_and_budgets_broadcast():
    law = Law(*np.broadcast_arrays(1.0, 4.0, np.array([[0.3], [0.4], [0.5]]), 5.0, 0.4))
    flops = np.geomspace(1e12, 1e15, 4)
    n, d = FLAT.best(law, flops)
    assert n.shape == d.shape == (3, 4)
    one = Law(*(values[1, 0] for values in vars(law).values()))
    assert n[1] == pytest.approx(FLAT.best(one, flops)[0])


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_the_cost_of_real_sizes(stage):
    """Of tiny sizes and of all in the table; then of the tiny ones alone, asked for the table's."""
    tiny = [(48, 1, 2), (64, 2, 2), (96, 2, 4), (144, 3, 6), (192, 4, 8)]
    shapes = tiny + [(size.d_model, size.num_layers, size.num_heads) for size in NAMED_SIZES.values()]
    configs = [StageConfig(stage, *shape, window_cells=64) for shape in shapes]
    one, two = ([StageConfig(stage, c.d_model, n, c.num_heads, 64) for c in configs] for n in (1, 2))
    a_layer = [num_parameters(b) - num_parameters(a) for a, b in zip(one, two, strict=True)]
    parameters = np.array([c.num_layers * n for c, n in zip(configs, a_layer, strict=True)], float)  # of the layers
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


# ----------------------------------------------------------------------------------------------------------- IsoFLOP


def row(label, flops, sizes, best, noise=0.0, start=0, curvature=0.05):
    """Runs at 6 N D whose losses are a parabola over log N, lowest at `best`."""
    random = np.random.default_rng(start)
    return [
        make_run(
            start + i, isoflop=label, flops=flops, parameters=int(n), tokens=round(flops / 6 / n),
            loss=2 + curvature * np.log(n / best) ** 2 + noise * random.normal(),
        )
        for i, n in enumerate(sizes)
    ]  # fmt: skip


def losses(runs):
    return np.array([run.loss for run in runs])


def best_of(flops):
    return 0.1 * flops**0.46


def rows(noise=0.0, seed=0):
    made = []
    for k, flops in enumerate(np.geomspace(1e12, 1e14, 4)):
        sizes = best_of(flops) * 2.0 ** np.arange(-2, 3)
        made += row(f"{flops:.3g}", flops, sizes, best_of(flops), noise, 1000 * seed + 10 * k)
    return made


def test_the_minimum_of_a_parabola():
    (found,) = isoflop_rows(runs := row("a", 1e13, [2e4, 5e4, 1e5, 4e5], 7e4), losses(runs))
    assert (found.parameters, found.loss) == pytest.approx((7e4, 2.0), rel=1e-6)
    assert found.tokens == pytest.approx(1e13 / 6 / 7e4, rel=1e-3)
    assert found.parabola(np.log(1e5)) == pytest.approx(2 + 0.05 * np.log(1e5 / 7e4) ** 2)


def test_power_laws_through_minima():
    runs = rows()
    laws, draws = isoflop_power_laws(runs, losses(runs), 20, seed=0)
    assert (laws.a, laws.b) == pytest.approx((0.46, 0.54), abs=1e-3)
    assert laws.at(1e15) == pytest.approx((best_of(1e15), 1e15 / 6 / best_of(1e15)), rel=0.01)
    assert draws.a == pytest.approx(np.full(20, 0.46), abs=1e-3)  # nothing scatters


def test_isoflop_intervals_hold_the_truth():
    held = []
    for seed in range(30):
        runs = rows(noise=0.004, seed=seed)
        _, draws = isoflop_power_laws(runs, losses(runs), 60, seed)
        low, high = np.nanpercentile(draws.a, [2.5, 97.5])
        held.append(low <= 0.46 <= high)
        assert high - low < 0.4
    assert np.mean(held) >= 0.85, np.mean(held)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (row("a", 1e13, [2e4, 5e4], 3e4), "a parabola needs 3 sizes, and it has 2"),
        (row("a", 1e13, [2e4, 5e4, 1e5], 3e4, curvature=-0.05), "bend down"),
        (row("a", 1e13, [2e4, 5e4, 1e5], 1e4), "its minimum is beyond the smallest size"),
        (row("a", 1e13, [2e4, 5e4, 1e5], 3e5), "its minimum is beyond the largest size"),
        (row("a", 1e13, [2e4, 5e4], 3e4) + row("a", 2e13, [1e5], 3e4, start=2), "its runs have 1e+13 to 2e+13 FLOPs"),
    ],
)
def test_a_row_without_a_minimum_gives_the_reason(runs, reason):
    (found,) = isoflop_rows(runs, losses(runs))
    assert reason in found.missing and found.parabola is None and np.isnan(found.parameters)
    with pytest.raises(NotEnough, match=r"at 2 budgets, and found 0 of 1 rows; a: "):
        isoflop_power_laws(runs, losses(runs), 10, seed=0)


def test_rows_of_one_budget_have_no_slope():
    runs = row("a", 1e13, [2e4, 5e4, 1e5], 4e4) + row("b", 1e13, [2e4, 5e4, 1e5], 5e4, start=3)
    with pytest.raises(NotEnough, match=r"at 2 budgets, and found 2 of 2 rows"):
        isoflop_power_laws(runs, losses(runs), 10, seed=0)


def test_rows_of_three_sizes_have_no_interval():
    runs = row("a", 1e13, [2e4, 5e4, 1e5], 4e4) + row("b", 1e14, [4e4, 1e5, 2e5], 8e4, start=3)
    laws, draws = isoflop_power_laws(runs, losses(runs), 10, seed=0)
    assert laws.a == pytest.approx(np.log10(2), abs=1e-3) and np.isnan(draws.a).all()
    assert estimate(laws.a, draws.a) == {"value": laws.a, "interval": None}


# ---------------------------------------------------------------------------------------------------------- envelope

SIZES = np.array([1e4, 4e4, 1.6e5, 6.4e5])
CROSSINGS = np.array([1e11, 1e12, 1e13])  # a factor of 4 in size for one of 10 in FLOPs: a = log 4 / log 10


def straight(z, flops):
    return 3.0 + 0.05 * np.log(CROSSINGS[:z]).sum() - 0.05 * (z + 1) * np.log(flops)


def lowest(flops):
    return np.min([straight(z, flops) for z in range(len(SIZES))], axis=0)


def curves(ends=(1e14, 1e14, 1e14, 1e14)):
    """Losses that are straight lines over log C, each size's steeper than the smaller's, crossing it as listed."""
    runs = []
    for z, n in enumerate(SIZES):
        line = [(c, straight(z, c)) for c in (1e10, ends[z])]
        points = [[c / (6 * n), loss] for c, loss in line]
        runs.append(
            make_run(z, parameters=int(n), tokens=round(points[-1][0]), flops=ends[z], loss=line[-1][1], curve=points)
        )
    return runs


def test_the_envelope_of_lines_that_cross():
    found, crossings = Curves(curves()).envelope(np.ones(4, bool))
    assert crossings.flops == pytest.approx(CROSSINGS, rel=0.1)  # 20 FLOP counts a decade
    assert crossings.parameters == pytest.approx(np.sqrt(SIZES[1:] * SIZES[:-1]))
    assert crossings.tokens * 6 * crossings.parameters == pytest.approx(crossings.flops, rel=1e-3)
    assert np.array_equal(np.unique(found.parameters), SIZES)
    assert found.loss[1:-1] == pytest.approx(lowest(found.flops[1:-1]))
    assert (np.searchsorted(CROSSINGS, found.flops) == np.searchsorted(SIZES, found.parameters)).mean() > 0.95
    laws, _ = envelope_power_laws(curves(), np.ones((1, 4), int))
    assert (laws.a, laws.b) == pytest.approx((np.log10(4), 1 - np.log10(4)), abs=0.02)


def test_a_size_that_was_not_trained_so_far_is_not_overtaken():
    """The third size ends before the fourth crosses it: the lead passes, but where is unknown."""
    _, crossings = Curves(curves(ends=(1e14, 1e14, 3e12, 1e14))).envelope(np.ones(4, bool))
    assert crossings.parameters[:2] == pytest.approx(np.sqrt(SIZES[1:3] * SIZES[:2]))
    between = crossings.flops[crossings.parameters > 2e5]
    assert not ((between > 2.5e12) & (between < 9e12)).any()


def test_draws_leave_runs_out():
    runs = curves()
    counts = np.array([[1, 1, 1, 1], [2, 1, 1, 0], [4, 0, 0, 0]])
    laws, draws = envelope_power_laws(runs, counts)
    assert draws.a[0] == laws.a and np.isfinite(draws.a[1]) and np.isnan(draws.a[2])


def test_too_few_crossings_are_reported():
    with pytest.raises(NotEnough, match=r"2 pairs of sizes .* found 1 among 2 sizes"):
        envelope_power_laws(curves()[:2], np.ones((1, 2), int))
    with pytest.raises(NotEnough, match="missing for run 9 "):
        envelope_power_laws([*curves(), make_run(9, curve=[])], np.ones((1, 5), int))


# -------------------------------------------------------------------------------------------------------- power laws


def test_power_laws_are_lines_in_logs():
    flops = np.geomspace(1e12, 1e15, 6)
    laws = PowerLaws.through(flops, np.stack([3 * flops**0.4, 5 * flops**0.6]), np.stack([flops**0.6, flops**0.4]))
    assert laws.a == pytest.approx([0.4, 0.6]) and laws.b == pytest.approx([0.6, 0.4])
    assert laws.at(1e18)[0] == pytest.approx([3 * 1e18**0.4, 5 * 1e18**0.6])
    noisy = flops**0.5 * np.exp(np.random.default_rng(0).normal(size=6))
    assert PowerLaws.through(flops, noisy, noisy).a == pytest.approx(np.polyfit(np.log(flops), np.log(noisy), 1)[0])
    assert np.isnan(PowerLaws.through(flops[:1], flops[:1], flops[:1]).a)
