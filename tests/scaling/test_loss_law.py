"""The fitted law against laws that are known, and against another optimiser."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from helpers.made_runs import known_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, least_squares

from hafm_jax.common.bootstrap import draw_counts, percentile_interval
from hafm_jax.common.errors import InputError
from hafm_jax.scaling.estimates import NotEnough
from hafm_jax.scaling.loss_law import DELTA, Law, _Problem, fit_law
from hafm_jax.scaling.optima import TokenCost

PUBLISHED = (1.69, 406.4, 0.34, 410.7, 0.28)  # Hoffmann et al. 2022, equation 10


def grid(sizes=(7e7, 1.6e10, 8), tokens=(5e9, 5e11, 8)):
    return [x.ravel() for x in np.meshgrid(np.geomspace(*sizes), np.geomspace(*tokens))]


def noisy(law, n, d, noise, seed):
    return known_loss(law, n, d) * np.exp(noise * np.random.default_rng(seed).normal(size=len(n)))


def test_the_published_law_comes_out_of_its_losses():
    n, d = grid()
    law, _ = fit_law(n, d, known_loss(PUBLISHED, n, d))
    assert list(law.numbers().values()) == pytest.approx(PUBLISHED, rel=1e-4)
    law, _ = fit_law(n, d, noisy(PUBLISHED, n, d, 2e-4, 0))
    assert list(law.numbers().values()) == pytest.approx(PUBLISHED, rel=0.02)


@settings(max_examples=30)
@given(
    e=st.floats(0.5, 6.0), alpha=st.floats(0.15, 0.9), beta=st.floats(0.15, 0.9),
    share_n=st.floats(0.05, 1.0), share_d=st.floats(0.05, 1.0), unit=st.sampled_from([1.0, 1e-6, 1e3]),
)  # fmt: skip
def test_any_law_comes_out_of_its_losses_in_any_unit(e, alpha, beta, share_n, share_d, unit):
    """Shares: how large the terms of size and data are at the middle of the grid, over E."""
    n, d = grid((3e4, 3e6, 6), (1e5 * unit, 1e7 * unit, 6))
    true = (e, share_n * e * 3e5**alpha, alpha, share_d * e * (1e6 * unit) ** beta, beta)
    law, _ = fit_law(n, d, known_loss(true, n, d))
    assert list(law.numbers().values()) == pytest.approx(true, rel=1e-3)


def test_another_optimiser_finds_the_same_law():
    """SciPy's robust least squares: trust region, differences for gradients, the law in its plain form."""
    n, d = grid((3e4, 3e6, 5), (1e6, 3e7, 5))
    loss = noisy((1.69, 80.0, 0.34, 80.0, 0.28), n, d, 0.005, 1)
    law, _ = fit_law(n, d, loss)
    scale_n, scale_d = 3e5, 5e6

    def residual(p):
        return np.log(p[0] + p[1] * (n / scale_n) ** -p[2] + p[3] * (d / scale_d) ** -p[4]) - np.log(loss)

    found = least_squares(residual, [1.0, 1.0, 0.5, 1.0, 0.5], loss="huber", f_scale=DELTA, xtol=1e-14, ftol=1e-14,
                          gtol=1e-14, x_scale="jac", max_nfev=20_000)  # fmt: skip
    ours = [law.e, np.exp(law.log_a) * scale_n**-law.alpha, law.alpha, np.exp(law.log_b) * scale_d**-law.beta, law.beta]
    assert ours == pytest.approx(found.x, rel=2e-3)
    assert 0.5 * np.abs(residual(ours)).sum() <= 0.5 * np.abs(residual(found.x)).sum() * (1 + 1e-4)


def test_the_gradient_is_that_of_the_objective():
    n, d = grid((3e4, 3e6, 4), (1e6, 3e7, 4))
    problem = _Problem(n, d, noisy(PUBLISHED, n, d, 0.01, 0))
    weights = np.random.default_rng(1).integers(0, 4, len(n)).astype(float)
    at = np.array([0.7, 0.2, 0.4, -0.3, 0.6])
    _, gradient = problem.objective(at, weights)
    assert gradient == pytest.approx(approx_fprime(at, lambda x: problem.objective(x, weights)[0], 1e-8), rel=1e-4)


