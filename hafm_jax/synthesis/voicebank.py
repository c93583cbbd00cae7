"""Recorded voices: UTAU banks, a folder of syllables and an oto.ini that says where in each recording what is.

WORLD takes a recording apart into pitch, spectral envelope and aperiodicity. Of the pitch, only where there is one is
kept: `singer.py` sings it at any other. Syllables are analysed when they are first sung, in about 0.1 s, and kept.

Axes: F frames of FRAME_S, K points of the coarse frequency axis, S samples.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import soundfile

from hafm_jax.audio.reading import read_audio
from hafm_jax.common.errors import InputError, install, needed_for
from hafm_jax.common.files import read_bounded, reading
from hafm_jax.synthesis.phonemes import NASAL, Mora, mora_of

FRAME_S = 0.005  # WORLD's own
LONGEST_VOWEL_S = 0.8  # of a recording's vowel, what is kept for stretching: ours
_MARGIN_FRAMES = 10  # analysed before and after a syllable, so that its ends are as good as its middle
_NUM_POINTS = 128  # of the coarse axis, which is finer than harmonics at low frequencies: ours
_WIDEST_HZ = (60.0, 900.0)  # pitch of a bank, before it is known
_PITCH_SPREAD = 1.45  # within a bank; an octave error is beyond it
_BREATHS = re.compile(r"br(eath|[a-z]{2}\d)|息|吸|・")
_EXPECTED = "an UTAU voice (oto.ini and its recordings): take the folder of a singer, or leave this one out"


def world():
    """The package pyworld. Raises InputError where it is not installed."""
    with needed_for("recorded voices need pyworld", install("songs")), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import of pkg_resources, which setuptools 81 lacks
        import pyworld
    return pyworld


@dataclass(frozen=True)
class Entry:
    """A line of oto.ini, in seconds: from `offset_s` of the recording to `end_s`; `fixed_s`, `preutterance_s` (where
    the beat is) and `overlap_s` (how long the syllable before sounds too; may be negative) count from `offset_s`.

    `context` is the vowel before it, "-" at the start of a phrase, and None where any will do.
    """

    path: Path
    alias: str
    context: str | None
    mora: Mora | None
    offset_s: float
    fixed_s: float
    end_s: float
    preutterance_s: float
    overlap_s: float


@dataclass(frozen=True)
class Syllable:
    """An analysed entry. Its vowel is as loud and steady as those of the others.

    - envelope: float16 [F, K], natural logarithm of the power at `coarse_axis_hz`
    - aperiodicity: float16 [F, K], the share of noise in the amplitude, 0 to 1
    - voiced: bool [F]
    - beat, steady: frames of the preutterance and of the part that can be repeated, as a slice
    - overlap: frames
    """

    envelope: np.ndarray
    aperiodicity: np.ndarray
    voiced: np.ndarray
    beat: int
    overlap: int
    steady: slice


@dataclass(frozen=True)
class Bank:
    """A singer's recordings: the name of its folder, what can be sung, breaths, and lines of oto.ini left out, with
    the reason."""

    name: str
    entries: dict[tuple[str | None, Mora], tuple[Entry, ...]]
    breaths: tuple[Entry, ...]
    skipped: tuple[str, ...]
    _analysed: dict[Entry, Syllable] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def morae(self) -> tuple[Mora, ...]:
        """All that it can sing, sorted."""
        return tuple(sorted({mora for _, mora in self.entries}))

    @cached_property
    def pitch_hz(self) -> float:
        """Pitch it was recorded at: the median over some of its vowels."""
        first = [entries[0] for _, entries in sorted(self.entries.items(), key=lambda item: str(item[0]))]
        pitches_hz = []
        for entry in first[:: max(1, len(first) // 12)]:
            audio, rate_hz = _cut(entry, 0)
            pitches_hz.append(_pitch_hz(audio, rate_hz, *_WIDEST_HZ))
        pitches_hz = np.concatenate(pitches_hz)
        pitches_hz = pitches_hz[pitches_hz > 0]
        if not len(pitches_hz):
            raise InputError(f"the recordings of {self.name} have no pitch; expected sung syllables: leave it out")
        return float(np.median(pitches_hz))

    def find(self, context: str | None, mora: Mora) -> tuple[Entry, ...]:
        """Recordings of a mora after a vowel ("-" after a rest): the best kind that there is."""
        kinds = [context, None, "-", *"aiueon"]
        return next(self.entries[kind, mora] for kind in kinds if (kind, mora) in self.entries)

    def syllable(self, entry: Entry) -> Syllable:
        """Raises InputError where the recording cannot be read."""
        if entry not in self._analysed:
            self._analysed[entry] = _analyse(entry, self.pitch_hz)
        return self._analysed[entry]

    def breath(self, entry: Entry) -> tuple[np.ndarray, int]:
        """The recording of a breath: float [S], and its rate in Hz."""
        return _cut(entry, 0)


def load_banks(folder: Path) -> dict[str, Bank]:
    """The banks in a folder, by name: its folders that hold an oto.ini. Raises InputError where there is not one, and
    as `load_bank`."""
    with reading(Path(folder), "a folder of UTAU voices: fetch them, or name another"):
        found = sorted(path.parent for path in Path(folder).glob("*/oto.ini"))
    if not found:
        raise InputError(f"{folder} holds no voice; expected folders with an oto.ini: fetch them, or name another")
    return {path.name: load_bank(path) for path in found}


def load_bank(folder: Path) -> Bank:
    """Raises InputError where oto.ini cannot be read, or no line of it can be sung. A bad line costs that line."""
    index = Path(folder) / "oto.ini"
    with reading(index, _EXPECTED):
        content = read_bounded(index)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp932")  # Shift-JIS, as Windows writes it
    entries: dict[tuple[str | None, Mora], list[Entry]] = {}
    breaths, skipped = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";", "[")):
            continue
        try:
            entry = _parse(line, index.parent)
        except ValueError as error:
            skipped.append(f"{index}:{number}: {error}")
            continue
        if entry.mora is not None:
            entries.setdefault((entry.context, entry.mora), []).append(entry)
        elif _BREATHS.search(entry.alias):
            breaths.append(entry)
    if not any(mora != NASAL for _, mora in entries):
        reason = skipped[0] if skipped else f"{index} names no syllable in kana or romaji"
        raise InputError(f"{reason}; no line of it can be sung, expected {_EXPECTED}")
    frozen = {key: tuple(found) for key, found in entries.items()}
    return Bank(index.parent.name, frozen, tuple(breaths), tuple(skipped))


def _parse(line: str, folder: Path) -> Entry:
    """Raises ValueError with the reason why a line cannot be used."""
    name, equals, values = line.partition("=")
    alias, *numbers = values.split(",")
    if not equals or len(numbers) != 5:
        raise ValueError(f"{line.strip()!r} is not file=alias and five numbers")
    try:
        offset_s, fixed_s, cutoff_s, preutterance_s, overlap_s = (float(number or 0) / 1000 for number in numbers)
    except ValueError:
        raise ValueError(f"{line.strip()!r} holds a number that cannot be read") from None
    path = _recording(folder, name.strip())
    length_s = _length_s(path)
    end_s = offset_s - cutoff_s if cutoff_s < 0 else length_s - cutoff_s
    end_s = min(end_s, length_s, offset_s + max(fixed_s, preutterance_s) + LONGEST_VOWEL_S)
    alias = alias.strip() or path.stem
    match = re.fullmatch(r"(?:([-aiueon]) )?(\D+?)\d*", alias)
    context, mora = (match.group(1), mora_of(match.group(2))) if match else (None, None)
    least_s = preutterance_s if mora else 0.0
    if not (0 <= offset_s and preutterance_s >= 0 and fixed_s >= 0 and end_s - offset_s > least_s + 2 * FRAME_S):
        raise ValueError(f"{line.strip()!r} leaves nothing of the {length_s:.2f} s of {path.name}")
    return Entry(path, alias, context, mora, offset_s, min(fixed_s, end_s), end_s, preutterance_s, overlap_s)


def _recording(folder: Path, name: str) -> Path:
    """The file of this name, whatever lossless format it was turned into."""
    path = folder / name.replace("\\", "/")
    found = next((p for p in (path, path.with_suffix(".flac"), path.with_suffix(".wav")) if p.is_file()), None)
    if found is None or not found.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} is not among the recordings")
    return found


def _length_s(path: Path) -> float:
    try:
        return soundfile.info(path).duration
    except soundfile.LibsndfileError:
        raise ValueError(f"{path.name} is not audio") from None


@lru_cache(maxsize=2)  # lines of one recording follow each other
def _read(path: Path) -> tuple[np.ndarray, int]:
    audio, rate_hz = read_audio(path)
    return audio.mean(axis=0).astype(np.float64), rate_hz


def _cut(entry: Entry, margin_frames: int) -> tuple[np.ndarray, int]:
    """The entry and this much before and after it, with zeros where the recording has ended: float64 [S], rate."""
    audio, rate_hz = _read(entry.path)
    margin = round(margin_frames * FRAME_S * rate_hz)
    first, stop = round(entry.offset_s * rate_hz) - margin, round(entry.end_s * rate_hz) + margin
    piece = audio[max(first, 0) : stop]
    return np.pad(piece, (max(-first, 0), stop - max(first, 0) - len(piece))), rate_hz


def _pitch_hz(audio: np.ndarray, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Pitch by frame, 0 where there is none: float64 [F]."""
    rough_hz, times_s = world().dio(audio, rate_hz, f0_floor=low_hz, f0_ceil=high_hz, frame_period=1000 * FRAME_S)
    return world().stonemask(audio, rough_hz, times_s, rate_hz)


