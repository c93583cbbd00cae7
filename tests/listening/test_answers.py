"""The results of listeners' answers, against numbers by hand and against other formulas than scipy's test."""

from __future__ import annotations

import json
import math
import runpy
import signal
import sys
from itertools import combinations

import pytest
from helpers.html_pages import assert_well_formed
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import beta

from hafm_jax import listen
from hafm_jax.common.errors import InputError
from hafm_jax.listening import results as for_people
from hafm_jax.listening.answers import Answer, count_preferences, first_answers, holm, read_answers, read_key, sign_test

SYSTEMS = ["model", "random", "truth"]


def make_key(num_clips: int = 4) -> dict:
    """Pairs 1.. of every comparison on every clip, sides in turn; the last two are checks."""
    rows = [
        {"clip": f"c{clip}", "a": pair[clip % 2], "b": pair[1 - clip % 2], "check": False}
        for pair in combinations(SYSTEMS, 2)
        for clip in range(num_clips)
    ]
    checks = ("c0", "truth", "vocal_alone"), ("c1", "vocal_alone", "truth")
    rows += [{"clip": clip, "a": a, "b": b, "check": True} for clip, a, b in checks]
    pairs = [{"pair": number, **row} for number, row in enumerate(rows, 1)]
    return {"format_version": 1, "kit": "abc", "question": "Which?", "seed": 0, "systems": SYSTEMS, "pairs": pairs}


def prefer(key: dict, listener: str, *liked: str) -> list[Answer]:
    """Answers to all pairs: the side whose system comes first in `liked`, no preference where neither is in it."""
    answers = []
    for row in key["pairs"]:
        found = [system for system in liked if system in (row["a"], row["b"])]
        choice = "none" if not found else "a" if found[0] == row["a"] else "b"
        answers.append(Answer(listener, row["pair"], choice, 30.0, f"2026-01-01T00:00:{row['pair']:02d}.000Z"))
    return answers


def saved(path, key: dict, name: str, given: list[Answer], **other):
    rows = [{"pair": a.pair, "choice": a.choice, "seconds": a.seconds, "answered": a.answered} for a in given]
    document = {"format_version": 1, "kit": key["kit"], "listener": name, "first": 0, "answers": rows} | other
    path.write_text(json.dumps(document))
    return path


# -------------------------------------------------------------------------------------------------------- statistics


def test_eight_of_ten_by_hand():
    found = sign_test(8, 2)
    assert found["win_rate"] == 0.8
    assert found["p"] == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert found["interval"] == pytest.approx([0.4439, 0.9748], abs=5e-5)  # tables of Clopper and Pearson


@given(won=st.integers(0, 200), lost=st.integers(0, 200))
@example(won=0, lost=7)
@example(won=7, lost=0)
@example(won=4, lost=4)
def test_the_exact_test_by_its_closed_forms(won, lost):
    found = sign_test(won, lost)
    n = won + lost
    if n == 0:
        assert found == {"win_rate": None, "interval": None, "p": None}
        return
    low = beta.ppf(0.025, won, lost + 1) if won else 0.0
    high = beta.ppf(0.975, won + 1, lost) if lost else 1.0
    assert found["interval"] == pytest.approx([low, high], abs=1e-7)
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    assert found["p"] == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


# ---------------------------------------------------------------------------------------------------------- counting


def test_three_listeners_counted_by_hand():
    key = make_key()
    answers = [
        *prefer(key, "ada", "truth", "model"),
        *prefer(key, "bert", "truth", "model"),
        *prefer(key, "cleo", "model"),  # has no preference between random and truth, and fails both checks
    ]
    results = count_preferences(key, answers)
    by_pair = {(c["system"], c["other"]): c for c in results["comparisons"]}
    assert list(by_pair) == [("model", "random"), ("model", "truth"), ("random", "truth")]
    counted = {pair: (c["won"], c["lost"], c["tied"]) for pair, c in by_pair.items()}
    assert counted == {("model", "random"): (12, 0, 0), ("model", "truth"): (4, 8, 0), ("random", "truth"): (0, 8, 4)}
    assert by_pair["model", "random"]["p"] == pytest.approx(2 / 2**12)
    assert by_pair["model", "random"]["p_holm"] == pytest.approx(3 * 2 / 2**12)
    assert by_pair["random", "truth"]["interval"][0] == 0
    votes = by_pair["model", "truth"]["one_vote_each"]
    assert (votes["won"], votes["lost"], votes["tied"], votes["p"]) == (1, 2, 0, 1.0)
    assert by_pair["random", "truth"]["one_vote_each"]["tied"] == 1
    assert (results["answers"], results["listeners"], results["repeated"]) == (3 * 14, 3, {})
    of_checks = {name: (row["checks_passed"], row["checks"]) for name, row in results["by_listener"].items()}
    assert of_checks == {"ada": (2, 2), "bert": (2, 2), "cleo": (0, 2)}
    assert results["by_listener"]["cleo"]["no_preference"] == 4 + 2
    side = results["side_a"]
    assert (side["chosen"], side["not_chosen"]) == (16, 16)  # sides are balanced in this key


