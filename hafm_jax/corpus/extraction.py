"""Songs -> token records, in units: a unit is a set of songs and becomes one shard.

Which song is in which unit follows from the songs' names alone, and a unit's bytes from its songs and the options, so
it does not matter how many workers, on how many machines, share the units, or how often they were stopped. A unit is
done when its shard and its receipt are there:

    TOKENS/.units/run.json               what this extraction is: a run that would make something else is refused
    TOKENS/.units/SPLIT-00003-of-00008   a shard, not yet under its final name
    TOKENS/.units/SPLIT-00003-of-00008.json   its receipt: lengths, rejects, licences, how often each id stands in it
    TOKENS/.units/publishing             all units are done, and shards may have their final names already

Axes: C channels, S samples, N cells, K codebooks, V vocabulary.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.audio.augmentation import augment_vocal
from hafm_jax.audio.files import header_s, pad_to_cells, read_audio, resample, stem_file, to_mono
from hafm_jax.audio.music import SONG_FILE
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import replacing, write_bytes
from hafm_jax.common.resume import RUN_FILE, check_same_run
from hafm_jax.common.work import on_device
from hafm_jax.corpus.screening import HOPELESS_SONGS, Reason, Reject, Unfit
from hafm_jax.dataset.records import FIELDS, Shard, ShardWriter, SplitSummary, publish_split
from hafm_jax.dataset.tfrecord import framed_size
from hafm_jax.streams import CELLS_PER_S, SEMANTIC_SAMPLE_RATE_HZ
from hafm_jax.tokenizers.codecs import Codec
from hafm_jax.tokenizers.folder import check_planned, load_tokenizers
from hafm_jax.tokenizers.semantic import SemanticTokenizer, semantic_audio

UNITS = ".units"
PUBLISHING = "publishing"
STEMS = ("vocals", "instrumental")
READERS = 2  # threads of a worker that read and resample the next songs while it computes
# Ours, in seconds of songs, each passed by less than one song: a second takes 0.2 MB, be it of many songs or of one.
AHEAD_S = 480  # what the readers may have ready or in work
AT_ONCE_S = 240  # heard together, so that a GPU has batches to work on; on a CPU clips go one by one anyway


class Unit(NamedTuple):
    """Songs of one split that become one shard: everything that a worker on any machine must know."""

    songs: Path  # SPLIT/ID/vocals and instrumental, .wav or .flac
    tokenizers: Path  # semantic/ and codec/
    out: Path
    split: str
    number: int
    num_units: int
    names: tuple[str, ...]  # of the songs' folders
    noise_sigma: float
    seed: int
    max_s: float  # longer songs are left out: what a worker holds must not grow with them
    dtype: str | None  # HuBERT's; None: by the device
    facts: dict[str, Any]  # of the tokenizers as the run was planned with them (Tokenizers)
    augmented: bool = False  # the vocals (hafm_jax.audio.augmentation)

    @property
    def shard(self) -> Path:
        return self.out / UNITS / f"{self.split}-{self.number:05d}-of-{self.num_units:05d}"

    @property
    def receipt(self) -> Path:
        return self.shard.with_name(f"{self.shard.name}.json")


class Heard(NamedTuple):
    """One song as the tokenizers want it, whole cells of each."""

    name: str
    vocal: np.ndarray  # float32 [S] at 16 kHz, with noise
    instrumental: np.ndarray  # float32 [S] at 16 kHz
    acoustic: np.ndarray  # float32 [S] at the codec's rate
    licence: str

    @property
    def seconds(self) -> float:
        return self.vocal.size / SEMANTIC_SAMPLE_RATE_HZ


def song_seed(seed: int, split: str, name: str) -> int:
    """Seed of one song's noise and augmentation: its own whatever other songs there are, in whatever order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}/{name}".encode()).digest()[:8], "little")


def extract_unit(unit: Unit) -> dict[str, Any]:
    """Write the unit's shard and its receipt, unless they are there; returns the receipt.

    A song that cannot be used is left out, and the reason is in the receipt. Raises InputError where the tokenizers
    cannot be loaded, or are on this machine not those of the plan, and where the shard cannot be written.
    """
    done = read_receipt(unit)
    if done is not None:
        return done
    semantic, codec, facts = load_tokenizers(unit.tokenizers, unit.dtype)
    check_planned(facts, unit.facts)
    rejects: list[Reject] = []
    licences: Counter[str] = Counter()
    use = {name: np.zeros((form.codebooks, form.vocabulary), np.int64) for name, form in FIELDS.items()}  # [K, V]
    with replacing(unit.shard) as temporary:
        writer = ShardWriter(temporary)
        try:
            for licence, record in _records(unit, semantic, codec, rejects):
                writer.write(record)
                licences[licence] += 1
                for name, counts in use.items():
                    for codebook, ids in enumerate(record[name].reshape(len(record[name]), -1).T):
                        counts[codebook] += np.bincount(ids, minlength=counts.shape[1])
        finally:
            writer.close()
    receipt = {
        "cells": writer.shard.cells,
        "num_bytes": writer.shard.num_bytes,
        "rejects": [reject._asdict() for reject in rejects],
        "licences": dict(licences),
        "use": {name: counts.tolist() for name, counts in use.items()},
    }
    write_bytes(unit.receipt, json.dumps(receipt).encode())
    return receipt


