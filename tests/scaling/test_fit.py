"""The fit of a whole sweep: which runs it leaves out, its predictions, and how far beyond the runs these are."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from helpers.made_runs import LAWS, SIZES, known_loss, make_run, make_sweep

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import unsealed
from hafm_jax.scaling.estimates import headlines
from hafm_jax.scaling.fit import fit_sweep, write_fit
from hafm_jax.scaling.plots import write_report


@pytest.fixture(scope="module")
def runs():
    return make_sweep(noise=0.002)


@pytest.fixture(scope="module")
def fit(runs):
    return fit_sweep(runs)


def test_the_laws_hold_the_known_ones(fit):
    for stage, law in LAWS.items():
        numbers = fit["stages"][stage]["losses"]["all"]["law"]["numbers"]
        for name, true in zip(("E", "A", "alpha", "B", "beta"), law, strict=True):
            low, high = numbers[name]["interval"]
            margin = 0.3 * (high - low)  # ten intervals of 95 %: one may just miss
            assert low - margin <= true <= high + margin, (stage, name)
        assert 0.001 < fit["stages"][stage]["losses"]["all"]["law"]["scatter"] < 0.003


def test_every_codebook_has_its_law(fit):
    losses = fit["stages"]["coarse"]["losses"]
    assert list(losses) == ["all", "codebook 1", "codebook 2", "codebook 3", "codebook 4"]
    assert list(fit["stages"]["semantic"]["losses"]) == ["all"]
    mean = losses["all"]["law"]["numbers"]
    for k, share in enumerate((0.9, 0.9667, 1.0333, 1.1), 1):  # how make_sweep shares losses out
        numbers = losses[f"codebook {k}"]["law"]["numbers"]
        assert numbers["E"]["value"] == pytest.approx(share * mean["E"]["value"], rel=1e-3)
        assert numbers["alpha"]["value"] == pytest.approx(mean["alpha"]["value"], rel=1e-2)
        assert "means over codebooks" in losses[f"codebook {k}"]["methods"]["envelope"]["missing"]
        assert "a" in losses[f"codebook {k}"]["methods"]["isoflop"]


def test_runs_that_are_left_out_are_named(runs, fit):
    reasons = {row["index"]: row["reason"] for row in fit["left_out"]}
    for run in runs:
        if run.held_out:
            assert reasons.pop(run.index) == "held out, finished"
        elif run.status != "finished":
            assert reasons.pop(run.index) == run.status
        elif run.learning_rate_factor != 1:
            assert reasons.pop(run.index) == f"learning rate is {run.learning_rate_factor:g} times the rule's"
    assert reasons == {}
    assert [row["run"] for row in fit["left_out"] if row["reason"] == "diverged"] == [
        run.name for run in runs if run.status == "diverged"
    ]
    assert fit["stages"]["semantic"]["runs"] == len(SIZES) * 7


def test_runs_that_are_left_out_change_nothing(runs, fit):
    kept = {row["index"] for row in fit["left_out"]}
    bare = fit_sweep([run for run in runs if run.index not in kept and run.stage == "semantic"])
    assert bare["stages"]["semantic"]["losses"]["all"]["law"] == fit["stages"]["semantic"]["losses"]["all"]["law"]


def test_a_held_out_run_is_predicted(runs, fit):
    for stage, law in reversed(LAWS.items()):  # the semantic stage last, whose fit is the quickest to repeat
        (run,) = (run for run in runs if run.held_out and run.stage == stage)
        (row,) = fit["stages"][stage]["losses"]["all"]["held_out"]
        assert (row["index"], row["measured"]) == (run.index, run.loss)
        low, high = row["predicted"]["interval"]
        assert low < known_loss(law, run.parameters, run.tokens) < high
        assert 0.002 * run.loss < high - low < 0.05 * run.loss
        largest = max(r.parameters for r in runs if not r.held_out)
        assert row["beyond"]["parameters"] == pytest.approx(run.parameters / largest)
    unmeasured = replace(run, status="unfinished", loss=None, loss_per_codebook=[], curve=[])
    again = fit_sweep([unmeasured if r.index == run.index else r for r in runs if r.stage == run.stage])
    (later,) = again["stages"][run.stage]["losses"]["all"]["held_out"]
    assert later["measured"] is None and later["status"] == "unfinished"
    assert later["predicted"] == row["predicted"]  # the measurement does not enter


def test_predictions_hold_their_distance_beyond_the_runs(fit):
    best = fit["stages"]["semantic"]["losses"]["all"]["methods"]["law"]["best"]
    assert [round(point["beyond"].get("flops", 1)) for point in best] == [1, 10, 100]
    largest = fit["stages"]["semantic"]["range"]["tokens"][1]
    assert best[2]["beyond"]["tokens"] == pytest.approx(best[2]["tokens"]["value"] / largest)
    low, high = best[2]["loss"]["interval"]
    assert low < best[2]["loss"]["value"] < high


def test_budgets_can_be_given(runs, fit):
    semantic = [run for run in runs if run.stage == "semantic"]
    best = fit_sweep(semantic, budgets_flops=[5e12])["stages"]["semantic"]["losses"]["all"]["methods"]["law"]["best"]
    assert best[0]["flops"] == 5e12 and best[0]["beyond"] == {}
    assert best[1:] == fit["stages"]["semantic"]["losses"]["all"]["methods"]["law"]["best"]
    n, d = best[0]["parameters"]["value"], best[0]["tokens"]["value"]
    assert best[0]["loss"]["value"] == pytest.approx(known_loss(LAWS["semantic"], n, d), rel=0.01)


def test_the_methods_agree():
    """Without noise the law has the exponents of its own optimum exactly; the others come near."""
    stage = fit_sweep(make_sweep(noise=0.0, stages=("semantic",)))["stages"]["semantic"]
    methods = stage["losses"]["all"]["methods"]
    assert set(methods) == {"law", "isoflop", "envelope"}
    law, isoflop = methods["law"], methods["isoflop"]
    assert law["a"]["value"] + law["b"]["value"] > 1.02  # cost grows slower than N, as small sizes have it
    assert isoflop["a"]["value"] == pytest.approx(law["a"]["value"], abs=0.15)  # rows are not parabolas
    assert isoflop["best"][0]["parameters"]["value"] == pytest.approx(law["best"][0]["parameters"]["value"], rel=0.5)


def test_a_method_that_lacks_runs_gives_the_reason_and_the_others_continue():
    few = [run for run in make_sweep(noise=0.001, stages=("semantic",)) if run.size in ("64x2x2", "96x2x4")]
    losses = fit_sweep(few)["stages"]["semantic"]["losses"]["all"]
    assert "3 sizes, and the runs have 2" in losses["law"]["missing"]
    assert losses["held_out"] == [] and "parabola needs 3 sizes" in losses["rows"][0]["missing"]
    assert all("missing" in method for method in losses["methods"].values())
    without_rows = [replace(run, isoflop=None) for run in make_sweep(noise=0.001, stages=("semantic",))]
    losses = fit_sweep(without_rows)["stages"]["semantic"]["losses"]["all"]
    assert "found 0 of 0" in losses["methods"]["isoflop"]["missing"] and "numbers" in losses["law"]


def test_a_loss_that_does_not_fall_has_no_best_size(tmp_path):
    """Here the loss rises with data, as when a model memorises its songs."""
    rising = [
        replace(run, loss=3 + 100 * run.parameters**-0.5 + 0.1 * math.log(run.tokens), loss_per_codebook=[2.0])
        for run in make_sweep(noise=0.0, stages=("semantic",))
        if run.status == "finished"
    ]
    fit = fit_sweep(rising)
    losses = fit["stages"]["semantic"]["losses"]["all"]
    assert losses["law"]["numbers"]["beta"]["value"] < 0.01
    assert losses["methods"]["law"] == {"missing": "the law's loss does not fall with data: no budget has a best size"}
    assert "does not fall with data" in headlines(fit)[1]
    write_report(tmp_path, rising, fit)
    assert "does not fall with data" in (tmp_path / "index.html").read_text()


def test_nothing_to_fit():
    """Whether to train or to plan again depends on why."""
    broken = [make_run(i, status="diverged", loss=None, loss_per_codebook=[]) for i in range(3)]
    with pytest.raises(InputError, match=r"none of 3 runs can be fitted: 3 diverged; .*: plan lower rates or more"):
        fit_sweep(broken)
    begun = make_run(3, status="unfinished", loss=None, loss_per_codebook=[])
    kept_out = make_run(4, held_out=True)
    with pytest.raises(
        InputError, match=r"5 runs .*: 3 diverged, 1 unfinished, 1 held out, finished; .*: run the sweep"
    ):
        fit_sweep([*broken, begun, kept_out])


def test_seeded_and_written(tmp_path, runs, fit):
    semantic = [run for run in runs if run.stage == "semantic"]
    one, other = fit_sweep(semantic), fit_sweep(semantic, seed=1)
    assert one["stages"]["semantic"] == fit["stages"]["semantic"]
    numbers = [f["stages"]["semantic"]["losses"]["all"]["law"]["numbers"]["alpha"] for f in (one, other)]
    assert numbers[0]["value"] == numbers[1]["value"] and numbers[0]["interval"] != numbers[1]["interval"]
    write_fit(tmp_path, fit)
    assert unsealed(json.loads((tmp_path / "fit.json").read_text())) == fit
    with pytest.raises(InputError):
        write_fit(tmp_path / "nowhere", fit)
