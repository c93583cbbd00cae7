"""The preferences of listeners: read their answers, check them against the kit's key, and count them.

Win rates leave out answers without a preference and have exact (Clopper-Pearson) intervals; p is that of the exact
two-sided sign test. Both assume that all answers are independent, which those of one listener, or about one clip, are
not: the results therefore also have the same test with one vote per listener, and the counts of each listener.
"""

from __future__ import annotations

import math
import reprlib
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import binomtest

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, reading
from hafm_jax.common.options import check_number
from hafm_jax.listening.kit import FORMAT_VERSION, TRUTH, VOCAL_ALONE

KEY = "the answer key of a listening kit: make one with hafm listen make"
MOST_LETTERS = 200  # of a name; the page takes 60
ANSWERED = "%Y-%m-%dT%H:%M:%S.%fZ"  # as JavaScript's toISOString writes it
CONFIDENCE = 0.95
CHOICES = ("a", "b", "none")
OUTCOMES = ("won", "lost", "tied")  # of a comparison's first system


class Answer(NamedTuple):
    """`seconds`: from the pair on the screen to the next one; `answered`: ISO 8601 in UTC, whose text sorts by time."""

    listener: str
    pair: int
    choice: str
    seconds: float
    answered: str


def read_key(kit: Path) -> dict[str, Any]:
    """The answer key of a kit's folder. Raises InputError where it is missing, damaged or of another format."""
    path = kit / "key.json"
    key = read_json(path, KEY)
    if key.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format_version {key.get('format_version')!r}; expected {FORMAT_VERSION}: use the hafm_jax "
            "that made the kit"
        )
    with reading(path, KEY):
        systems, rows = key["systems"], key["pairs"]
        for text in (key["kit"], key["question"], *systems):
            _check_text(text)
        for number, row in enumerate(rows, 1):
            a, b, check = row["a"], row["b"], row["check"]
            if row["pair"] != number or type(check) is not bool:
                raise ValueError(f"pair {number} of it is {row!r}")
            if (check and {a, b} != {TRUTH, VOCAL_ALONE}) or (not check and (a == b or not {a, b} <= {*systems})):
                raise ValueError(f"pair {number} of it compares {a!r} and {b!r}")
        if all(row["check"] for row in rows):
            raise ValueError("it has no pairs")
    return key


def read_answers(path: Path, key: Mapping[str, Any]) -> list[Answer]:
    """The answers in a file from the page. Raises InputError unless all of them fit the kit of `key`, and follow one
    another as the page asks: from pair `first` + 1 on, and after the last pair from pair 1."""
    document = read_json(path, "the answers that a listener saved from the page")
    if document.get("kit") != key["kit"]:
        raise InputError(
            f"{path} answers kit {document.get('kit')!r}; expected {key['kit']!r}: give as --kit the folder of "
            "their page"
        )
    listener, rows, first = (document.get(name) for name in ("listener", "answers", "first"))
    if document.get("format_version") != FORMAT_VERSION or not isinstance(listener, str) or not isinstance(rows, list):
        raise InputError(f"{path} lacks a listener or answers; expected a file as the page saved it: save it again")
    num_pairs = len(key["pairs"])
    with reading(path, "a file as the page saved it: save it again, or correct the listener's name"):
        name = " ".join(listener.split()).casefold()
        _check_text(name)
        if len(rows) > num_pairs:
            raise ValueError(f"it holds {len(rows)} answers for {num_pairs} pairs")
    answers = []
    for place, row in enumerate(rows):
        try:
            answer = Answer(name, row["pair"], row["choice"], row["seconds"], row["answered"])
            check_number("first", first, int, 0, num_pairs - 1)
            check_number("seconds", answer.seconds, float, 0, math.inf)
            fits = type(answer.pair) is int and 1 <= answer.pair <= num_pairs and answer.choice in CHOICES
            datetime.strptime(answer.answered, ANSWERED)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} holds the answer {reprlib.repr(row)} ({error}); expected it as the page saved it: save it "
                "again"
            ) from error
        if not fits:
            raise InputError(
                f"{path} holds choice {answer.choice!r} for pair {answer.pair!r}; expected {', '.join(CHOICES)} for "
                f"one of the kit's {num_pairs} pairs: save it again"
            )
        if answer.pair != (expected := (first + place) % num_pairs + 1):
            raise InputError(
                f"{path} holds pair {answer.pair} as answer {place + 1}; expected pair {expected}, since it begins "
                f"after pair {first}: save it again"
            )
        answers.append(answer)
    return answers


def _check_text(text: str) -> None:
    """Raises ValueError unless it is text of a bounded length, without control characters and half characters."""
    if not 0 < len(text) <= MOST_LETTERS or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError(f"a name in it is {reprlib.repr(text)}, not 1 to {MOST_LETTERS} letters")


def first_answers(answers: Iterable[Answer]) -> tuple[list[Answer], dict[str, int]]:
    """The first answer of each listener to each pair; and listener -> number of later answers, which are left out.

    The same answer in two files (saved half-way and at the end) counts once, and not as left out.
    """
    first: dict[tuple[str, int], Answer] = {}
    repeated: Counter[str] = Counter()
    for answer in sorted(set(answers), key=lambda a: (a.answered, a)):
        if first.setdefault((answer.listener, answer.pair), answer) is not answer:
            repeated[answer.listener] += 1
    return list(first.values()), dict(sorted(repeated.items()))


