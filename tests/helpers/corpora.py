"""Music collections for tests: the Free Music Archive's table of tracks."""

from __future__ import annotations

import csv
from pathlib import Path

# The columns of the archive's table, group by group.
FMA_GROUPS = {
    "album": "comments date_created date_released engineer favorites id information listens producer tags title tracks "
    "type",
    "artist": "active_year_begin active_year_end associated_labels bio comments date_created favorites id latitude "
    "location longitude members name related_projects tags website wikipedia_page",
    "set": "split subset",
    "track": "bit_rate comments composer date_created date_recorded duration favorites genre_top genres genres_all "
    "information interest language_code license listens lyricist number publisher tags title",
}


def write_fma(root: Path, rows: dict[int, dict[tuple[str, str], str]], columns=None) -> Path:
    columns = columns or [(group, name) for group, names in FMA_GROUPS.items() for name in names.split()]
    path = root / "fma_metadata" / "tracks.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["", *(group for group, _ in columns)])
        table.writerow(["", *(name for _, name in columns)])
        table.writerow(["track_id", *[""] * len(columns)])
        for number, row in rows.items():
            table.writerow([number, *(row.get(column, f"<{'/'.join(column)}>") for column in columns)])
    return path.parent


def fma_row(split: str, title: str, licence: str = "CC BY", **other: str) -> dict[tuple[str, str], str]:
    return {
        ("set", "split"): split,
        ("track", "title"): title,
        ("track", "license"): licence,
        ("artist", "name"): "The Band",
        ("artist", "bio"): other.get("bio", ""),
    }
