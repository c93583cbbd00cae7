"""MUSDB18: train|test/NAME/mixture.wav, vocals.wav, drums.wav, bass.wav, other.wav (MUSDB18-HQ), or
train|test/NAME.stem.mp4, all of them in one file. Capitals do not count, nor does the kind of audio file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hafm_jax.corpus.listing import Aside, Why
from hafm_jax.corpus.reading import Source
from hafm_jax.corpus.tracks import Track, track_id

STREAMS = {"mixture": 0, "drums": 1, "bass": 2, "other": 3, "vocals": 4}  # of a .stem.mp4
CONTAINER = ".stem.mp4"
LICENCE = "academic use only; of each track: https://sigsep.github.io/datasets/musdb.html"
# The training tracks on which the musdb package (configs/mus.yaml), and with it the field, validates.
VALIDATION = frozenset(
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


def musdb_tracks(music: Path, files: Sequence[Path]) -> tuple[list[Track], list[Aside]]:
    """The tracks, and the files that are none of their stems. A stem that is missing is found when it is read."""
    tracks, aside = [], []
    stems: dict[Path, dict[str, list[Path]]] = {}  # a song's folder -> stem -> its files
    for path in files:
        place = path.relative_to(music)
        in_split = place.parts[0].lower() in ("train", "test")
        if in_split and len(place.parts) == 2 and path.name.lower().endswith(CONTAINER):
            sources = {stem: Source(path, stream) for stem, stream in STREAMS.items()}
            tracks.append(_track(place, path.name[: -len(CONTAINER)], sources))
        elif in_split and len(place.parts) == 3 and path.stem.lower() in STREAMS:
            stems.setdefault(path.parent, {}).setdefault(path.stem.lower(), []).append(path)
        else:
            detail = f"expected train/NAME/STEM.wav with a stem of {', '.join(STREAMS)}, or train/NAME{CONTAINER}"
            aside.append(Aside(place.as_posix(), Why.NOT_IN_LAYOUT, detail))
    for folder, found in stems.items():
        sources = {stem: Source(folder / f"{stem}.wav") for stem in STREAMS}
        for stem, paths in found.items():
            first, *others = sorted(paths, key=lambda path: (path != sources[path.stem.lower()].path, path))
            sources[stem] = Source(first)
            detail = f"another file of the stem is used, {first.name}"
            aside += [Aside(path.relative_to(music).as_posix(), Why.NOT_IN_LAYOUT, detail) for path in others]
        tracks.append(_track(folder.relative_to(music), folder.name, sources))
    return tracks, aside


def _track(place: Path, name: str, stems: dict[str, Source]) -> Track:
    artist, _, title = name.partition(" - ")
    subset = place.parts[0].lower()
    return Track(
        track_id(name, name),
        "validation" if subset == "train" and name in VALIDATION else subset,
        stems["mixture"],
        stems["vocals"],
        tuple(source for stem, source in stems.items() if stem not in ("mixture", "vocals")),
        LICENCE,
        {"artist": artist, "title": title} if title else {"title": name},
    )
