"""The inputs of an evaluation as data: the clips, the reference set, the library of songs for baselines, seeds and
embeddings.

The protocol's fingerprint accompanies every figure: figures with different fingerprints cannot be compared. Those with
the same fingerprint have the same clips, seeds and definitions of measures. The fingerprint does not cover the models,
the sound of the songs, and the versions of the analysis libraries: report.json has those.

No song of the reference is in the library. Otherwise retrieval would play the bands of the reference itself, and would
be nearer to it than a true band is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.audio.files import song_folders, stem_file, to_mono
from hafm_jax.audio.reading import read_audio
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, reading, sealed, write_json
from hafm_jax.common.options import check_file_name, from_fields
from hafm_jax.corpus.screening import Limits, Unusable
from hafm_jax.evaluation.clips import CLIP_S, Clip
from hafm_jax.evaluation.rule import Rule
from hafm_jax.metrics.adherence import mismatch
from hafm_jax.metrics.frechet import MIN_CLIPS
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

FORMAT_VERSION = 2
MEASURES_VERSION = 2  # to be increased with any change of measures or systems that changes their figures
LIBRARY_SONGS = 500  # at most; ours: their analysis takes minutes
STEMS = ("vocals", "instrumental")


@dataclass(frozen=True)
class Protocol:
    """`clips`: what the systems accompany, in order. `reference`: the real music that they are compared with.
    `library`: other songs of the reference's split, from which baselines take their bands."""

    rule: Rule
    clips: tuple[Clip, ...]
    reference: tuple[Clip, ...]
    library: tuple[str, ...]

    def fingerprint(self, embedding: str | None = None, weights_sha256: str | None = None) -> str:
        """12 hexadecimal digits, a hash of the protocol and, for distances, of the embedding."""
        facts = [MEASURES_VERSION, _document(self), embedding, weights_sha256]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def seed_of(self, clip: Clip) -> int:
        """In 0..2**31 - 1, independent of the other clips."""
        digest = hashlib.sha256(f"{self.rule.seed}/{clip.id}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


def make_protocol(songs: Path, rule: Rule, progress: Callable[[str], None] = lambda song: None) -> Protocol:
    """Choose clips by the rule: songs in an order drawn by the seed, the first clip of each before any second clip.

    The reference gets at most half of its split's songs; the next LIBRARY_SONGS are the library. A song that cannot be
    read gives no clip. progress: called with each song that was read. Raises InputError where there is no song, no
    clip, only one song for reference and library, or where the split is its own reference.
    """
    if rule.split == rule.reference_split:
        raise InputError(
            f"{rule.split} is both evaluated and the reference; expected two splits: give another --reference-split"
        )
    evaluated, others = (_shuffled(songs, split, rule.seed) for split in (rule.split, rule.reference_split))
    num_reference = min(rule.num_reference_clips, len(others) // 2)
    if not num_reference:
        raise InputError(
            f"{songs / rule.reference_split} holds one song; expected two or more, half for the reference and half for "
            "retrieval: add songs"
        )
    return Protocol(
        rule,
        _choose(evaluated[: rule.num_clips], rule.num_clips, rule, progress),
        _choose(others[:num_reference], rule.num_reference_clips, rule, progress),
        tuple(sorted(folder.name for folder in others[num_reference:][:LIBRARY_SONGS])),
    )


def check_songs(songs: Path, rule: Rule) -> None:
    """Raises InputError where a split has too few songs for any protocol with distances, before they are read."""
    song_folders(songs, rule.split)
    found = len(song_folders(songs, rule.reference_split))
    if found < 2 * MIN_CLIPS or rule.num_reference_clips < MIN_CLIPS:
        raise InputError(
            f"{songs / rule.reference_split} holds {found} songs, for a reference of {rule.num_reference_clips} clips; "
            f"expected {2 * MIN_CLIPS} songs or more, half for the reference and half for retrieval, and a clip of "
            f"{MIN_CLIPS} songs or more for a distance: add songs, or clips to the reference"
        )


def check_reference(protocol: Protocol) -> None:
    """Raises InputError where the reference is too small for distances, or half of it is one song."""
    songs = [clip.song for clip in protocol.reference]
    if (found := len(set(songs))) < MIN_CLIPS:
        raise InputError(
            f"the reference is of {found} songs; expected {MIN_CLIPS} or more for a distance: add songs with vocals "
            f"and a band to {protocol.rule.reference_split}, half of which serve for retrieval"
        )
    mismatch(songs, protocol.rule.seed)


def _shuffled(songs: Path, split: str, seed: int) -> list[Path]:
    folders = song_folders(songs, split)
    return [folders[i] for i in np.random.default_rng([seed, len(folders)]).permutation(len(folders))]


def _choose(
    folders: Sequence[Path], number: int | None, rule: Rule, progress: Callable[[str], None]
) -> tuple[Clip, ...]:
    of_songs = []
    for folder in folders:
        of_songs.append(list(_clips_of(folder, rule)))
        progress(f"{folder.parent.name}/{folder.name}")
    clips = [clip for clip in chain.from_iterable(zip_longest(*of_songs)) if clip][:number]
    if not clips:
        raise InputError(
            f"no {CLIP_S} s of a song in {folders[0].parent} have vocals above {rule.vocal_gate_dbfs:g} dBFS and a "
            "band; expected at least one clip: give longer songs, or a lower --vocal-gate-dbfs"
        )
    return tuple(clips)


def _clips_of(folder: Path, rule: Rule) -> Iterator[Clip]:
    try:
        (vocals, vocals_hz), (band, band_hz) = (read_audio(stem_file(folder, stem)) for stem in STEMS)
    except InputError:
        return
    limits = Limits(vocal_gate_dbfs=rule.vocal_gate_dbfs)
    whole = min(vocals.shape[1] // vocals_hz, band.shape[1] // band_hz) // CLIP_S
    for start_s in range(0, whole * CLIP_S, CLIP_S):
        try:
            limits.check_singing(to_mono(vocals[:, start_s * vocals_hz : (start_s + CLIP_S) * vocals_hz]))
            limits.check_sound("instrumental", to_mono(band[:, start_s * band_hz : (start_s + CLIP_S) * band_hz]))
        except Unusable:
            continue
        yield Clip(folder.name, start_s)


def _document(protocol: Protocol) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "clip_s": CLIP_S,
        "sample_rate_hz": CODEC_SAMPLE_RATE_HZ,
        "rule": asdict(protocol.rule),
        "clips": [clip.id for clip in protocol.clips],
        "reference": [clip.id for clip in protocol.reference],
        "library": list(protocol.library),
    }


def write_protocol(path: Path, protocol: Protocol) -> None:
    write_json(path, sealed(_document(protocol)))


def read_protocol(path: str | os.PathLike) -> Protocol:
    """Raises InputError where the file is missing or not a protocol of this version, or a song is in both reference and
    library, or is not the name of a folder: what is made of a clip is written under its song's name."""
    path, expected = Path(path), "a protocol that hafm_jax.evaluate wrote: give it, or leave --protocol out to make one"
    document = read_json(path, expected)
    with reading(path, expected):
        clips, reference = (tuple(map(Clip.of_id, document[name])) for name in ("clips", "reference"))
        rule = from_fields(Rule, document["rule"], f"{path}, which is not {expected}")
        protocol = Protocol(rule, clips, reference, tuple(document["library"]))
        for song in (*(clip.song for clip in clips + reference), *protocol.library):
            check_file_name(f"{path}: a song", song)
    if document != _document(protocol):
        raise InputError(f"{path} is a protocol of another version; expected version {FORMAT_VERSION}: make it again")
    if both := {clip.song for clip in reference} & set(protocol.library):
        raise InputError(f"{path} has {min(both)} in reference and library; expected it in one of them: make it again")
    return protocol
