"""Bands that no model made: the nearest training song, any training song, silence, clicks.

They are the floor of the evaluation's table: a model that does not beat `retrieval` has learnt less than a search in
its own training set finds, and what silence and clicks score is what a metric gives for nothing.

Axes: S samples, N beats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from hafm_jax.audio.files import read_audio, resample, stem_file, to_mono
from hafm_jax.audio.music import Key, read_song
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import make_folder, write_json
from hafm_jax.common.work import do_all
from hafm_jax.evaluation.clips import reason
from hafm_jax.metrics.analysis import import_librosa
from hafm_jax.metrics.coherence import Truth
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ

ANALYSIS_VERSION = 1  # of what is kept of a song: another number, and kept analyses are made again

# All constants are ours.
MAX_SONG_S = 60.0  # of a training song that is heard and played: bounds time and memory for whole recordings
MAX_STRETCH = 0.08  # of tempo, either way: beyond, the phase vocoder smears drums and another song is better
STRETCH_OF_A_FIFTH = 0.04  # a song one fifth further off is taken for 4 % less of stretching
OCTAVE_COST_FIFTHS = 1.0  # a band at half or double the tempo moves otherwise: it has to be a fifth nearer
UNKNOWN_KEY_FIFTHS = 3.0  # the mean over all keys
LEAST_STRETCH = 2e-4  # 2 ms in 10 s
BEAT_SIGMA_S = 0.04  # how near a beat is: Cemgil's accuracy, as in mir_eval.beat
STRETCH_WINDOW = 512  # librosa's 2048 puts onsets 30 ms early, as pre-echo; chords suffer no more from this one
MARGIN_S = 0.25  # more audio at either end than is needed, so that the vocoder's edges are cut off
CLICK_S, CLICK_DECAY_S, CLICK_PEAK = 0.06, 0.012, 0.5


class Facts(Protocol):
    """What `retrieval` must know of a vocal, in the clip's seconds: its `Analysis` has it, and so has a `Truth`."""

    @property
    def beats_s(self) -> np.ndarray: ...

    @property
    def tempo_bpm(self) -> float: ...

    @property
    def key(self) -> Key | None: ...


