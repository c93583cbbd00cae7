"""The committed results: the evaluation's anchors stand in the order that sense demands; README and docstrings say what
the results say."""

from __future__ import annotations

import json
import re
import statistics

import pytest
from helpers import ROOT

from hafm_jax.metrics import coherence
from hafm_jax.metrics.analysis import Analysis

ROWS = {  # of README's table
    "the true band": "truth",
    "through the codec, 8 codebooks": "codec8",
    "through the codec, 4 codebooks": "codec4",
    "**the demo model**": "model",
    "... with guidance 5": "guidance_5",
    "... without guidance": "no_guidance",
    "... without no-history guidance": "no_history_off",
    "... without its fine stage": "no_fine",
    "... made for another clip's voice": "wrong_vocal",
    "retrieval by the true tempo, beats and key": "retrieval_oracle",
    "retrieval by what the voice tells": "retrieval",
    "any training band": "random",
    "clicks on the beat": "click",
    "silence": "silence",
}
COLUMNS = ("beat_f", "lag_strength", "chroma_chords", "key_score")
MEASURES = (  # rows of the table in coherence.py
    "beat_f",
    "tempo_error_percent",
    "onset_f",
    "lag_ms, spread",
    "lag_strength",
    "chroma_melody",
    "chroma_chords",
    "key_score",
    "coverage",
)


