"""The results of a listening test for people: a table for the terminal, and a page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hafm_jax.common.pages import Table, write_page

CAVEAT = (
    "Answers of one listener, and answers about one clip, are not independent. The intervals and p assume that they "
    "are: with few listeners they are too optimistic. The column of listeners counts one vote per listener, whatever "
    "the number of answers; its p is that of the same test over these votes."
)


def headline(results: Mapping[str, Any]) -> str:
    return f"{results['answers']} answers of {results['listeners']} listeners to kit {results['kit']}"


def remarks(results: Mapping[str, Any]) -> list[str]:
    """Sentences for a reader of the comparisons: checks, answers left out, the share of side A, the caveat."""
    lines = []
    by_listener = results["by_listener"]
    checks = sum(row["checks"] for row in by_listener.values())
    if checks:
        passed = sum(row["checks_passed"] for row in by_listener.values())
        failed = [
            f"{name} {row['checks'] - row['checks_passed']} of {row['checks']}"
            for name, row in by_listener.items()
            if row["checks_passed"] < row["checks"]
        ]
        wrong = f"; not passed: {', '.join(failed)}. Their answers are counted like all others" if failed else ""
        lines.append(f"Attention checks (the true band against no band): {passed} of {checks} passed{wrong}.")
    if results["repeated"]:
        named = ", ".join(f"{name} {count}" for name, count in results["repeated"].items())
        lines.append(f"Left out, because the same listener had already answered the same pair: {named}.")
    side = results["side_a"]
    if side["win_rate"] is not None:
        lines.append(
            f"Side A was chosen in {rate(side)} of the answers with a preference ({interval(side)}); which system "
            "is on which side is balanced."
        )
    lines.append(CAVEAT)
    return lines


def rate(test: Mapping[str, Any]) -> str:
    return "" if test["win_rate"] is None else f"{100 * test['win_rate']:.0f} %"


def interval(test: Mapping[str, Any]) -> str:
    return "" if test["interval"] is None else "{:.0f} to {:.0f} %".format(*(100 * x for x in test["interval"]))


def p_value(p: float | None) -> str:
    return "" if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def _comparison_table(results: Mapping[str, Any]) -> Table:
    rows = [
        {
            "system": c["system"],
            "against": c["other"],
            "won": str(c["won"]),
            "lost": str(c["lost"]),
            "no preference": str(c["tied"]),
            "win rate": rate(c),
            f"{100 * results['confidence']:.0f} % interval": interval(c),
            "p": p_value(c["p"]),
            "p (Holm)": p_value(c["p_holm"]),
            "listeners for, against, even": "{won}, {lost}, {tied}".format_map(c["one_vote_each"]),
            "p of listeners": p_value(c["one_vote_each"]["p"]),
        }
        for c in results["comparisons"]
    ]
    return list(rows[0]), [list(row.values()) for row in rows]


def text(results: Mapping[str, Any]) -> str:
    """For a terminal: the comparisons as a table, then the remarks."""
    header, rows = _comparison_table(results)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
             for row in [header, *rows]]  # fmt: skip
    return "\n".join([headline(results), "", *lines, "", *remarks(results)])


def write_results_page(path: Path, results: Mapping[str, Any]) -> None:
    """An HTML page: the comparisons, their win rates drawn beside them, the remarks, the counts of each listener.

    Raises InputError as `write_page`.
    """
    comparisons = results["comparisons"]
    header, rows = _comparison_table(results)
    columns = ["listener", "answers", "no preference", "median time", "checks passed"]
    of_listeners = [
        [
            name,
            str(row["answers"]),
            str(row["no_preference"]),
            f"{row['median_seconds']:.0f} s",
            f"{row['checks_passed']} of {row['checks']}",
            *(_counts(row["comparisons"], comparison) for comparison in comparisons),
        ]
        for name, row in results["by_listener"].items()
    ]
    write_page(
        path,
        "listening/results.html.j2",
        title="Listening test",
        question=results["question"],
        headline=headline(results),
        header=header,
        rows=rows,
        comparisons=comparisons,
        remarks=remarks(results),
        listeners=([*columns, *(f"{c['system']} : {c['other']}" for c in comparisons)], of_listeners),
    )


def _counts(of_listener: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]) -> str:
    """What a listener answered in a comparison: "" without an answer."""
    found = [c for c in of_listener if (c["system"], c["other"]) == (comparison["system"], comparison["other"])]
    return "".join(f"{c['won']}, {c['lost']}, {c['tied']}" for c in found)