def sign_test(won: int, lost: int) -> dict[str, Any]:
    """win_rate of won + lost, its exact interval [low, high], p of the exact two-sided sign test; None without data."""
    if won + lost == 0:
        return {"win_rate": None, "interval": None, "p": None}
    test = binomtest(won, won + lost)
    interval = test.proportion_ci(CONFIDENCE, "exact")
    return {"win_rate": won / (won + lost), "interval": [interval.low, interval.high], "p": test.pvalue}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: all tests whose corrected p is below alpha hold together at level alpha."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    raised = [(len(order) - rank) * p_values[i] for rank, i in enumerate(order)]
    adjusted = dict(zip(order, accumulate(raised, max), strict=True))
    return [min(1.0, adjusted[i]) for i in range(len(p_values))]


def count_preferences(key: Mapping[str, Any], answers: Iterable[Answer]) -> dict[str, Any]:
    """All results of a listening test, JSON-able.

    kit, question, confidence, answers, listeners, repeated (`first_answers`) and

      comparisons   for every two systems that were compared: system, other, won, lost, tied (from system's side),
                    win_rate, interval, p (`sign_test`), p_holm (among all comparisons), and one_vote_each: the numbers
                    of listeners who preferred system, other, or neither more often, with the same test
      side_a        how often the left side was chosen, with the same test: it shows a habit, since sides are balanced
      by_listener   answers, no_preference, median_seconds, checks_passed of checks, and the counts of each comparison
    """
    answers, repeated = first_answers(answers)
    pairs = {row["pair"]: row for row in key["pairs"]}
    systems = key["systems"]
    counts: dict[tuple[str, str], dict[str, Counter]] = {}  # comparison -> listener -> outcomes
    for row in key["pairs"]:
        if not row["check"]:
            counts.setdefault(_comparison(row, systems), defaultdict(Counter))
    counts = {comparison: counts[comparison] for comparison in sorted(counts, key=lambda c: [*map(systems.index, c)])}
    checks: dict[str, Counter] = defaultdict(Counter)
    sides: Counter[str] = Counter()
    for answer in answers:
        row = pairs[answer.pair]
        preferred = row.get(answer.choice)  # None of "none"
        if row["check"]:
            checks[answer.listener][preferred == TRUTH] += 1
            continue
        sides[answer.choice] += 1
        system, other = _comparison(row, systems)
        outcome = {system: "won", other: "lost", None: "tied"}[preferred]
        counts[system, other][answer.listener][outcome] += 1

    comparisons = [_summary(*comparison, by_listener) for comparison, by_listener in counts.items()]
    tested = [comparison for comparison in comparisons if comparison["p"] is not None]
    for comparison, p in zip(tested, holm([comparison["p"] for comparison in tested]), strict=True):
        comparison["p_holm"] = p
    listeners = sorted({answer.listener for answer in answers})
    return {
        "format_version": FORMAT_VERSION,
        "kit": key["kit"],
        "question": key["question"],
        "confidence": CONFIDENCE,
        "answers": len(answers),
        "listeners": len(listeners),
        "repeated": repeated,
        "comparisons": comparisons,
        "side_a": {"chosen": sides["a"], "not_chosen": sides["b"], **sign_test(sides["a"], sides["b"])},
        "by_listener": {
            listener: _listener([a for a in answers if a.listener == listener], checks[listener], counts)
            for listener in listeners
        },
    }


def _comparison(row: Mapping[str, Any], systems: Sequence[str]) -> tuple[str, str]:
    """The two systems of a pair in the order of the kit's systems, whatever their sides."""
    first, second = sorted((row["a"], row["b"]), key=systems.index)
    return first, second


def _summary(system: str, other: str, by_listener: Mapping[str, Counter]) -> dict[str, Any]:
    total = {outcome: sum(counts[outcome] for counts in by_listener.values()) for outcome in OUTCOMES}
    votes = Counter(OUTCOMES[_vote(counts)] for counts in by_listener.values())
    return {
        "system": system,
        "other": other,
        **total,
        **sign_test(total["won"], total["lost"]),
        "p_holm": None,
        "one_vote_each": {o: votes[o] for o in OUTCOMES} | sign_test(votes["won"], votes["lost"]),
    }


def _vote(counts: Mapping[str, int]) -> int:
    """Index in OUTCOMES of a listener's majority; a tie where won equals lost."""
    return 2 if counts["won"] == counts["lost"] else int(counts["lost"] > counts["won"])


def _listener(
    answers: Sequence[Answer], checks: Mapping[bool, int], counts: Mapping[tuple[str, str], Mapping[str, Counter]]
) -> dict[str, Any]:
    name = answers[0].listener
    return {
        "answers": len(answers),
        "no_preference": sum(answer.choice == "none" for answer in answers),
        "median_seconds": round(statistics.median(answer.seconds for answer in answers), 1),
        "checks": checks[True] + checks[False],
        "checks_passed": checks[True],
        "comparisons": [
            {"system": system, "other": other} | {outcome: of[name][outcome] for outcome in OUTCOMES}
            for (system, other), of in counts.items()
            if name in of
        ],
    }