@given(st.data())
def test_sides_and_order_change_nothing(data):
    """A system's wins depend neither on its sides nor on the order of the answers."""
    key = make_key(2)
    preferred = {row["pair"]: data.draw(st.sampled_from([row["a"], row["b"], None])) for row in key["pairs"]}
    swapped = [row | {"a": row["b"], "b": row["a"]} if data.draw(st.booleans()) else row for row in key["pairs"]]

    def answers(rows):
        sides = {row["pair"]: {row["a"]: "a", row["b"]: "b", None: "none"} for row in rows}
        return [
            Answer("ada", n, sides[n][system], 9.0, f"2026-01-01T00:00:{n:02d}.000Z") for n, system in preferred.items()
        ]

    one = count_preferences(key, answers(key["pairs"]))
    other = count_preferences(key | {"pairs": swapped}, data.draw(st.permutations(answers(swapped))))
    assert one["comparisons"] == other["comparisons"] and one["by_listener"] == other["by_listener"]


def test_comparisons_without_answers(tmp_path):
    results = count_preferences(make_key(), [Answer("ada", 1, "none", 5.0, "2026-01-01T00:00:00Z")])
    assert all(c["win_rate"] is c["p"] is c["p_holm"] is None for c in results["comparisons"])
    assert "ada" not in for_people.text(results)  # no check was asked, nothing repeated
    for_people.write_results_page(tmp_path / "page.html", results)
    page = (tmp_path / "page.html").read_text()
    assert_well_formed(page)
    assert page.count("<svg") == 1 + 3 and "<circle" not in page  # the axis, and a row for each comparison


def test_the_first_answer_counts_and_a_second_copy_of_it_is_none():
    early = Answer("ada", 1, "a", 20.0, "2026-01-01T10:00:00.000Z")
    late = Answer("ada", 1, "b", 20.0, "2026-01-02T10:00:00.000Z")
    other = Answer("bert", 1, "b", 20.0, "2026-01-01T09:00:00.000Z")
    kept, repeated = first_answers([late, other, early, early])
    assert set(kept) == {early, other} and repeated == {"ada": 1}


# ------------------------------------------------------------------------------------------------------------- files


def test_answers_are_read_and_names_told_apart_by_more_than_case_and_blanks(tmp_path):
    key = make_key()
    answers = prefer(key, "ada b", "truth")
    assert read_answers(saved(tmp_path / "a.json", key, " Ada  B ", answers), key) == answers


def test_what_does_not_fit_the_kit_is_refused_by_name(tmp_path):
    key = make_key()
    answers = prefer(key, "ada", "truth")
    path = tmp_path / "answers.json"
    for found, other in [
        ("answers kit 'xyz'; expected 'abc'", {"kit": "xyz"}),
        ("lacks a listener or answers", {"listener": None}),
        ("lacks a listener or answers", {"format_version": 2}),
        ("choice 'left' for pair 1; expected a, b, none", {"answers": [answers[0]._asdict() | {"choice": "left"}]}),
        ("choice 'a' for pair 99", {"answers": [answers[0]._asdict() | {"choice": "a", "pair": 99}]}),
        ("holds the answer", {"answers": [{"pair": 1}]}),
        ("holds the answer", {"answers": ["a"]}),
        (r"for pair \[\]", {"answers": [answers[0]._asdict() | {"pair": []}]}),
    ]:
        with pytest.raises(InputError, match=found) as caught:
            read_answers(saved(path, key, "ada", answers, **other), key)
        assert str(path) in str(caught.value)
    for found, content in [("is not JSON", "{"), ("holds a list", "[]")]:
        path.write_text(content)
        with pytest.raises(InputError, match=found):
            read_answers(path, key)
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(tmp_path / "none.json", key)
    with pytest.raises(InputError, match="answer key of a listening kit"):
        read_key(tmp_path)
    (tmp_path / "key.json").write_text(json.dumps(key | {"format_version": 9}))
    with pytest.raises(InputError, match="format_version 9; expected 1"):
        read_key(tmp_path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"pair": True}, "for pair True"),
        ({"pair": 1.0}, "for pair 1.0"),
        ({"pair": 2}, "holds pair 2 as answer 1; expected pair 1"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"seconds": math.inf}, "seconds is inf"),
        ({"seconds": -1e308}, "seconds is -1e.308"),
        ({"seconds": True}, "seconds is True"),
        ({"seconds": "12"}, "seconds is '12'"),
        ({"choice": ["a"]}, "holds choice"),
        ({"choice": None}, "holds choice None"),
        ({"answered": "yesterday"}, "does not match format"),
        ({"answered": 5}, "holds the answer"),
    ],
)
def test_an_answer_that_the_page_cannot_write_is_refused(tmp_path, changes, found):
    key = make_key()
    answers = [answer._asdict() for answer in prefer(key, "ada", "truth")]
    path = saved(tmp_path / "answers.json", key, "ada", [], answers=[answers[0] | changes, *answers[1:]])
    with pytest.raises(InputError, match=found) as caught:
        read_answers(path, key)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["\x1b[2J", "a\x07", "\ud800", "", " ", "a" * 100_000, "\x9b31m"])