def results(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def document() -> dict:
    return results("evaluation")


def difference(document: dict, pair: str, figure: str) -> dict[str, float]:
    of_distances = document["embeddings"]["mel"]["order"]
    return of_distances[pair][figure] if figure.startswith("fad") else document["order"][pair][figure]


@pytest.mark.parametrize("figure", ["fad_stem", "fad_mix"])
def test_distances_grow_from_the_codec_to_the_model(document, figure):
    """From the truth to the codec they need not: its copies are as near to the reference as other true bands are."""
    assert difference(document, "model - codec4", figure)["low"] > 0
    assert all(difference(document, pair, figure)["high"] > 0 for pair in ("codec8 - truth", "codec4 - codec8"))


@pytest.mark.parametrize(
    "pair, figures",
    [
        ("codec8 - truth", ["onset_f", "lag_strength"]),
        ("codec4 - codec8", ["onset_f", "lag_strength"]),
        ("model - codec4", ["onset_f", "lag_strength", "chroma_chords"]),
        ("random - codec4", [*COLUMNS, "onset_f"]),
        ("wrong_vocal - model", ["beat_f", "onset_f", "lag_strength", "chroma_chords"]),
        ("random - model", [*COLUMNS, "onset_f"]),
    ],
)
def test_what_goes_with_the_vocal_falls_with_every_step(document, pair, figures):
    for figure in figures:
        assert difference(document, pair, figure)["high"] < 0, figure


def test_each_check_of_the_metrics_fools_the_one_it_should(document):
    measures = {name: found["measures"] for name, found in document["systems"].items()}
    assert measures["click"]["beat_f"]["value"] > measures["truth"]["beat_f"]["value"]
    assert measures["click"]["chroma_chords"]["high"] < measures["truth"]["chroma_chords"]["low"]
    assert measures["silence"]["coverage"]["value"] == 0
    found = {name: x["fad_stem"] for name, x in document["embeddings"]["mel"]["systems"].items()}
    bands = set(ROWS.values()) - {"click", "silence"}
    assert min(found[check]["low"] for check in ("click", "silence")) > max(found[name]["high"] for name in bands)


def test_it_was_made_in_a_quarter_of_an_hour_and_nothing_failed(document):
    assert document["seconds"] < 15 * 60 and not document["went_on"]
    assert document["clips"] >= 100 and document["failures"] == {}


def readme_row(label: str) -> list[str]:
    """The cells of the one row of README's tables that begins so, without the label."""
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def rounded(value: float, cell: str):
    """What equals the number in `cell` if that is `value`, rounded to as many digits."""
    return pytest.approx(value, abs=0.5001 * 10 ** -len(cell.partition(".")[2]))


def test_readme_has_its_figures(document):
    distances = document["embeddings"]["mel"]["systems"]
    for label, system in ROWS.items():
        expected = [document["systems"][system]["measures"][name]["value"] for name in COLUMNS]
        expected += [distances[system][name]["value"] for name in ("fad_stem", "fad_mix")]
        for cell, value in zip(readme_row(label), expected, strict=True):
            assert (cell == "") == (value is None), label
            assert value is None or float(cell) == rounded(value, cell), label


def told(cell: str) -> list[str]:
    """VALUE (LOW to HIGH) -> its three numbers."""
    return list(re.fullmatch(r"(.+) \((.+) to (.+)\)", cell).groups())


@pytest.mark.parametrize(
    "label, without",
    [
        ("guidance", "no_guidance"),
        ("no-history guidance", "no_history_off"),
        ("the fine stage", "no_fine"),
        ("the clip's own voice, not another's", "wrong_vocal"),
    ],
)
def test_readme_has_what_each_part_brings(document, label, without):
    names = ("beat_f", "lag_strength", "chroma_chords", "fad_stem", "fad_mix")
    for cell, name in zip(readme_row(label), names, strict=True):
        found = difference(document, f"{without} - model", name)
        for number, key in zip(told(cell), ("value", "high", "low"), strict=True):
            assert float(number) == rounded(-found[key], number), name


@pytest.mark.parametrize(
    "label, variant",
    [("`clock`", "clock"), ("`index`", "index"), ("`clock`, the coarse stage straight from the vocal", "two_stages")],
)
def test_readme_has_the_ablations(label, variant):
    found = results("ablations")["variants"][variant]
    names = ("beat_f", "lag_strength", "lag_ms", "chroma_chords", "key_score")
    cells = readme_row(label)
    for cell, name in zip(cells[: len(names)], names, strict=True):
        for number, key in zip(told(cell), ("value", "low", "high"), strict=True):
            assert float(number) == rounded(found["measures"][name][key], number), name
    distances, *losses = cells[len(names) :]
    for number, value in zip(distances.split(", "), found["distances"]["fad_stem"], strict=True):
        assert float(number) == rounded(value, number)
    for cell, stage in zip(losses, ("semantic", "coarse"), strict=True):
        of_seeds = [of_seed[stage] for of_seed in found["validation_losses"] if stage in of_seed]
        assert (cell == "") == (not of_seeds)
        assert not of_seeds or float(cell) == rounded(statistics.fmean(of_seeds), cell)


@pytest.mark.parametrize("measure", MEASURES)
def test_docstring_has_what_coherence_says_of_bands_whose_place_is_known(measure):
    found = results("coherence")["measures"]
    name, _, figure = measure.partition(", ")
    row = re.search(rf"^    {measure} .*", coherence.__doc__, re.M).group()
    bands = ("truth", "another song's band", "click", "tonic chord, held", "noise", "vocal")
    for cell, band in zip(row.split()[-len(bands) :], bands, strict=True):
        assert float(cell) == rounded(found[band][name]["sd" if figure == "spread" else "mean"], cell)


@pytest.mark.parametrize(
    "heard, sentence, names",
    [
        ("beats_s", r"(0\.\d+) in true bands, (0\.\d+) in vocals", ["beat_f"]),
        (
            "tempo_bpm",
            r"(\d+) % of true bands and (\d+) % of vocals, in (\d+) % and (\d+) % if octaves",
            ["tempo_within_4_percent", "tempo_within_4_percent_octaves_forgiven"],
        ),
        ("key", r"(\d+) % of true bands and (\d+) % of vocals", ["key_right"]),
    ],
)
def test_docstrings_have_how_often_what_is_heard_is_right(heard, sentence, names):
    found = results("coherence")
    numbers = re.search(sentence, vars(Analysis)[heard].__doc__).groups()
    values = [found[part][name]["mean"] for name in names for part in ("heard_in_the_true_band", "heard_in_the_vocal")]
    for number, value in zip(numbers, values, strict=True):
        assert float(number) == rounded(value if "." in number else 100 * value, number)


def drawn(found: dict) -> list[float]:
    """What the README tells of a system of benchmarks/validation_songs.py."""
    values = [found["measures"][name]["value"] for name in ("chroma_chords", "beat_f", "lag_strength")]
    return [*values, statistics.fmean(found["fad_stem"]), found["between_songs"], found["within_songs"]]


@pytest.mark.parametrize("label", ["0, 0", "0.25, 0", "0.5, 0", "1, 0", "0, 0.5", "0.5, 0.5: the demo's", "0.5, 1"])
def test_readme_has_what_no_history_guidance_does(label):
    found = results("no_history_scale")["systems"]
    *cells, spread = readme_row(label)
    for cell, value in zip([*cells, *spread.split(", ")], drawn(found[label.partition(":")[0]]), strict=True):
        assert float(cell) == rounded(value, cell)


@pytest.mark.parametrize(
    "label, system",
    [
        ("the band itself", "the true band"),
        ("the codec's 8 codebooks", "through the codec"),
        ("its 4 coarse ones", "through the codec, 4 codebooks"),
        ("the coarse ones, and the fine stage", "true coarse tokens, fine stage"),
        ("the coarse ones, and any fine tokens", "true coarse tokens, any fine ones"),
        ("semantic tokens, and the coarse stage", "true semantic tokens, coarse stage"),
        ("semantic tokens, and coarse and fine stage", "true semantic tokens, coarse and fine stage"),
        ("nothing: semantic and coarse stage", "semantic and coarse stage"),
        ("nothing: all stages", "all stages"),
    ],
)
def test_readme_has_what_stages_make_of_true_tokens(label, system):
    found = results("true_tokens")["systems"][system]
    *cells, spread = readme_row(label)
    for cell, value in zip([*cells, *spread.split(", ")], drawn(found), strict=True):
        assert float(cell) == rounded(value, cell)
