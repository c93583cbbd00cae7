"""The results of a listening test for people: a table for the terminal, a page in one file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:0 .6rem;height:2rem;border-bottom:1px solid #ccc;text-align:right}td{white-space:nowrap}"
    "td:first-child,th:first-child,.pair td:nth-child(2),.pair th:nth-child(2){text-align:left}"
    "svg{display:block}.wide{overflow-x:auto}"
)
PLOT_WIDTH = 200  # pixels for win rates from 0 to 1
MARGIN = 24  # so that the axis's labels fit
ROW = 32  # pixels, the height of a row

CAVEAT = (
    "Answers of one listener, and answers about one clip, are not independent. The intervals and p take each answer as "
    "if they were: with few listeners they promise too much. The column of listeners gives each of them one "
    "vote, however often they answered, and p is that of the same test over these votes."
)


def headline(results: Mapping[str, Any]) -> str:
    return f"{results['answers']} answers of {results['listeners']} listeners to kit {results['kit']}"


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the comparisons has to know: checks, answers left out, the side's share, the caveat."""
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
        lines.append(f"Attention checks (the true band against none at all): {passed} of {checks} passed{wrong}.")
    if results["repeated"]:
        named = ", ".join(f"{name} {count}" for name, count in results["repeated"].items())
        lines.append(f"Left out, since the same listener had answered the same pair before: {named}.")
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


def _rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = [
        "system",
        "against",
        "won",
        "lost",
        "no preference",
        "win rate",
        f"{100 * results['confidence']:.0f} % interval",
        "p",
        "p (Holm)",
        "listeners for, against, even",
        "p of listeners",
    ]
    rows = []
    for c in results["comparisons"]:
        votes = c["one_vote_each"]
        rows.append(
            [
                c["system"],
                c["other"],
                *(str(c[outcome]) for outcome in ("won", "lost", "tied")),
                rate(c),
                interval(c),
                p_value(c["p"]),
                p_value(c["p_holm"]),
                f"{votes['won']}, {votes['lost']}, {votes['tied']}",
                p_value(votes["p"]),
            ]
        )
    return header, rows


def text(results: Mapping[str, Any]) -> str:
    """For a terminal: the comparisons as a table, then the remarks."""
    header, rows = _rows(results)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
             for row in [header, *rows]]  # fmt: skip
    return "\n".join([headline(results), "", *lines, "", *remarks(results)])


def page(results: Mapping[str, Any]) -> str:
    """An HTML page: the comparisons, their win rates drawn beside them, the remarks, the counts of each listener."""
    header, rows = _rows(results)
    drawn = [_beside(row, _drawn(c)) for row, c in zip(rows, results["comparisons"], strict=True)]

    def counted(of_listener: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]) -> str:
        found = [c for c in of_listener if (c["system"], c["other"]) == (comparison["system"], comparison["other"])]
        return "".join(f"{c['won']}, {c['lost']}, {c['tied']}" for c in found)

    listeners = [
        [
            name,
            str(row["answers"]),
            str(row["no_preference"]),
            f"{row['median_seconds']:.0f} s",
            f"{row['checks_passed']} of {row['checks']}",
            *(counted(row["comparisons"], c) for c in results["comparisons"]),
        ]
        for name, row in results["by_listener"].items()
    ]
    compared = [f"{c['system']} : {c['other']}" for c in results["comparisons"]]
    of_listener = ["listener", "answers", "no preference", "median time", "checks passed", *compared]
    title = "Listening test"
    parts = [
        f"<h1>{title}</h1><p>{html.escape(results['question'])}</p><p>{html.escape(headline(results))}.</p>",
        _table(_beside(header, _axis()), drawn, "pair"),
        *(f"<p>{html.escape(line)}</p>" for line in remarks(results)),
        "<h2>Listeners</h2><p>Of each comparison: won, lost, no preference.</p>",
        _table([*map(html.escape, of_listener)], [[*map(html.escape, row)] for row in listeners]),
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    return head + "\n".join(parts) + "</html>\n"


def _beside(cells: Sequence[str], drawing: str) -> list[str]:
    """The drawing goes between the names of the two systems and the numbers."""
    escaped = [*map(html.escape, cells)]
    return [*escaped[:2], drawing, *escaped[2:]]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Of cells that are HTML already."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    body = row(header, "th") + "".join(row(cells, "td") for cells in rows)
    return f'<div class=wide><table class="{kind}">{body}</table></div>'


def _x(share: float) -> float:
    return round(MARGIN + PLOT_WIDTH * share, 1)


def _svg(height: int, content: str) -> str:
    width = PLOT_WIDTH + 2 * MARGIN
    return f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">{content}</svg>'


def _axis() -> str:
    """Head of the column of `_drawn`: no wins at the left, as many as losses in the middle."""
    return _svg(18, "".join(
        f'<text x="{_x(share)}" y="13" font-size="12" text-anchor="middle" fill="#222">{100 * share:.0f} %</text>'
        for share in (0, 0.5, 1)
    ))  # fmt: skip


def _drawn(test: Mapping[str, Any]) -> str:
    """A win rate as a point, its interval as a line, 50 % dashed."""
    half = f'<line x1="{_x(0.5)}" x2="{_x(0.5)}" y1="0" y2="{ROW}" stroke="#888" stroke-dasharray="3 3"/>'
    if test["win_rate"] is None:
        return _svg(ROW, half)
    low, high = map(_x, test["interval"])
    return _svg(
        ROW,
        f'{half}<line x1="{low}" x2="{high}" y1="{ROW / 2}" y2="{ROW / 2}" stroke="#2563c9" stroke-width="3"/>'
        f'<circle cx="{_x(test["win_rate"])}" cy="{ROW / 2}" r="5" fill="#2563c9"/>',
    )
