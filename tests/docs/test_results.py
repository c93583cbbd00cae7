"""The committed results: the evaluation's anchors are in the expected order."""

from __future__ import annotations

import json

import pytest
from helpers import ROOT

COLUMNS = ("beat_f", "lag_strength", "chroma_chords", "key_score")
CHECKS = ("click", "silence")  # systems that fool a measure


def results(name: str) -> dict:
    return json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())


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
def test_measures_of_the_vocal_fall_with_every_step(document, pair, figures):
    for figure in figures:
        assert difference(document, pair, figure)["high"] < 0, figure


def test_each_check_of_the_metrics_fools_the_one_it_should(document):
    measures = {name: found["measures"] for name, found in document["systems"].items()}
    assert measures["click"]["beat_f"]["value"] > measures["truth"]["beat_f"]["value"]
    assert measures["click"]["chroma_chords"]["high"] < measures["truth"]["chroma_chords"]["low"]
    assert measures["silence"]["coverage"]["value"] == 0
    found = {name: x["fad_stem"] for name, x in document["embeddings"]["mel"]["systems"].items()}
    bands = set(found) - set(CHECKS)
    assert min(found[check]["low"] for check in CHECKS) > max(found[name]["high"] for name in bands)


def test_it_was_made_in_a_quarter_of_an_hour_and_nothing_failed(document):
    assert document["seconds"] < 15 * 60 and not document["went_on"]
    assert document["clips"] >= 100 and document["failures"] == {}
