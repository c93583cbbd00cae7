"""Music collections as data: which tracks there are, where their audio is, and their splits and licences.

Layouts, each with the splits train, validation and test:

    folder   any tree of audio files; a hash of the track's id chooses its split, so added files move no others
    fma      000/000002.mp3, ... and the archive's fma_metadata/tracks.csv, which has splits and licences
    musdb    train|test/NAME/mixture.wav, vocals.wav, drums.wav, bass.wav, other.wav (MUSDB18-HQ), or
             train|test/NAME.stem.mp4, all of them in one file (MUSDB18)

Files of equal bytes are one track, so that no track is in two splits: the first by id stays, the others are left out.

Axes: C channels, S samples.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.duplicates import find_duplicates
from hafm_jax.corpus.reading import LIBSNDFILE_SUFFIXES, MEDIA_SUFFIXES, Source, read_source
from hafm_jax.corpus.screening import Reason, Unusable
from hafm_jax.streams import CELLS_PER_S

EXPECTED = {
    "folder": "audio files in it or in folders of it",
    "fma": "000/000002.mp3 and so on",
    "musdb": "train/NAME/mixture.wav or train/NAME.stem.mp4, and test likewise",
}
LAYOUTS = tuple(EXPECTED)

# Columns of tracks.csv, as its two header rows name them.
FMA_COLUMNS = {
    "split": ("set", "split"),
    "licence": ("track", "license"),
    "artist": ("artist", "name"),
    "title": ("track", "title"),
}
FMA_SPLITS = {"training": "train", "validation": "validation", "test": "test"}

MUSDB_STREAMS = {"mixture": 0, "drums": 1, "bass": 2, "other": 3, "vocals": 4}  # of a .stem.mp4
MUSDB_LICENCE = "academic use only; of each track: https://sigsep.github.io/datasets/musdb.html"
# The training tracks on which the musdb package (configs/mus.yaml), and with it the field, validates.
MUSDB_VALIDATION = frozenset(
    {
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)

VALIDATION_SHARE = TEST_SHARE = 0.05  # of a folder without splits of its own


@dataclass(frozen=True)
class Track:
    """A recording: `mixture`, and where the corpus has stems, `vocals` and all others as `instrumental`.

    id: unique in the corpus, the same wherever the corpus is, a file name of letters, digits and underscores.
    licence: as the corpus states it, else None. facts: what else it states (artist, title).
    """

    id: str
    split: str
    mixture: Source
    vocals: Source | None = None
    instrumental: tuple[Source, ...] = ()
    licence: str | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.mixture, *([self.vocals] if self.vocals else []), *self.instrumental)


class Corpus(NamedTuple):
    """Tracks to work on, and those that the listing alone shows to be unusable; both sorted by id."""

    tracks: list[Track]
    unusable: list[Unusable]


# --------------------------------------------------------------------------------------------------------- finding


def find_tracks(
    music: str | os.PathLike,
    layout: str,
    metadata: str | os.PathLike | None = None,
    validation_share: float = VALIDATION_SHARE,
    test_share: float = TEST_SHARE,
) -> Corpus:
    """The tracks of a collection. Equal files give equal results, whatever the folder's name.

    layout: one of LAYOUTS. metadata: the archive's tracks.csv or its folder, only for `fma`. The shares, of all tracks
    in 0..1, are only for `folder`: the others have splits of their own.
    Raises InputError where the folder has no tracks of this layout, or the metadata cannot be read.
    """
    music = Path(music)
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if min(validation_share, test_share) < 0 or validation_share + test_share > 1:
        raise InputError(
            f"shares of validation and test are {validation_share} and {test_share}; expected 0 or more, 1 together"
        )
    if (metadata is None) == (layout == "fma"):
        raise InputError(
            f"layout {layout} {'without' if metadata is None else 'with'} metadata; expected the folder fma_metadata "
            "for fma, and none for the others"
        )
    if not music.is_dir():
        raise InputError(f"{music} is not a folder; expected a music collection: check the path")
    unusable: list[Unusable] = []
    if layout == "folder":
        tracks = list(_folder_tracks(music, validation_share, test_share))
    elif layout == "fma":
        tracks, unusable = _fma_tracks(music, _fma_rows(tracks_csv(metadata)))
    else:
        tracks = list(_musdb_tracks(music))
    if not tracks and not unusable:
        raise InputError(
            f"{music} holds no track; expected the layout {layout}, that is, {EXPECTED[layout]}: check --layout"
        )
    tracks.sort(key=lambda track: track.id)
    for one, other in itertools.pairwise(tracks):
        if one.id == other.id:
            raise InputError(
                f"{one.mixture.path} and {other.mixture.path} are both track {one.id}; expected one file a track: move "
                "one of them away"
            )
    first = find_duplicates({track.id: track.mixture.path for track in tracks})
    unusable += [
        Unusable(Reason.DUPLICATE, f"the same file as {first[t.id]}", t.id, t.split) for t in tracks if t.id in first
    ]
    return Corpus(
        [track for track in tracks if track.id not in first], sorted(unusable, key=lambda unusable: unusable.id)
    )


def split_of(track_id: str, validation_share: float, test_share: float) -> str:
    """train, validation or test, by a hash of the id alone. Changing validation's share leaves test as it is."""
    place = int.from_bytes(hashlib.sha256(f"split/{track_id}".encode()).digest()[:8], "big") / 2**64  # uniform in 0..1
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def _name(label: str, key: str) -> str:
    """A safe file name: the readable part of `label`, and a hash of `key`, which makes it unique."""
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")[:48]
    return f"{readable}_{digest}" if readable else digest


