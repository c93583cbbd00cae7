"""The card of a token data set: hours, songs, songs left out, licences, and how evenly each codebook is used.

tokens.json holds the same numbers; the page shows them with plots, in one file that needs nothing else.

Axes: K codebooks, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.pages import Html, new_figure, svg, write_page
from hafm_jax.dataset.layout import FIELDS
from hafm_jax.streams import CELLS_PER_S


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy of the distribution of counts [V]: 0 where only one id occurs, log2 V where all are equally frequent."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def summarize(shards: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Split -> contents of its shards' done-files (hafm_jax.corpus.extraction). Returns split -> songs, hours,
    rejected, rejected_by_reason, licences, and use: for each field and codebook the number of ids in use, and the
    entropy of their use in bits."""
    return {split: _summarize(of_split) for split, of_split in shards.items()}


def _summarize(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cells = [n for shard in shards for n in shard["cells"]]
    rejects = [reject for shard in shards for reject in shard["rejects"]]
    use = {name: sum(np.array(shard["use"][name]) for shard in shards) for name in FIELDS}  # [K, V]
    return {
        "songs": len(cells),
        "hours": round(sum(cells) / CELLS_PER_S / 3600, 6),
        "rejected": len(rejects),
        "rejected_by_reason": dict(Counter(reject["reason"] for reject in rejects).most_common()),
        "licences": dict(sum((Counter(shard["licences"]) for shard in shards), Counter()).most_common()),
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
    shards: Mapping[str, Sequence[Mapping[str, Any]]],
    made_by: Mapping[str, Any],
    rejects: Mapping[str, int],
) -> None:
    """Write the page of `summary`, which `summarize` made of `shards`.

    rejects: reason -> songs left out for it, before extraction and in it. Raises InputError as `write_page`.
    """
    licences: Counter[str] = sum((Counter(of_split["licences"]) for of_split in summary.values()), Counter())
    write_page(
        path,
        "dataset/card.html.j2",
        title=title,
        splits=[[split, f"{s['songs']:,}", f"{s['hours']:.2f}", f"{s['rejected']:,}"] for split, s in summary.items()],
        rejects=[[reason, f"{number:,}"] for reason, number in rejects.items()],
        licences=[[licence, f"{number:,}"] for licence, number in licences.most_common()],
        lengths=_lengths(shards),
        uses=_uses(shards),
        use=[
            [
                split,
                name,
                row["codebook"],
                f"{row['ids_in_use']:,} of {FIELDS[name].vocabulary:,}",
                f"{row['entropy_bits']:.2f} of {np.log2(FIELDS[name].vocabulary):.2f}",
            ]
            for split, of_split in summary.items()
            for name, rows in of_split["use"].items()
            for row in rows
        ],
        made_by=_flat(made_by),
    )


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for name, value in facts.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return rows


def _lengths(shards: Mapping[str, Sequence[Mapping[str, Any]]]) -> Html:
    figure, (axes,) = new_figure()
    seconds = [[n / CELLS_PER_S for r in of_split for n in r["cells"]] for of_split in shards.values()]
    axes.hist(seconds, bins=40, stacked=True, label=list(shards))
    axes.set(xlabel="seconds", ylabel="songs")
    axes.legend(frameon=False)
    return svg(figure)


def _uses(shards: Mapping[str, Sequence[Mapping[str, Any]]]) -> Html:
    figure, every = new_figure(len(FIELDS))
    for axes, (name, form) in zip(every, FIELDS.items(), strict=True):
        counts = sum(np.array(r["use"][name]) for of_split in shards.values() for r in of_split)  # [K, V]
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