def test_a_listener_whose_name_cannot_be_shown_is_refused(tmp_path, name):
    key = make_key()
    path = saved(tmp_path / "answers.json", key, name, prefer(key, "ada", "truth"))
    with pytest.raises(InputError, match=r"a name in it is .*correct the listener's name") as caught:
        read_answers(path, key)
    assert len(str(caught.value)) < 600


def test_names_of_all_peoples_are_names(tmp_path, capsys):
    key = make_key()
    names = ["Søren", "東京", "عمر", "👩\u200d🎤"]
    (tmp_path / "key.json").write_text(json.dumps(key))
    paths = [saved(tmp_path / f"{i}.json", key, n, prefer(key, n, "model")) for i, n in enumerate(names)]
    listen.main(["analyse", "--kit", str(tmp_path), "--answers", *map(str, paths)])
    assert "4 listeners" in capsys.readouterr().out


def test_answers_go_round_from_where_the_listener_began(tmp_path):
    key = make_key()
    answers = prefer(key, "ada", "truth")
    turned = answers[5:] + answers[:5]
    assert read_answers(saved(tmp_path / "a.json", key, "ada", turned, first=5), key) == turned
    for first in (4, -9, 14, "5", None, 5.0, True):
        with pytest.raises(InputError):
            read_answers(saved(tmp_path / "a.json", key, "ada", turned, first=first), key)
    with pytest.raises(InputError, match="28 answers for 14 pairs"):
        read_answers(saved(tmp_path / "a.json", key, "ada", turned * 2, first=5), key)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.pop("kit"),
        lambda key: key.pop("pairs"),
        lambda key: key.update(kit="\x1b[31m"),
        lambda key: key.update(question=3),
        lambda key: key.update(systems=3),
        lambda key: key.update(systems=["model", "truth"]),
        lambda key: key.update(pairs=[]),
        lambda key: key["pairs"].pop(0),
        lambda key: key["pairs"][0].update(a="other"),
        lambda key: key["pairs"][0].update(a=[]),
        lambda key: key["pairs"][0].update(check=1),
        lambda key: key["pairs"][0].update(check=True),
        lambda key: key["pairs"][0].update(a=key["pairs"][0]["b"]),
        lambda key: key["pairs"].append(7),
    ],
)
def test_a_key_that_is_not_one_is_refused(tmp_path, change):
    key = make_key()
    change(key)
    (tmp_path / "key.json").write_text(json.dumps(key))
    with pytest.raises(InputError, match=r"key\.json cannot be read .*answer key of a listening kit"):
        read_key(tmp_path)


def test_the_command_prints_a_table_and_writes_json_and_a_page(tmp_path, capsys):
    key = make_key()
    (tmp_path / "key.json").write_text(json.dumps(key))
    ada, cleo = prefer(key, "ada", "truth", "model"), prefer(key, "<cleo>", "model")
    paths = [
        saved(tmp_path / "half.json", key, "ada", ada[:5]),
        saved(tmp_path / "ada.json", key, "Ada", ada),
        saved(tmp_path / "again.json", key, "ada", [a._replace(answered="2026-02-02T00:00:00.000Z") for a in ada[:3]]),
        saved(tmp_path / "cleo.json", key, "<cleo>", cleo),
    ]
    listen.main(["analyse", "--kit", str(tmp_path), "--answers", *map(str, paths)])
    printed = capsys.readouterr().out
    assert "28 answers of 2 listeners to kit abc" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("model   random")]
    assert row[2:8] == ["8", "0", "0", "100", "%", "63"]  # low end of 8 of 8: 0.025 ** (1 / 8)
    assert 0.025 ** (1 / 8) == pytest.approx(0.63, abs=0.005)
    assert "2 of 4 passed; not passed: <cleo> 2 of 2" in printed and "ada 3" in printed
    assert "not independent" in printed
    assert json.loads((tmp_path / "results" / "results.json").read_text())["repeated"] == {"ada": 3}
    page = (tmp_path / "results" / "index.html").read_text()
    assert_well_formed(page)
    assert "&lt;cleo&gt;" in page and "<cleo>" not in page
    assert page.count("<circle") == 3  # a point a comparison


def test_the_package_is_another_name_of_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["listening", "--help"])
    monkeypatch.setattr(signal, "signal", lambda *handler: None)  # this process is pytest's
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("hafm_jax.listening", run_name="__main__")
    assert "hafm listen analyse" in capsys.readouterr().out
