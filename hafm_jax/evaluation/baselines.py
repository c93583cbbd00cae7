"""Bands without a model: the nearest training song, a random training song, silence, clicks.

They are the floor of the evaluation's table: a model that does not beat `retrieval` is worse than a search in its own
training set, and the scores of silence and clicks show what a metric gives to a band without music.

Axes: S samples, N beats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hafm_jax.audio.files import read_mono, stem_file
from hafm_jax.audio.music import Key, read_song
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import make_folder, read_json, sealed, write_json
from hafm_jax.common.work import do_all
from hafm_jax.evaluation.clips import reason
from hafm_jax.metrics.analysis import Analysis, import_librosa
from hafm_jax.metrics.coherence import Truth
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ

ANALYSIS_VERSION = 1  # of the cached analyses: those with another number are made again

# All constants are ours.
MAX_SONG_S = 60.0  # of a training song, for analysis and playing: limits time and memory for whole recordings
MAX_STRETCH = 0.08  # of tempo, either way: beyond it the phase vocoder smears drums, and another song is better
STRETCH_OF_A_FIFTH = 0.04  # 4 % less stretching makes up for a key that is one fifth further away
OCTAVE_COST_FIFTHS = 1.0  # a band at half or double the tempo has another feel: it must be a fifth nearer
UNKNOWN_KEY_FIFTHS = 3.0  # the mean over all keys
LEAST_STRETCH = 2e-4  # 2 ms in 10 s
BEAT_SIGMA_S = 0.04  # width of the beat score: Cemgil's accuracy, as in mir_eval.beat
STRETCH_WINDOW = 512  # samples: librosa's 2048 smears onsets 30 ms ahead, and is no better for chords
MARGIN_S = 0.25  # extra audio at either end, so that the vocoder's edges are cut off
CLICK_S, CLICK_DECAY_S, CLICK_PEAK = 0.06, 0.012, 0.5


Facts = Analysis | Truth  # of a vocal, in seconds of the clip: beats_s, tempo_bpm and key


@dataclass(frozen=True)
class Entry:
    """A training song: the folder of its instrumental, and tempo, beats and key of the first `seconds` of it."""

    folder: Path
    seconds: float
    tempo_bpm: float
    beats_s: np.ndarray  # float64 [N]
    key: Key | None

    def read(self) -> np.ndarray:
        """The instrumental: float32 [S], mono, 24 kHz."""
        return _read_instrumental(self.folder)


@dataclass(frozen=True)
class Library:
    """Training songs to choose bands from; `left_out`: id -> reason of the songs that cannot be used."""

    entries: tuple[Entry, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def build(cls, folders: Sequence[Path], cache: Path, workers: int) -> Library:
        """From the folders of songs.

        Beats, tempo and key come from song.json where it has them, otherwise from an analysis of the instrumental's
        first MAX_SONG_S. They are stored in `cache`/ID.json: a build that was stopped resumes, and a second one only
        reads. A song whose file has changed is analysed again. Raises InputError where none of the songs can be used,
        or `cache` cannot be written.
        """
        make_folder(cache, "folder")
        done = do_all(partial(_entry_or_reason, cache), folders, workers)
        found = dict(tqdm(done, total=len(folders), unit="song", desc="retrieval library"))
        entries = tuple(found[f] for f in folders if isinstance(found[f], Entry))
        left_out = {f.name: found[f] for f in folders if isinstance(found[f], str)}
        if not entries:
            raise InputError(
                f"none of {len(folders)} songs for retrieval can be used (the first: "
                f"{next(iter(left_out.values()), 'missing')}); expected at least one: give another songs folder"
            )
        return cls(entries, left_out)

    def of_length(self, seconds: float) -> list[Entry]:
        """Entries with at least `seconds` of music. Raises InputError where there are none."""
        entries = [entry for entry in self.entries if entry.seconds >= seconds]
        if not entries:
            raise InputError(
                f"the longest of {len(self.entries)} training songs has {max(e.seconds for e in self.entries):.1f} s; "
                f"expected {seconds:.1f} s, a clip's length: give longer songs, or shorter clips"
            )
        return entries


def _read_instrumental(folder: Path) -> np.ndarray:
    return read_mono(stem_file(folder, "instrumental"), RATE_HZ, MAX_SONG_S)


def _entry_or_reason(cache: Path, folder: Path) -> Entry | str:
    try:
        file = stem_file(folder, "instrumental").stat()
        source = {"version": ANALYSIS_VERSION, "bytes": file.st_size, "changed_ns": file.st_mtime_ns}
        cached = _read_cached(cache / f"{folder.name}.json")
        if cached.get("source") != source:
            audio = _read_instrumental(folder)
            truth = Truth.of_clip(audio, read_song(folder))
            if not truth.reference.sounds.any():
                return f"its first {audio.size / RATE_HZ:.1f} s are silent"
            cached = {
                "source": source,
                "seconds": audio.size / RATE_HZ,
                "tempo_bpm": None if math.isnan(truth.tempo_bpm) else truth.tempo_bpm,
                "beats_s": truth.beats_s.tolist(),
                "key": truth.key,
            }
            write_json(cache / f"{folder.name}.json", sealed(cached))
    except Exception as error:
        return reason(error)
    tempo_bpm = math.nan if cached["tempo_bpm"] is None else cached["tempo_bpm"]
    key = None if cached["key"] is None else Key(*cached["key"])
    return Entry(folder, cached["seconds"], tempo_bpm, np.array(cached["beats_s"], np.float64), key)


def _read_cached(path: Path) -> dict[str, Any]:
    """The analysis of a song; of a missing or damaged file {}, so that the song is analysed again."""
    try:
        return read_json(path, "the analysis of a song")
    except InputError:
        return {}


def retrieval(library: Library, facts: Facts, num_samples: int) -> np.ndarray:
    """The training band nearest in tempo and key, its beats aligned with the vocal's: float32 [num_samples], 24 kHz.

    `facts` are the vocal's: `Analysis(vocal)` for estimates from the vocal alone, the clip's `Truth` for the strongest
    form of this baseline. The same facts and library give the same band. Raises InputError where no training song is as
    long as the clip.

    The rule. A song is stretched to the vocal's tempo, or to half or double of it: then every second beat of the one
    falls on every beat of the other. Songs that need more than MAX_STRETCH come last. Among the others the least sum
    wins: steps on the circle of fifths (a relative key is half a step away; nothing is transposed), stretch in units of
    STRETCH_OF_A_FIFTH, OCTAVE_COST_FIFTHS for half and double tempo. The part of the song is played whose beats are
    nearest to the vocal's. For a vocal without beats the song of the nearest key is played from its start.
    """
    seconds = num_samples / RATE_HZ
    entry, rate = nearest(library, facts, seconds)
    start_s = _start_s(entry, rate, facts, seconds)

    first = round((start_s - rate * MARGIN_S) * RATE_HZ)
    part = _cut(entry.read(), first, round(rate * (seconds + 2 * MARGIN_S) * RATE_HZ))
    if abs(rate - 1) > LEAST_STRETCH:
        part = import_librosa().effects.time_stretch(part, rate=rate, n_fft=STRETCH_WINDOW)
    return _cut(part, round(MARGIN_S * RATE_HZ), num_samples)


def nearest(library: Library, facts: Facts, seconds: float) -> tuple[Entry, float]:
    """The song that `retrieval` plays by its rule, and the factor of its tempo: (song, rate)."""
    choices = [choice for entry in library.of_length(seconds) for choice in _choices(entry, facts, seconds)]
    _, entry, rate = min(choices, key=lambda choice: choice[0])
    return entry, rate


def _choices(entry: Entry, facts: Facts, seconds: float) -> list[tuple[tuple[float, float], Entry, float]]:
    """Ways to play a song with a vocal, (rank, song, rate) each; the least rank is the best."""
    known = facts.key is not None and entry.key is not None
    fifths = facts.key.distance(entry.key) if known else UNKNOWN_KEY_FIFTHS
    # Unstretched: the only choice without a tempo, and the last resort with one.
    choices = [((math.inf if math.isfinite(facts.tempo_bpm) else 0.0, fifths), entry, 1.0)]
    if math.isfinite(facts.tempo_bpm) and math.isfinite(entry.tempo_bpm):
        for octave in (1.0, 2.0, 0.5):
            rate = facts.tempo_bpm / (octave * entry.tempo_bpm)
            stretch = abs(math.log(rate))
            cost = fifths + stretch / math.log1p(STRETCH_OF_A_FIFTH) + OCTAVE_COST_FIFTHS * (octave != 1)
            if rate * seconds <= entry.seconds:
                choices.append(((max(stretch - math.log1p(MAX_STRETCH), 0.0), cost), entry, rate))
    return choices


def _start_s(entry: Entry, rate: float, facts: Facts, seconds: float) -> float:
    """The start, in seconds of the song, at which its beats, played at `rate`, fall on the vocal's.

    Every beat of the song is tried at the vocal's first beat; then all beats together determine the last milliseconds.
    """
    vocal_s = np.asarray(facts.beats_s)
    if not vocal_s.size or not entry.beats_s.size:
        return 0.0

    def offsets_s(start_s: float) -> np.ndarray:
        """From each of the vocal's beats to the nearest beat of the song as played: [N]."""
        played_s = (entry.beats_s - start_s) / rate
        apart = played_s[None] - vocal_s[:, None]
        return apart[np.arange(len(vocal_s)), np.abs(apart).argmin(axis=1)]

    best = ((math.inf, 0.0), 0.0)
    for beat_s in entry.beats_s:
        start_s = beat_s - rate * vocal_s[0]
        offsets = offsets_s(start_s)
        start_s += rate * float(np.median(offsets[np.abs(offsets) < 2 * BEAT_SIGMA_S]))
        closeness = float(np.exp(-0.5 * np.square(offsets_s(start_s) / BEAT_SIGMA_S)).sum())
        missing_s = max(-start_s, 0.0) + max(start_s + rate * seconds - entry.seconds, 0.0)
        best = min(best, ((missing_s, -closeness), start_s))
    return best[1]


