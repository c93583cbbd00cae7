"""Music collections as data: which tracks there are, where their audio is, and their splits and licences.

Layouts, each with the splits train, validation and test:

    folder   any tree of audio files; a hash of the track's id chooses its split, so added files move no others
    fma      000/000002.mp3, ... and the archive's tracks.csv, which has splits and licences (hafm_jax.corpus.fma)
    musdb    MUSDB18 or MUSDB18-HQ, whose stems are there (hafm_jax.corpus.musdb)

Every file is of a track, or set aside with the reason. Files of equal bytes are one track, so that no track is in two
splits: the first by id stays, the others are left out.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.choices import EXPECTED, LAYOUTS, TEST_SHARE, VALIDATION_SHARE
from hafm_jax.corpus.duplicates import find_duplicates
from hafm_jax.corpus.fma import fma_tracks, read_table, tracks_csv
from hafm_jax.corpus.listing import Aside, list_audio
from hafm_jax.corpus.musdb import musdb_tracks
from hafm_jax.corpus.reading import Source
from hafm_jax.corpus.screening import Reason, Unusable
from hafm_jax.corpus.tracks import Corpus, Track, track_id


def find_tracks(
    music: str | os.PathLike,
    layout: str,
    metadata: str | os.PathLike | None = None,
    validation_share: float = VALIDATION_SHARE,
    test_share: float = TEST_SHARE,
    keep_out_of: Path | None = None,
) -> Corpus:
    """The tracks of a collection. Equal files give equal results, whatever the folder's name.

    layout: one of LAYOUTS. metadata: the archive's tracks.csv or its folder, only for `fma`. The shares, of all tracks
    in 0..1, are only for `folder`: the others have splits of their own. No link may lead to `keep_out_of`.
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
    table = read_table(tracks_csv(metadata)) if layout == "fma" else None
    files, aside = list_audio(music, keep_out_of)
    unusable: list[Unusable] = []
    others: list[Aside] = []
    if layout == "folder":
        tracks = [_folder_track(music, path, validation_share, test_share) for path in files]
    elif table:
        tracks, unusable, others = fma_tracks(music, files, table)
    else:
        tracks, others = musdb_tracks(music, files)
    aside = sorted(aside + others)
    if not tracks and not unusable:
        counts = ", ".join(f"{number} {reason}" for reason, number in counts_of(aside).items())
        raise InputError(
            f"{music} holds no track ({counts or 'it is empty'}); expected the layout {layout}, that is, "
            f"{EXPECTED[layout]}: check --layout"
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
        [track for track in tracks if track.id not in first],
        sorted(unusable, key=lambda unusable: unusable.id),
        len(files) + len(aside) - len(others),
        aside,
        table.bad_rows if table else (),
    )


def counts_of(aside: Sequence[Aside]) -> dict[str, int]:
    """Reason -> number of files set aside for it, the most frequent first."""
    return dict(Counter(one.reason.value for one in aside).most_common())


def split_of(name: str, validation_share: float, test_share: float) -> str:
    """train, validation or test, by a hash of the id alone. Changing validation's share leaves test as it is."""
    place = int.from_bytes(hashlib.sha256(f"split/{name}".encode()).digest()[:8], "big") / 2**64  # uniform in 0..1
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def _folder_track(music: Path, path: Path, validation_share: float, test_share: float) -> Track:
    name = track_id(path.stem, path.relative_to(music).as_posix())
    return Track(name, split_of(name, validation_share, test_share), Source(path))