def read_receipt(unit: Unit) -> dict[str, Any] | None:
    """What the unit's receipt says; None where the unit has yet to be done, since it or the whole shard is missing."""
    try:
        receipt = json.loads(unit.receipt.read_text())
        if not (unit.out / UNITS / PUBLISHING).exists():
            framing = framed_size(0) * len(receipt["cells"])
            if unit.shard.stat().st_size != receipt["num_bytes"] + framing:
                return None
        return receipt
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{unit.receipt} cannot be read ({error}): delete it, the unit will be done again") from error


def tokenize(songs: Sequence[Heard], semantic: SemanticTokenizer, codec: Codec) -> list[dict[str, Any] | Unfit]:
    """A record of each song: id, vocal_semantic int32 [2N], instrumental_semantic int32 [2N], acoustic int32 [3N, 8];
    or why there is none.

    Clips of one length are heard together; what else is in the batch changes no token.
    """
    tokens = semantic.encode_all([clip for song in songs for clip in (song.vocal, song.instrumental)])
    codes: list[np.ndarray] = [np.empty(0)] * len(songs)
    lengths = [song.acoustic.size for song in songs]
    for length in set(lengths):
        rows = [i for i, found in enumerate(lengths) if found == length]
        for row, of_song in zip(rows, codec.encode(np.stack([songs[i].acoustic for i in rows])), strict=True):
            codes[row] = of_song
    records: list[dict[str, Any] | Unfit] = []
    for i, song in enumerate(songs):
        if tokens[2 * i] is None or tokens[2 * i + 1] is None:
            records.append(Unfit(Reason.NOT_FINITE, str(semantic.extractor.not_finite())))
            continue
        record = {"vocal_semantic": tokens[2 * i], "instrumental_semantic": tokens[2 * i + 1], "acoustic": codes[i]}
        # Stems that differ by less than a cell may still lie on two sides of a cell's end: keep the cells of both.
        cells = min(len(record[name]) // form.frames_per_cell for name, form in FIELDS.items())
        kept = {name: record[name][: cells * form.frames_per_cell] for name, form in FIELDS.items()}
        records.append({"id": song.name, **kept})
    return records


def song_s(folder: Path, max_s: float) -> float:
    """Seconds of a song by the headers of its files. Raises Unfit where they have none, or say more than `max_s`."""
    try:
        seconds = max(header_s(stem_file(folder, stem)) for stem in STEMS)
    except InputError as error:
        raise Unfit(Reason.DAMAGED, str(error)) from error
    if seconds > max_s + 1 / CELLS_PER_S:  # what resampling adds to a track of that length is no reason
        raise Unfit(Reason.TOO_LONG, f"{seconds:.2f} s; expected {max_s:g} or less")
    return seconds


def hear(folder: Path, codec_rate_hz: int, noise_sigma: float, seed: int, augmented: bool = False) -> Heard:
    """The stems of one song's folder. Raises Unfit where they cannot be used."""
    try:
        vocal, vocal_hz = _read_mono(stem_file(folder, "vocals"))
        instrumental, instrumental_hz = _read_mono(stem_file(folder, "instrumental"))
    except InputError as error:
        raise Unfit(Reason.DAMAGED, str(error)) from error
    vocal_s, instrumental_s = vocal.size / vocal_hz, instrumental.size / instrumental_hz
    if abs(vocal_s - instrumental_s) > 1 / CELLS_PER_S:
        raise Unfit(
            Reason.TWO_LENGTHS,
            f"the vocals have {vocal_s:.3f} s, the instrumental {instrumental_s:.3f} s; expected one length, to "
            f"{1000 // CELLS_PER_S} ms: cut them alike",
        )
    if min(vocal_s, instrumental_s) < 1 / CELLS_PER_S:
        raise Unfit(
            Reason.TOO_SHORT, f"{min(vocal_s, instrumental_s):.3g} s; expected a cell, {1 / CELLS_PER_S:g} s, or more"
        )
    if augmented:
        vocal = augment_vocal(vocal, vocal_hz, np.random.default_rng([seed, 1]))  # seed alone is the noise's
    return Heard(
        folder.name,
        semantic_audio(vocal, vocal_hz, noise_sigma, seed),
        semantic_audio(instrumental, instrumental_hz, noise_sigma=0.0, seed=0),
        pad_to_cells(resample(instrumental, instrumental_hz, codec_rate_hz), codec_rate_hz),
        _licence(folder),
    )


def _read_mono(path: Path) -> tuple[np.ndarray, int]:
    """float32 [S] and its rate in Hz; the channels are gone before the next file is read."""
    audio, rate_hz = read_audio(path)
    return to_mono(audio), rate_hz


def _licence(folder: Path) -> str:
    try:
        return str(json.loads((folder / SONG_FILE).read_text()).get("licence") or "not stated")
    except (OSError, ValueError, AttributeError):
        return "not stated"


def _records(
    unit: Unit, semantic: SemanticTokenizer, codec: Codec, rejects: list[Reject]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(licence, record) of the unit's songs in order; the others go into `rejects`.

    Raises InputError where no song has features: a dtype that spoils all of them must not look like bad songs.
    """
    together: list[Heard] = []
    num_usable = 0

    def flush() -> Iterator[tuple[str, dict[str, Any]]]:
        nonlocal num_usable
        with on_device("tokenizing"):
            found = tokenize(together, semantic, codec)
        for song, record in zip(together, found, strict=True):
            if isinstance(record, Unfit):
                rejects.append(Reject(song.name, unit.split, record.reason, record.detail))
            else:
                num_usable += 1
                yield song.licence, record
        together.clear()  # before the next songs come
        spoilt = [reject for reject in rejects if reject.reason == Reason.NOT_FINITE]
        if len(spoilt) >= HOPELESS_SONGS and not num_usable:
            raise InputError(f"none of {len(spoilt)} songs of {unit.split} has features: {spoilt[-1].detail}")

    for song in _hear_all(unit, codec.sample_rate_hz, rejects):
        together.append(song)
        if sum(song.seconds for song in together) >= AT_ONCE_S:
            yield from flush()
    yield from flush()


def _hear_all(unit: Unit, codec_rate_hz: int, rejects: list[Reject]) -> Iterator[Heard]:
    """The unit's songs in order, read ahead by AHEAD_S; what cannot be used goes into `rejects`."""
    names = deque(unit.names)
    ahead: deque[tuple[str, float, Future[Heard]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        while names or ahead:
            if names and sum(seconds for _, seconds, _ in ahead) < AHEAD_S:
                name = names.popleft()
                folder, seed = unit.songs / unit.split / name, song_seed(unit.seed, unit.split, name)
                try:
                    seconds = song_s(folder, unit.max_s)
                except Unfit as unfit:
                    rejects.append(Reject(name, unit.split, unfit.reason, unfit.detail))
                    continue
                how = (codec_rate_hz, unit.noise_sigma, seed, unit.augmented)
                ahead.append((name, seconds, pool.submit(hear, folder, *how)))
            else:
                name, _, song = ahead.popleft()
                try:
                    heard = song.result()
                except Unfit as unfit:
                    rejects.append(Reject(name, unit.split, unfit.reason, unfit.detail))
                    continue
                del song  # it keeps its result
                yield heard


def units_sha256(units: Sequence[Unit]) -> str:
    """Which songs are in which unit."""
    lines = ["\0".join([unit.shard.name, *unit.names]) for unit in units]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def start(out: Path, plan: dict[str, Any]) -> None:
    """Make room in `out` for the units of `plan`, all that decides about their bytes, or go on with those that an
    extraction of the same plan has left there. Raises InputError where they are another's.
    """
    try:
        (out / UNITS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    check_same_run(out / UNITS, plan)


@contextmanager
def completing(out: Path) -> Iterator[bool]:
    """Whether the caller is the one to complete the data set, now that all units are done: of several, one at a time
    is asked, and none once the units are gone. They are removed when the block succeeds."""
    path = out / UNITS / RUN_FILE
    try:
        file = path.open()
    except FileNotFoundError:
        yield False
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when this process ends, however it does
        yield path.exists()
        if path.exists():
            shutil.rmtree(path.parent)


def publish(units: Sequence[Unit]) -> list[SplitSummary]:
    """The splits' shards under their final names. All units must be done."""
    (units[0].out / UNITS / PUBLISHING).touch()
    summaries = []
    for split in dict.fromkeys(unit.split for unit in units):
        receipts = [(unit, read_receipt(unit)) for unit in units if unit.split == split]
        shards = [Shard(unit.shard, receipt["cells"], receipt["num_bytes"]) for unit, receipt in receipts]
        summaries.append(publish_split(units[0].out, split, shards))
    return summaries
