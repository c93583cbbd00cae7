"""What a token data set holds, for people: hours, songs, rejects, licences, how evenly each codebook is used.

The same numbers stand in tokens.json; the page shows them with plots, in one file that needs nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.pages import new_figure, svg, table, write_page
from hafm_jax.dataset.records import FIELDS
from hafm_jax.streams import CELLS_PER_S

CARD = "card.html"


def entropy_bits(counts: np.ndarray) -> float:
    """Of the distribution that counts [V] have: 0 where one id is all there is, log2 V where all are as frequent."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def summarize(receipts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Of each split's unit receipts (hafm_jax.corpus.extraction): split -> songs, hours, rejected, rejected_by_reason,
    licences, and of each field and codebook how many ids are in use and the entropy of their use in bits."""
    return {split: _summarize(of_split) for split, of_split in receipts.items()}


def _summarize(receipts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cells = [n for receipt in receipts for n in receipt["cells"]]
    rejects = [reject for receipt in receipts for reject in receipt["rejects"]]
    use = {name: sum(np.array(receipt["use"][name]) for receipt in receipts) for name in FIELDS}  # [K, V]
    return {
        "songs": len(cells),
        "hours": round(sum(cells) / CELLS_PER_S / 3600, 6),
        "rejected": len(rejects),
        "rejected_by_reason": dict(Counter(reject["reason"] for reject in rejects).most_common()),
        "licences": dict(sum((Counter(receipt["licences"]) for receipt in receipts), Counter()).most_common()),
        "use": {
            name: [
                {"codebook": k, "ids_in_use": int((counts > 0).sum()), "entropy_bits": round(entropy_bits(counts), 4)}
                for k, counts in enumerate(of_field)
            ]
            for name, of_field in use.items()
        },
    }


def write_card(
    path: Path,
    title: str,
    summary: Mapping[str, Mapping[str, Any]],
    receipts: Mapping[str, Sequence[Mapping[str, Any]]],
    made_by: Mapping[str, Any],
    rejects: Mapping[str, int],
) -> None:
    """Write the page. `rejects`: reason -> songs that were left out for it, before extraction and in it."""
    splits = [[split, f"{s['songs']:,}", f"{s['hours']:.2f}", f"{s['rejected']:,}"] for split, s in summary.items()]
    licences: Counter[str] = sum((Counter(s["licences"]) for s in summary.values()), Counter())
    use = [
        [
            split,
            name,
            str(row["codebook"]),
            f"{row['ids_in_use']:,} of {FIELDS[name].vocabulary:,}",
            f"{row['entropy_bits']:.2f} of {np.log2(FIELDS[name].vocabulary):.2f}",
        ]
        for split, s in summary.items()
        for name, rows in s["use"].items()
        for row in rows
    ]
    facts = [[name, str(value)] for name, value in _flat(made_by)]
    parts = [
        "<p>Semantic tokens of vocals and instrumentals, acoustic tokens of the instrumentals.</p>",
        table(["split", "songs", "hours", "left out"], splits),
        f"<h2>Left out</h2>{table(['reason', 'songs'], [[k, f'{n:,}'] for k, n in rejects.items()])}"
        if rejects
        else "",
        f"<h2>Licences</h2>{table(['licence', 'songs'], [[k, f'{n:,}'] for k, n in licences.most_common()])}",
        f"<h2>Songs by length</h2>{_lengths(receipts)}",
        "<h2>Use of the ids</h2><p>How often each id stands in the set, the most frequent first; the dashed line is "
        f"even use.</p>{_uses(receipts)}",
        table(["split", "field", "codebook", "ids in use", "entropy in bits"], use),
        f"<h2>Made by</h2>{table(['', ''], facts)}",
    ]
    write_page(path, title, parts)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for name, value in facts.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return rows


def _lengths(receipts: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    figure, (axes,) = new_figure()
    seconds = [[n / CELLS_PER_S for r in of_split for n in r["cells"]] for of_split in receipts.values()]
    axes.hist(seconds, bins=40, stacked=True, label=list(receipts))
    axes.set(xlabel="seconds", ylabel="songs")
    axes.legend(frameon=False)
    return svg(figure)


def _uses(receipts: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    figure, every = new_figure(len(FIELDS))
    for axes, (name, form) in zip(every, FIELDS.items(), strict=True):
        counts = sum(np.array(r["use"][name]) for of_split in receipts.values() for r in of_split)  # [K, V]
        for codebook, of_codebook in enumerate(counts):
            share = np.sort(of_codebook)[::-1] / of_codebook.sum()
            axes.semilogy(
                np.where(share > 0, share, np.nan), label=f"codebook {codebook}" if form.codebooks > 1 else None
            )
        axes.axhline(1 / form.vocabulary, color="gray", linestyle="--", linewidth=1)
        axes.set(title=name, xlabel="id, by frequency", ylabel="share")
        if form.codebooks > 1:
            axes.legend(frameon=False, fontsize="x-small", ncols=2)
    figure.tight_layout()
    return svg(figure)
