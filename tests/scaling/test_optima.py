"""The methods that read the best size off the runs, on rows and curves whose best size is known."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.made_runs import make_run

from hafm_jax.scaling.draws import estimate
from hafm_jax.scaling.envelope import Curves, envelope_power_laws
from hafm_jax.scaling.isoflop import isoflop_power_laws, isoflop_rows
from hafm_jax.scaling.loss_law import NotEnough
from hafm_jax.scaling.power_laws import PowerLaws

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
    return [
        run
        for k, flops in enumerate(np.geomspace(1e12, 1e14, 4))
        for run in row(
            f"{flops:.3g}", flops, best_of(flops) * 2.0 ** np.arange(-2, 3), best_of(flops), noise, 1000 * seed + 10 * k
        )
    ]


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
    ("runs", "said"),
    [
        (row("a", 1e13, [2e4, 5e4], 3e4), "a parabola needs 3 sizes, and it has 2"),
        (row("a", 1e13, [2e4, 5e4, 1e5], 3e4, curvature=-0.05), "bend down"),
        (row("a", 1e13, [2e4, 5e4, 1e5], 1e4), "its minimum lies beyond the smallest size"),
        (row("a", 1e13, [2e4, 5e4, 1e5], 3e5), "its minimum lies beyond the largest size"),
        (row("a", 1e13, [2e4, 5e4], 3e4) + row("a", 2e13, [1e5], 3e4, start=2), "its runs have 1e+13 to 2e+13 FLOPs"),
    ],
)
def test_a_row_without_a_minimum_says_why(runs, said):
    (found,) = isoflop_rows(runs, losses(runs))
    assert said in found.missing and found.parabola is None and np.isnan(found.parameters)
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


def test_runs_without_a_row_are_in_none():
    with pytest.raises(NotEnough, match="found 0 of 0"):
        isoflop_power_laws([make_run(0)], np.array([2.0]), 10, seed=0)


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


def test_a_size_that_has_not_come_so_far_is_not_overtaken():
    """The third size ends before the fourth crosses it: the lead passes, but nobody knows when it would have."""
    _, crossings = Curves(curves(ends=(1e14, 1e14, 3e12, 1e14))).envelope(np.ones(4, bool))
    assert crossings.parameters[:2] == pytest.approx(np.sqrt(SIZES[1:3] * SIZES[:2]))
    between = crossings.flops[crossings.parameters > 2e5]
    assert not ((between > 2.5e12) & (between < 9e12)).any()


def test_draws_leave_runs_out():
    runs = curves()
    counts = np.array([[1, 1, 1, 1], [2, 1, 1, 0], [4, 0, 0, 0]])
    laws, draws = envelope_power_laws(runs, counts)
    assert draws.a[0] == laws.a and np.isfinite(draws.a[1]) and np.isnan(draws.a[2])


def test_too_few_crossings_say_so():
    with pytest.raises(NotEnough, match=r"2 pairs of sizes .* found 1 among 2 sizes"):
        envelope_power_laws(curves()[:2], np.ones((1, 2), int))
    with pytest.raises(NotEnough, match="missing of run 9 "):
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