def measures(law: Law, flops: float) -> dict[str, np.ndarray]:
    """The quantities with intervals; the last two at a budget of `flops` under C = 6 N D."""
    n, d = TokenCost(np.array([6.0, 0.0, 0.0, 0.0])).best(law, flops)
    return {"alpha": law.alpha, "beta": law.beta, "E": law.e, "best N": n, "loss": law.loss(n, d)}


# Shares of intervals that hold the truth, and median widths over the value, both over 100 sweeps: of `measures`.
FEW_RUNS = (0.99, 0.061), (0.95, 0.162), (0.96, 0.113), (0.96, 0.265), (0.96, 0.0169)
MANY_RUNS = (1.0, 0.271), (0.99, 0.738), (1.0, 0.600), (0.99, 1.25), (0.98, 0.0809)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "lengths", "scatter", "known"), [(5, 4, 0.002, FEW_RUNS), (6, 6, 0.01, MANY_RUNS)])
def test_intervals_hold_the_truth(sizes, lengths, scatter, known):
    """95 % intervals of 100 sweeps hold the true values in 95 to 100, and are not so wide as to hold everything.

    Sweeps have sizes x lengths runs, spread evenly in logs; log losses scatter normally. Tolerance: the ends of an
    interval change with the machine's arithmetic, since L-BFGS stops elsewhere in a flat valley; so two sweeps of 100
    may fall on the other side, and widths may differ by 5 %.
    """
    true = Law(1.69, np.log(80.0), 0.34, np.log(80.0), 0.28)  # published exponents, terms as small sweeps have them
    n, d = grid((3e4, 3e6, sizes), (1e6, 3e7, lengths))
    flops = 10 * 6 * (n * d).max()  # ten times the largest budget
    truths = measures(true, flops)
    held, widths = {name: [] for name in truths}, {name: [] for name in truths}
    for seed in range(100):
        loss = true.loss(n, d) * np.exp(scatter * np.random.default_rng([seed, 1]).normal(size=len(n)))
        law, draws = fit_law(n, d, loss, draw_counts(len(n), seed))
        of_law, of_draws = measures(law, flops), measures(draws, flops)
        for name, truth in truths.items():
            _, low, high = percentile_interval(of_law[name], of_draws[name])
            held[name].append(low <= truth <= high)
            widths[name].append((high - low) / truth)
    for name, (share, width) in zip(truths, known, strict=True):
        assert np.mean(held[name]) == pytest.approx(share, abs=0.021), name
        assert np.median(widths[name]) == pytest.approx(width, rel=0.05), name


def test_an_odd_run_counts_little():
    n, d = grid((3e4, 3e6, 6), (1e6, 3e7, 6))
    true = (1.69, 80.0, 0.34, 80.0, 0.28)
    loss = noisy(true, n, d, 0.0005, 0)
    loss[7] *= 1.3
    law, _ = fit_law(n, d, loss)
    assert (law.alpha, law.beta) == pytest.approx((0.34, 0.28), rel=0.02)


def test_too_few_runs_are_reported():
    for (n, d), message in (
        (grid((3e4, 3e6, 2), (1e6, 3e7, 5)), "3 sizes, and the runs have 2"),
        (grid((3e4, 3e6, 5), (1e6, 3e7, 2)), "3 lengths in tokens, and the runs have 2"),
        ([np.array([1e4, 1e5, 1e6])] * 2, "6 runs, and there are 3"),
    ):
        with pytest.raises(NotEnough, match=message):
            fit_law(n, d, known_loss(PUBLISHED, n, d))


def test_only_the_fit_needs_threadpoolctl(monkeypatch):
    """A machine that has the extra `train` alone can make runs."""
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    n, d = grid()
    with pytest.raises(InputError, match=r"threadpoolctl.*hafm_jax\[sweep\]"):
        fit_law(n, d, known_loss(PUBLISHED, n, d))
