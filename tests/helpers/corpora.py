"""Music collections for tests: files without audio, the Free Music Archive's table, songs of MUSDB18-HQ."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import soundfile


def touch(root: Path, name: str, content: str | None = None) -> Path:
    """A file with that content, or with its own name."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(name if content is None else content))
    return path


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


MUSDB_STEMS = ("mixture", "drums", "bass", "other", "vocals")  # in the order of the mp4 edition's streams


def write_musdb(music: Path, split: str, name: str, seed: int = 0, num_samples: int = 4410) -> dict[str, np.ndarray]:
    """A song's stems [S, 2], multiples of 2**-15, which 16 bits hold exactly; their sum does not clip."""
    folder = music / split / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    stems = {stem: np.round(rng.uniform(-0.2, 0.2, (num_samples, 2)) * 2**15) / 2**15 for stem in MUSDB_STEMS[1:]}
    stems = {"mixture": sum(stems.values()), **stems}
    for stem, audio in stems.items():
        soundfile.write(folder / f"{stem}.wav", audio, 44_100, subtype="PCM_24")
    return stems