def coarse_axis_hz() -> np.ndarray:
    """Frequencies at which envelopes are kept, 0 to 24 kHz, denser below: float64 [K]."""
    return 600.0 * np.sinh(np.linspace(0, np.arcsinh(40.0), _NUM_POINTS))


def _analyse(entry: Entry, pitch_hz: float) -> Syllable:
    audio, rate_hz = _cut(entry, _MARGIN_FRAMES)
    if not audio.any():
        raise InputError(f"{entry.path} is silent where {entry.alias!r} should be; expected {_EXPECTED}")
    beat = round(entry.preutterance_s / FRAME_S) + _MARGIN_FRAMES
    f0_hz = _pitch_hz(audio, rate_hz, pitch_hz / _PITCH_SPREAD, pitch_hz * _PITCH_SPREAD)
    if np.mean(f0_hz[beat:] > 0) < 0.5:  # sung elsewhere than the others
        found_hz = _pitch_hz(audio, rate_hz, *_WIDEST_HZ)
        if found_hz.any():
            pitch_hz = float(np.median(found_hz[found_hz > 0]))
            f0_hz = _pitch_hz(audio, rate_hz, pitch_hz / _PITCH_SPREAD, pitch_hz * _PITCH_SPREAD)
    sounding = np.flatnonzero(f0_hz)
    if not len(sounding):  # a whisper: at the right pitch it is still a syllable
        f0_hz[:], sounding = pitch_hz, np.arange(len(f0_hz))
    # A vowel has no holes: it sounds from its first pitch after the consonant, at most 20 ms after the beat.
    begins = min(sounding[sounding >= beat - 4].min(initial=beat + 4), beat + 4)
    vowel = np.arange(begins, max(sounding[-1] + 1, begins + 1))
    f0_hz[vowel] = np.interp(vowel, sounding, f0_hz[sounding])
    times_s = np.arange(len(f0_hz)) * FRAME_S
    power = world().cheaptrick(audio, f0_hz, times_s, rate_hz)
    noise = world().d4c(audio, f0_hz, times_s, rate_hz, threshold=0.0)  # 0: voiced is what dio calls voiced
    bins_hz = np.linspace(0, rate_hz / 2, power.shape[1])
    points_hz = coarse_axis_hz()
    logs = np.log(np.maximum(power, 1e-14))
    # Beyond what was recorded, its last band continues: lowered formants and higher rates reach there.
    envelope = np.stack([np.interp(np.minimum(points_hz, 0.45 * rate_hz), bins_hz, row) for row in logs])
    aperiodicity = np.stack([np.interp(points_hz, bins_hz, row) for row in noise])
    level = np.log(power.mean(axis=1) + 1e-14)  # [F]

    last = len(f0_hz) - _MARGIN_FRAMES
    loud = (f0_hz > 0) & (level > level[beat:last].max() - 3.0)  # 13 dB
    loud = np.flatnonzero(loud[beat:last]) + beat
    stop = int(loud[-1]) + 1 if len(loud) else last
    start = min(round(entry.fixed_s / FRAME_S) + _MARGIN_FRAMES, max(stop - 8, beat))
    steady = np.arange(start, max(stop, start + 1))
    even = _running_mean(level[steady, None], 31)[:, 0]
    excess = np.full(len(level), even[0])
    excess[steady] = even
    excess[steady[-1] :] = even[-1]
    # The attack of a vowel is within 2 dB of it, 50 ms after the beat at the latest; some recordings swell for longer.
    late = np.clip((np.arange(len(level)) - beat) / 10, 0, 1)
    allowed = np.where(late > 0, 0.5 + 5 * (1 - late), np.inf)
    excess = np.clip(excess, level - 0.5, level + allowed)
    envelope -= excess[:, None]
    envelope[steady] = _running_mean(envelope[steady], 5)  # less of the recording's own roughness
    kept = slice(_MARGIN_FRAMES, steady[-1] + 1)
    return Syllable(
        envelope[kept].astype(np.float16),
        aperiodicity[kept].astype(np.float16),
        f0_hz[kept] > 0,
        beat - _MARGIN_FRAMES,
        round(entry.overlap_s / FRAME_S),
        slice(start - _MARGIN_FRAMES, int(steady[-1]) + 1 - _MARGIN_FRAMES),
    )


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Over `width` frames (odd), or as many as there are; ends held: [F, K] -> [F, K]."""
    width = min(width, len(values) - 1 + len(values) % 2)
    padded = np.pad(values, ((width // 2 + 1, width // 2), (0, 0)), mode="edge")
    sums = np.cumsum(padded, axis=0)
    return (sums[width:] - sums[:-width]) / width