@dataclass(frozen=True)
class Entry:
    """A training song: the folder its instrumental is in, and what is known of the first `seconds` of it."""

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
    """Training songs to choose bands from; `left_out` says of songs that cannot be used why: id -> reason."""

    entries: tuple[Entry, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def build(cls, folders: Sequence[Path], cache: Path, workers: int) -> Library:
        """Of songs' folders.

        Beats, tempo and key come from song.json where it has them, else from an analysis of the instrumental's first
        MAX_SONG_S. They are kept in `cache`/ID.json, so that a build that was stopped goes on, and a second one only
        reads. What is kept of a song whose file has changed since is made again. Raises InputError where none of the
        songs can be used, or `cache` cannot be written.
        """
        make_folder(cache, "folder")
        done = do_all(partial(_entry_or_reason, cache), folders, workers)
        found = dict(tqdm(done, total=len(folders), unit="song", desc="retrieval library"))
        entries = tuple(found[f] for f in folders if isinstance(found[f], Entry))
        left_out = {f.name: found[f] for f in folders if isinstance(found[f], str)}
        if not entries:
            raise InputError(
                f"of {len(folders)} songs for retrieval none can be used, the first because: "
                f"{next(iter(left_out.values()), 'there is none')}; give another songs folder"
            )
        return cls(entries, left_out)

    def of_length(self, seconds: float) -> list[Entry]:
        """Entries with at least so much music. Raises InputError where there are none."""
        entries = [entry for entry in self.entries if entry.seconds >= seconds]
        if not entries:
            raise InputError(
                f"the longest of {len(self.entries)} training songs has {max(e.seconds for e in self.entries):.1f} s; "
                f"expected {seconds:.1f} s, a clip's length: give longer songs, or shorter clips"
            )
        return entries


def _read_instrumental(folder: Path) -> np.ndarray:
    audio, rate_hz = read_audio(stem_file(folder, "instrumental"), MAX_SONG_S)
    return resample(to_mono(audio), rate_hz, RATE_HZ)


def _entry_or_reason(cache: Path, folder: Path) -> Entry | str:
    try:
        file = stem_file(folder, "instrumental").stat()
        source = {"version": ANALYSIS_VERSION, "bytes": file.st_size, "changed_ns": file.st_mtime_ns}
        kept = _read_kept(cache / f"{folder.name}.json")
        if kept.get("source") != source:
            audio = _read_instrumental(folder)
            truth = Truth.of_clip(audio, read_song(folder))
            if not truth.reference.sounds.any():
                return f"its first {audio.size / RATE_HZ:.1f} s are silent"
            kept = {
                "source": source,
                "seconds": audio.size / RATE_HZ,
                "tempo_bpm": None if math.isnan(truth.tempo_bpm) else truth.tempo_bpm,
                "beats_s": truth.beats_s.tolist(),
                "key": truth.key,
            }
            write_json(cache / f"{folder.name}.json", kept)
    except Exception as error:
        return reason(error)
    tempo_bpm = math.nan if kept["tempo_bpm"] is None else kept["tempo_bpm"]
    key = None if kept["key"] is None else Key(*kept["key"])
    return Entry(folder, kept["seconds"], tempo_bpm, np.array(kept["beats_s"], np.float64), key)


def _read_kept(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def retrieval(library: Library, facts: Facts, num_samples: int) -> np.ndarray:
    """The training band nearest in tempo and key, its beats laid upon the vocal's: float32 [num_samples], 24 kHz.

    `facts` are the vocal's: `Analysis(vocal)` for what can be heard in the vocal alone, the clip's `Truth` for the
    strongest form of this baseline. The same facts and library give the same band. Raises InputError where no training
    song is as long as the clip.

    The rule. A song is stretched to the vocal's tempo, or to half or double of it: then every second beat of the one
    still falls on every beat of the other. Songs that need more than MAX_STRETCH come last. Among the others that with
    the least sum is taken: steps on the circle of fifths (a relative key is half a step away; nothing is transposed),
    stretch in units of STRETCH_OF_A_FIFTH, OCTAVE_COST_FIFTHS for half and double tempo. Of the song, that part is
    played whose beats come nearest to the vocal's. For a vocal without beats the nearest key is played from its start.
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
    """The song that `retrieval` plays, by the rule that stands there, and how much faster than it is: (song, rate)."""
    choices = [choice for entry in library.of_length(seconds) for choice in _choices(entry, facts, seconds)]
    _, entry, rate = min(choices, key=lambda choice: choice[0])
    return entry, rate


def _choices(entry: Entry, facts: Facts, seconds: float) -> list[tuple[tuple[float, float], Entry, float]]:
    """Ways to play a song to a vocal: (rank, song, rate), the least rank is the best."""
    known = facts.key is not None and entry.key is not None
    fifths = facts.key.distance(entry.key) if known else UNKNOWN_KEY_FIFTHS
    # As it is: all that can be done without a tempo, and the last resort with one.
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
    """From where on to play the song at `rate`, so that its beats fall on the vocal's: seconds of the song.

    Every beat of the song is tried under the vocal's first; then all beats together decide about the last milliseconds.
    """
    vocal_s = np.asarray(facts.beats_s)
    if not vocal_s.size or not entry.beats_s.size:
        return 0.0

    def offsets_s(start_s: float) -> np.ndarray:
        """From each of the vocal's beats to the nearest of the song's, as it is played: [N]."""
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
    """Any part of any training band, the same for the same seed: float32 [num_samples], 24 kHz.

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
    """A click on every beat, float32 [num_samples], 24 kHz: bursts of noise, so that they have no pitch."""
    t_s = np.arange(round(CLICK_S * RATE_HZ)) / RATE_HZ
    click = np.random.default_rng(0).standard_normal(t_s.size) * np.exp(-t_s / CLICK_DECAY_S)
    click = (CLICK_PEAK * click / np.abs(click).max()).astype(np.float32)
    track = silence(num_samples)
    for first in np.round(np.asarray(beats_s) * RATE_HZ).astype(int):
        if 0 <= first < num_samples:
            track[first : first + click.size] = click[: num_samples - first]
    return track


def _cut(audio: np.ndarray, first: int, count: int) -> np.ndarray:
    """Samples `first` to `first + count` of audio [S], zeros where there are none: float32 [count]."""
    out = np.zeros(count, np.float32)
    inside = audio[max(first, 0) : max(first + count, 0)]
    out[max(-first, 0) : max(-first, 0) + inside.size] = inside
    return out