def random_instrumental(library: Library, num_samples: int, seed: int) -> np.ndarray:
    """A random part of a random training band, determined by the seed: float32 [num_samples], 24 kHz.

    Raises InputError where no training song is as long as the clip.
    """
    rng = np.random.default_rng(seed)
    entries = library.of_length(num_samples / RATE_HZ)
    song = entries[rng.integers(len(entries))].read()
    return _cut(song, int(rng.integers(len(song) - num_samples + 1)), num_samples)


def silence(num_samples: int) -> np.ndarray:
    """float32 [num_samples] of zeros."""
    return np.zeros(num_samples, np.float32)


def click_track(beats_s: np.ndarray, num_samples: int) -> np.ndarray:
    """A click on every beat, float32 [num_samples], 24 kHz: bursts of noise, which have no pitch."""
    t_s = np.arange(round(CLICK_S * RATE_HZ)) / RATE_HZ
    click = np.random.default_rng(0).standard_normal(t_s.size) * np.exp(-t_s / CLICK_DECAY_S)
    click = (CLICK_PEAK * click / np.abs(click).max()).astype(np.float32)
    track = silence(num_samples)
    for first in np.round(np.asarray(beats_s) * RATE_HZ).astype(int):
        if 0 <= first < num_samples:
            track[first : first + click.size] = click[: num_samples - first]
    return track


def _cut(audio: np.ndarray, first: int, count: int) -> np.ndarray:
    """Samples `first` to `first + count` of audio [S], zeros outside it: float32 [count]."""
    inside = audio[max(first, 0) : max(first + count, 0)]
    before = min(max(-first, 0), count)
    return np.pad(np.asarray(inside, np.float32), (before, count - before - inside.size))