def _visible(names: Iterable[str]) -> list[str]:
    """Without hidden files, among them the ._NAME.mp3 that macOS leaves beside each NAME.mp3."""
    return sorted(name for name in names if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be listed ({error.strerror}); expected a readable folder") from error


def _folder_tracks(music: Path, validation_share: float, test_share: float) -> Iterator[Track]:
    for parent, folders, names in os.walk(music, onerror=_unreadable):
        folders[:] = _visible(folders)
        for name in _visible(names):
            path = Path(parent, name)
            if path.suffix.lower() in LIBSNDFILE_SUFFIXES | MEDIA_SUFFIXES:
                track_id = _name(path.stem, path.relative_to(music).as_posix())
                yield Track(track_id, split_of(track_id, validation_share, test_share), Source(path))


def tracks_csv(metadata: str | os.PathLike) -> Path:
    """FMA's table of tracks, given as itself or by its folder."""
    metadata = Path(metadata)
    return metadata / "tracks.csv" if metadata.is_dir() else metadata


def _fma_rows(path: Path) -> dict[int, dict[str, str]]:
    """Track number -> its row of tracks.csv, by the names of FMA_COLUMNS."""
    limit = csv.field_size_limit(1 << 30)  # it holds biographies of artists, some as long as web pages
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            names = list(zip(next(lines, []), next(lines, []), strict=False))
            absent = [" ".join(column) for column in FMA_COLUMNS.values() if column not in names]
            if absent:
                raise InputError(
                    f"{path} has no column {', '.join(absent)} in its first two rows; expected the archive's "
                    "fma_metadata/tracks.csv"
                )
            places = {name: names.index(column) for name, column in FMA_COLUMNS.items()}
            return {
                int(line[0]): {name: line[place] for name, place in places.items()}
                for line in lines
                if line and line[0].isdecimal()  # a third row of the header holds only the index's name, track_id
            }
    except (OSError, ValueError, IndexError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); expected the archive's fma_metadata/tracks.csv") from error
    finally:
        csv.field_size_limit(limit)


def _fma_tracks(music: Path, rows: dict[int, dict[str, str]]) -> tuple[list[Track], list[Unusable]]:
    tracks, unusable = [], []
    for path in sorted(music.glob("*/*.mp3")):
        if not path.stem.isdecimal():
            continue
        number = int(path.stem)
        track_id = f"fma_{number:06d}"
        row = rows.get(number)
        if row is None or row["split"] not in FMA_SPLITS:
            detail = f"no row {number}" if row is None else f"the split of row {number} is {row['split']!r}"
            unusable.append(Unusable(Reason.NOT_IN_METADATA, detail, track_id))
            continue
        split, licence = FMA_SPLITS[row["split"]], row["licence"] or None
        facts = {"artist": row["artist"], "title": row["title"]}
        tracks.append(Track(track_id, split, Source(path), licence=licence, facts=facts))
    return tracks, unusable


def _musdb_tracks(music: Path) -> Iterator[Track]:
    for subset in ("train", "test"):
        for path in sorted((music / subset).glob("[!.]*")):
            if path.is_dir():
                name = path.name
                stems = {stem: Source(path / f"{stem}.wav") for stem in MUSDB_STREAMS}
            elif path.name.endswith(".stem.mp4"):
                name = path.name.removesuffix(".stem.mp4")
                stems = {stem: Source(path, stream) for stem, stream in MUSDB_STREAMS.items()}
            else:
                continue
            artist, _, title = name.partition(" - ")
            yield Track(
                _name(name, name),
                "validation" if subset == "train" and name in MUSDB_VALIDATION else subset,
                stems.pop("mixture"),
                stems.pop("vocals"),
                tuple(stems.values()),
                MUSDB_LICENCE,
                {"artist": artist, "title": title} if title else {"title": name},
            )


# --------------------------------------------------------------------------------------------------------- reading


class Stems(NamedTuple):
    """vocals, instrumental: float32 [C, S] of one shape."""

    vocals: np.ndarray
    instrumental: np.ndarray
    sample_rate_hz: int


def read_stems(track: Track, max_s: float = math.inf) -> Stems:
    """The track's vocals and the sum of its other stems; at most their first `max_s` seconds.

    Stems that differ by less than a cell (40 ms) are cut to the shortest. Raises InputError where the corpus gives no
    stems, as `read_source` does, and where stems differ in rate, channels or length.
    """
    if track.vocals is None or not track.instrumental:
        raise InputError(f"track {track.id} has no stems, only a mixture; expected a corpus with stems: separate it")
    vocals, rate_hz = read_source(track.vocals, max_s)
    instrumental = np.zeros_like(vocals)
    for source in track.instrumental:
        stem, stem_hz = read_source(source, max_s)
        apart = abs(stem.shape[1] - instrumental.shape[1])
        if stem_hz != rate_hz or len(stem) != len(vocals) or apart * CELLS_PER_S > rate_hz:
            raise InputError(
                f"{source.path} (stream {source.stream or 0}) has {len(stem)} channels of {stem.shape[1]} samples at "
                f"{stem_hz} Hz, {track.vocals.path} has {len(vocals)} of {vocals.shape[1]} at {rate_hz} Hz; expected "
                "stems of one shape: export them again"
            )
        num_samples = min(stem.shape[1], instrumental.shape[1])
        instrumental = instrumental[:, :num_samples]
        instrumental += stem[:, :num_samples]
    return Stems(vocals[:, : instrumental.shape[1]], instrumental, rate_hz)
