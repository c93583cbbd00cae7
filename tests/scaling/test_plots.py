"""The report of a sweep: files that other programs read, and a page that holds the numbers of the fit."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from helpers.made_runs import make_sweep

from hafm_jax.common.errors import InputError
from hafm_jax.scaling import plots
from hafm_jax.scaling.estimates import beyond_text, estimate_text, flops_text, headlines, si
from hafm_jax.scaling.fit import fit_sweep
from hafm_jax.scaling.plots import DRAWN, write_report


@pytest.fixture(scope="module")
def runs():
    return make_sweep(noise=0.001, stages=("semantic",))


@pytest.fixture(scope="module")
def fit(runs):
    return fit_sweep(runs)


def rows_of(page: str) -> list[list[str]]:
    """The rows of a page's tables, as text."""
    return [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", row, re.S)]
        for row in re.findall(r"<tr\b[^>]*>(.*?)</tr>", page, re.S)
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory, runs, fit):
    workdir = tmp_path_factory.mktemp("sweep")
    write_report(workdir, runs, fit)
    return workdir


def test_figures_are_whole_files(report):
    assert sorted(path.name for path in report.iterdir()) == ["index.html", "plots"]
    assert sorted(p.name for p in (report / "plots").iterdir()) == sorted(
        f"{name}.{kind}" for name in DRAWN for kind in ("png", "svg")
    )
    for name in DRAWN:
        pixels = matplotlib.image.imread(report / "plots" / f"{name}.png")
        assert min(pixels.shape[:2]) > 300 and len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 10
        assert ElementTree.parse(report / "plots" / f"{name}.svg").getroot().tag.endswith("svg")


def test_the_page_carries_the_figures_and_needs_nothing_else(report):
    page = (report / "index.html").read_text()
    for name in DRAWN:
        assert (report / "plots" / f"{name}.svg").read_text() in page
    assert not re.search("<(img|script|link|audio|iframe)", page)


def test_the_page_holds_the_numbers_of_the_fit(report, runs, fit):
    page = (report / "index.html").read_text()
    rows = rows_of(page)
    found = fit["stages"]["semantic"]["losses"]["all"]
    numbers = found["law"]["numbers"]
    assert ["semantic", *(estimate_text(numbers[n]) for n in ("E", "A", "alpha", "B", "beta"))] in [r[:6] for r in rows]
    assert ["semantic", "law", *(estimate_text(found["methods"]["law"][k]) for k in "ab")] in rows
    far = found["methods"]["law"]["best"][2]
    (row,) = (r for r in rows if r[1:3] == [flops_text(far["flops"]), "law"])
    assert row[3] == estimate_text(far["parameters"], si) and row[6].startswith("C 100 x, ")
    (held_out,) = (run for run in runs if run.held_out)
    (row,) = (r for r in rows if r[0] == held_out.name)
    assert row[2] == f"{held_out.loss:.4g}" and row[3].endswith("inside")
    for run in runs:
        if run.status != "finished":
            assert f"<p>{run.status}: {html.escape(run.name)}.</p>" in page
    assert sum(row[1:2] in (["48"], ["96"], ["192"]) for row in rows) == 3  # the learning rates of three widths


def test_equal_runs_give_equal_files(report, tmp_path, runs, fit):
    write_report(tmp_path, runs, fit)
    for path in [p for p in report.rglob("*") if p.is_file()]:
        assert (tmp_path / path.relative_to(report)).read_bytes() == path.read_bytes(), path.name


def test_what_a_figure_shows(runs, fit):
    """The lines' own data: every row has its points, and the law's curve goes through its predictions."""
    (axes,) = plots.isoflop(runs, fit).axes
    shown = [line.get_xydata() for line in axes.lines]
    for row in fit["stages"]["semantic"]["losses"]["all"]["rows"]:
        points = {(run.parameters, run.loss) for run in runs if run.isoflop == row["label"]}
        assert any(set(map(tuple, data)) == points for data in shown)
        assert any(np.allclose(data, [[row["parameters"], row["loss"]]]) for data in shown)
    (axes,) = plots.frontier(runs, fit).axes
    (beyond,) = (line.get_xydata() for line in axes.lines if line.get_label() == "law beyond the runs")
    best = fit["stages"]["semantic"]["losses"]["all"]["methods"]["law"]["best"]
    assert beyond[-1] == pytest.approx([best[-1]["flops"], best[-1]["loss"]["value"]])
    (held_out,) = (line.get_xydata() for line in axes.lines if line.get_label() == "held out, measured")
    assert held_out.tolist() == [[run.flops, run.loss] for run in runs if run.held_out]


def test_a_sweep_too_small_for_a_law_has_a_report(tmp_path, runs):
    """Two sizes, no rows, no curves, no rates, an unmeasured prediction: no law, and figures of what is there."""
    few = [
        replace(run, isoflop=None, curve=[])
        for run in runs
        if run.size in ("64x2x2", "96x2x4") and run.learning_rate_factor == 1 and run.status == "finished"
    ]
    write_report(tmp_path, few, fit_sweep(few))
    page = (tmp_path / "index.html").read_text()
    assert "no law: it needs at least 3 sizes" in page and "Left out" not in page
    assert sorted({p.stem for p in (tmp_path / "plots").iterdir()}) == ["best_sizes", "curves", "frontier"]


def test_an_unmeasured_run_is_predicted_on_the_page(tmp_path, runs):
    waiting = [
        replace(run, status="unfinished", loss=None, loss_per_codebook=[], curve=[]) if run.held_out else run
        for run in runs
    ]
    write_report(tmp_path, waiting, fit_sweep(waiting))
    (row,) = (r for r in rows_of((tmp_path / "index.html").read_text()) if re.match(r"run \d+ .*240x5x10", r[0]))
    assert row[2:4] == ["unfinished", ""] and " to " in row[1]


def test_nowhere_to_write(tmp_path, runs, fit):
    with pytest.raises(InputError, match=r"cannot make the folder .*--workdir"):
        (tmp_path / "file").touch()
        write_report(tmp_path / "file", runs, fit)


def test_numbers_for_people():
    assert [si(x) for x in (999, 1_770_000, 4.2e9, 1.3e4)] == ["999", "1.77 M", "4.2 G", "13 k"]
    assert flops_text(3.87e13) == "3.87e13 FLOPs"
    assert estimate_text({"value": 0.4513, "interval": [0.4, 0.5]}) == "0.451 (0.4 to 0.5)"
    assert estimate_text({"value": 0.4513, "interval": None}) == "0.451 (no interval)"
    assert beyond_text({}) == ""
    assert beyond_text({"tokens": 3.2, "flops": 100.0}) == "C 100 x, D 3.2 x the largest"
    assert beyond_text({"parameters": 0.5, "flops": 10.0}) == "C 10 x the largest; N 0.5 x the smallest"


def test_the_headlines_of_a_fit(runs, fit):
    law, *best = headlines(fit)
    alpha = fit["stages"]["semantic"]["losses"]["all"]["law"]["numbers"]["alpha"]
    assert law.startswith("semantic, 35 runs: ") and f"alpha {estimate_text(alpha)}" in law
    assert "(extrapolated: C 100 x, D " in best[2] and "C " not in best[0].split("extrapolated")[-1][:6]
    assert best[3].startswith("  held out: run 35 ")
    (diverged,) = (run for run in runs if run.status == "diverged")
    assert f"left out, diverged: {diverged.name}" in best
