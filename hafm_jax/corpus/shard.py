"""The songs of one shard -> its token records, in bounded memory.

Axes: C channels, S samples, N cells, K codebooks.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.audio.augmentation import augment_vocal
from hafm_jax.audio.files import header_s, pad_to_cells, read_audio, resample, stem_file, to_mono
from hafm_jax.audio.music import read_song
from hafm_jax.common.errors import InputError
from hafm_jax.common.work import on_device
from hafm_jax.corpus.screening import HOPELESS_SONGS, Reason, Unusable
from hafm_jax.dataset.layout import FIELDS
from hafm_jax.streams import CELLS_PER_S, SEMANTIC_SAMPLE_RATE_HZ
from hafm_jax.tokenizers.codecs import Codec
from hafm_jax.tokenizers.semantic import SemanticTokenizer, semantic_audio, vocal_audio

SHARDS = ".shards"  # of a token set, while it is being made
STEMS = ("vocals", "instrumental")
READERS = 2  # threads of a worker that read and resample the next songs while it computes
# Ours, in seconds of songs, each exceeded by less than one song: a second needs 0.2 MB, in many songs or in one.
AHEAD_S = 480  # ready or in work by the readers
AT_ONCE_S = 240  # tokenized together, so that a GPU has batches to work on; on a CPU clips are processed one by one


class ShardTask(NamedTuple):
    """Songs of one split that become one shard: everything that a worker on any machine needs."""

    songs: Path  # SPLIT/ID/vocals and instrumental, .wav or .flac
    tokenizers: Path  # semantic/ and codec/
    out: Path
    split: str
    number: int
    num_shards: int
    names: tuple[str, ...]  # of the songs' folders
    noise_sigma: float
    seed: int
    max_s: float  # longer songs are left out: a worker's memory must not grow with them
    dtype: str | None  # HuBERT's; None: by the device
    facts: dict[str, Any]  # of the tokenizers with which the run was planned (Tokenizers)
    augmented: bool = False  # the vocals (hafm_jax.audio.augmentation)

    @property
    def shard(self) -> Path:
        return self.out / SHARDS / f"{self.split}-{self.number:05d}-of-{self.num_shards:05d}"

    @property
    def done_file(self) -> Path:
        return self.shard.with_name(f"{self.shard.name}.json")


class LoadedSong(NamedTuple):
    """One song as the tokenizers need it, whole cells of each."""

    name: str
    vocal: np.ndarray  # float32 [S] at 16 kHz, levelled, with noise
    instrumental: np.ndarray  # float32 [S] at 16 kHz
    acoustic: np.ndarray  # float32 [S] at the codec's rate
    licence: str

    @property
    def seconds(self) -> float:
        return self.vocal.size / SEMANTIC_SAMPLE_RATE_HZ


def song_seed(seed: int, split: str, name: str) -> int:
    """Seed of one song's noise and augmentation: the same whatever other songs there are, in whatever order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}/{name}".encode()).digest()[:8], "little")


def song_s(folder: Path, max_s: float) -> float:
    """Seconds of a song by its files' headers. Raises Unusable where they have no length, or one above `max_s`."""
    try:
        seconds = max(header_s(stem_file(folder, stem)) for stem in STEMS)
    except InputError as error:
        raise Unusable(Reason.DAMAGED, str(error)) from error
    if seconds > max_s + 1 / CELLS_PER_S:  # resampling adds as much to a track of that length
        raise Unusable(Reason.TOO_LONG, f"{seconds:.2f} s; expected {max_s:g} or less")
    return seconds


def load_song(folder: Path, codec_rate_hz: int, noise_sigma: float, seed: int, augmented: bool = False) -> LoadedSong:
    """The stems of one song's folder. Raises Unusable where they cannot be used."""
    try:
        vocal, vocal_hz = _read_mono(stem_file(folder, "vocals"))
        instrumental, instrumental_hz = _read_mono(stem_file(folder, "instrumental"))
    except InputError as error:
        raise Unusable(Reason.DAMAGED, str(error)) from error
    vocal_s, instrumental_s = vocal.size / vocal_hz, instrumental.size / instrumental_hz
    if abs(vocal_s - instrumental_s) > 1 / CELLS_PER_S:
        raise Unusable(
            Reason.TWO_LENGTHS,
            f"the vocals have {vocal_s:.3f} s, the instrumental {instrumental_s:.3f} s; expected one length, to "
            f"{1000 // CELLS_PER_S} ms: cut them alike",
        )
    shorter_s = min(vocal_s, instrumental_s)
    if shorter_s < 1 / CELLS_PER_S:
        raise Unusable(Reason.TOO_SHORT, f"{shorter_s:.3g} s; expected a cell, {1 / CELLS_PER_S:g} s, or more")
    if augmented:
        vocal = augment_vocal(vocal, vocal_hz, np.random.default_rng([seed, 1]))  # seed alone is the noise's
    return LoadedSong(
        folder.name,
        vocal_audio(vocal, vocal_hz, noise_sigma, seed),
        semantic_audio(instrumental, instrumental_hz),
        pad_to_cells(resample(instrumental, instrumental_hz, codec_rate_hz), codec_rate_hz),
        _licence(folder),
    )


