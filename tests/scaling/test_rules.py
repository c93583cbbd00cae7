"""The rule of rates and batches, and the best learning rate by width on losses that are lowest at chosen rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.made_runs import make_run
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.scaling.rules import batch_windows, learning_rate, learning_rate_optima

WIDTHS = (64, 128, 256)


@given(st.floats(1e4, 1e12), st.integers(16, 4096))
def test_batches_follow_the_step_law(tokens, tokens_per_window):
    windows = batch_windows(tokens, tokens_per_window)
    assert windows & (windows - 1) == 0
    law = 0.58 * tokens**0.571 / tokens_per_window
    assert windows == 1 or 0.7 < windows / law < 1.42


def test_rates_go_as_the_inverse_of_the_width():
    assert all(math.isclose(learning_rate(a), 2 * learning_rate(2 * a)) for a in (32, 64, 512))


def sweep(best, rule=lambda width: 0.2 / width, noise=0.001, seed=0, factors=(0.25, 0.5, 1.0, 2.0, 4.0), **changes):
    """Runs whose losses are a parabola over the log of the rate, lowest at `best(width)`."""
    random = np.random.default_rng(seed)
    runs = []
    for width in WIDTHS:
        for factor in factors:
            rate = rule(width) * factor
            loss = 3 + 0.03 * np.log(rate / best(width)) ** 2 + noise * random.normal()
            runs.append(
                make_run(
                    len(runs), size=f"w{width}", d_model=width, learning_rate=rate, learning_rate_factor=factor,
                    loss=loss, **changes,
                )
            )  # fmt: skip
    return runs


def test_best_rates_and_their_slope():
    found = learning_rate_optima(sweep(lambda width: 0.26 / width, noise=1e-6))["semantic"]
    assert [w["best"]["value"] * w["d_model"] for w in found["widths"]] == pytest.approx([0.26] * 3, rel=1e-3)
    assert [w["over_rule"]["value"] for w in found["widths"]] == pytest.approx([1.3] * 3, rel=1e-3)
    assert [w["price"] for w in found["widths"]] == pytest.approx([0.03 * np.log(1.3) ** 2] * 3, rel=1e-2)
    assert [w["lowest"] for w in found["widths"]] == pytest.approx([3.0] * 3, rel=1e-5)
    assert found["slope"]["value"] == pytest.approx(-1, abs=1e-3) and found["rule_slope"] == pytest.approx(-1)


def test_a_rule_of_another_slope_does_not_hold():
    true, flat = lambda width: 0.2 / width, lambda width: 0.2 / 128
    assert learning_rate_optima(sweep(true))["semantic"]["holds"] is True
    found = learning_rate_optima(sweep(true, rule=flat))["semantic"]
    assert found["holds"] is False and found["rule_slope"] == pytest.approx(0, abs=1e-9)
    assert found["slope"]["value"] == pytest.approx(-1, abs=0.1)


def test_intervals_hold_the_true_slope():
    held = []
    for seed in range(100):
        found = learning_rate_optima(sweep(lambda width: 0.25 / width, noise=0.002, seed=seed), seed)["semantic"]
        low, high = found["slope"]["interval"]
        held.append(low <= -1 <= high)
        assert high - low < 0.5
    assert np.mean(held) >= 0.88, np.mean(held)


def test_without_a_best_rate_the_reason_is_given():
    beyond = learning_rate_optima(sweep(lambda width: 20 / width))["semantic"]
    assert {w["missing"] for w in beyond["widths"]} == {"the lowest loss is at the largest rate tried"}
    assert beyond["missing"] == "a slope needs 2 widths with a best rate, and there are 0"
    three = learning_rate_optima(sweep(lambda width: 0.2 / width, factors=(0.5, 1.0, 2.0)))["semantic"]
    assert three["slope"]["interval"] is None and three["holds"] is None  # parabolas through three points never miss
    assert learning_rate_optima(sweep(lambda width: 0.2 / width, factors=(1.0,))) == {}
    assert learning_rate_optima(sweep(lambda width: 0.2 / width, held_out=True)) == {}


def test_a_diverged_rate_is_named():
    runs = sweep(lambda width: 0.2 / width)
    broken = {"status": "diverged", "loss": None, "loss_per_codebook": [], "curve": []}
    runs[4] = make_run(4, size="w64", d_model=64, learning_rate=0.2 / 64 * 4, learning_rate_factor=4.0, **broken)
    found = learning_rate_optima(runs)["semantic"]
    assert found["widths"][0]["diverged"] == ["run 4 (semantic, w64, 1e+06 tokens)"]
    assert found["widths"][0]["best"]["value"] == pytest.approx(0.2 / 64, rel=0.2)
    assert found["widths"][0]["runs"] == [0, 1, 2, 3, 4]