def _read_mono(path: Path) -> tuple[np.ndarray, int]:
    """float32 [S] and its rate in Hz; the channels are freed before the next file is read."""
    audio, rate_hz = read_audio(path)
    return to_mono(audio), rate_hz


def _licence(folder: Path) -> str:
    try:
        return str(read_song(folder).get("licence") or "not stated")
    except InputError:
        return "not stated"


def tokenize(songs: Sequence[LoadedSong], semantic: SemanticTokenizer, codec: Codec) -> list[dict[str, Any] | Unusable]:
    """A record of each song: id, vocal_semantic int32 [2N], instrumental_semantic int32 [2N], acoustic int32 [3N, 8];
    or why there is none.

    Clips of one length are tokenized together; the rest of the batch changes no token.
    """
    tokens = semantic.encode_all([clip for song in songs for clip in (song.vocal, song.instrumental)])
    codes: list[np.ndarray] = [np.empty(0)] * len(songs)
    lengths = [song.acoustic.size for song in songs]
    for length in set(lengths):
        rows = [i for i, found in enumerate(lengths) if found == length]
        for row, of_song in zip(rows, codec.encode(np.stack([songs[i].acoustic for i in rows])), strict=True):
            codes[row] = of_song
    records: list[dict[str, Any] | Unusable] = []
    for i, song in enumerate(songs):
        if tokens[2 * i] is None or tokens[2 * i + 1] is None:
            records.append(Unusable(Reason.NOT_FINITE, str(semantic.extractor.not_finite())))
            continue
        record = {"vocal_semantic": tokens[2 * i], "instrumental_semantic": tokens[2 * i + 1], "acoustic": codes[i]}
        # Stems that differ by less than a cell may still differ in their number of cells: keep the cells of both.
        cells = min(len(record[name]) // form.frames_per_cell for name, form in FIELDS.items())
        kept = {name: record[name][: cells * form.frames_per_cell] for name, form in FIELDS.items()}
        records.append({"id": song.name, **kept})
    return records


def make_records(
    task: ShardTask, semantic: SemanticTokenizer, codec: Codec, left_out: list[Unusable]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(licence, record) of the task's songs in order; the songs without a record are appended to `left_out`.

    Raises InputError where no song has features: a dtype that spoils all of them must not look like bad songs.
    """
    together: list[LoadedSong] = []
    num_usable = 0

    def flush() -> Iterator[tuple[str, dict[str, Any]]]:
        nonlocal num_usable
        with on_device("tokenizing"):
            found = tokenize(together, semantic, codec)
        for song, record in zip(together, found, strict=True):
            if isinstance(record, Unusable):
                left_out.append(record.of(song.name, task.split))
            else:
                num_usable += 1
                yield song.licence, record
        together.clear()  # before the next songs are loaded
        spoilt = [one for one in left_out if one.reason == Reason.NOT_FINITE]
        if len(spoilt) >= HOPELESS_SONGS and not num_usable:
            raise InputError(f"none of {len(spoilt)} songs of {task.split} has features: {spoilt[-1].detail}")

    for song in read_ahead(task, codec.sample_rate_hz, left_out):
        together.append(song)
        if sum(song.seconds for song in together) >= AT_ONCE_S:
            yield from flush()
    yield from flush()


def read_ahead(task: ShardTask, codec_rate_hz: int, left_out: list[Unusable]) -> Iterator[LoadedSong]:
    """The task's songs in order, read ahead by AHEAD_S; songs that cannot be used are appended to `left_out`."""
    names = deque(task.names)
    ahead: deque[tuple[str, float, Future[LoadedSong]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        while names or ahead:
            reads = bool(names) and sum(seconds for _, seconds, _ in ahead) < AHEAD_S
            name = names.popleft() if reads else ahead[0][0]
            try:
                if reads:
                    folder, seed = task.songs / task.split / name, song_seed(task.seed, task.split, name)
                    options = (codec_rate_hz, task.noise_sigma, seed, task.augmented)
                    ahead.append((name, song_s(folder, task.max_s), pool.submit(load_song, folder, *options)))
                else:
                    yield ahead.popleft()[2].result()  # without a name, which would keep the song in memory
            except Unusable as unusable:
                left_out.append(unusable.of(name, task.split))
