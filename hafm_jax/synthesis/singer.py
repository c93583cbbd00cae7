"""Singers of the songs: recorded voices and variants of them, and now and then the formant singer.

A phrase is sung as a whole: syllables are placed so that their vowels start on the notes, their spectral envelopes
follow and blend into each other, vowels last as long as their notes, and WORLD gives them a pitch of our own.

Axes: S samples, F frames of FRAME_S, K points of the coarse frequency axis, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import soxr

from hafm_jax.synthesis import instruments
from hafm_jax.synthesis.composition import Note
from hafm_jax.synthesis.phonemes import NASAL, VOWELS, Mora, nearest_mora
from hafm_jax.synthesis.voicebank import FRAME_S, Bank, Entry, Syllable, coarse_axis_hz, world

UNSEEN_SINGERS = ("iona",)  # banks of the test split alone; the others sing in all splits
UNSEEN_SHARE = 0.5  # of the test songs, ours
FORMANT_SHARE = 0.1  # of all songs
FARTHEST_SEMITONES = 12  # from the pitch of the recordings: beyond it they sound like a tape at the wrong speed
MOST_WARP = 0.12  # formants up or down, as a share
LEVEL = 0.1  # RMS of a vowel, -20 dBFS; and no sample above PEAK
PEAK = 0.9
PHRASE_GAP_S = 0.12  # a rest this long ends a phrase
BREATH_GAP_S = 0.35
RELEASE_S = 0.07
LONGEST_PERIOD_HZ = (71.0, 142.0)  # the lower is WORLD's own; above the upper, spectra would become coarse (ours)
_STOPS = ("k", "t", "p", "ch", "ts", "ky", "py", "kw")  # their closure is silent
_NEPER = np.log(10) / 10  # of power, in a decibel


@dataclass(frozen=True)
class TimedNote:
    """A note to sing. `syllable` is its text; "" without words, "-" where the vowel before continues."""

    start_s: float
    end_s: float
    midi: int
    syllable: str = ""


@dataclass(frozen=True)
class RecordedSinger:
    """A bank and what makes another singer of it.

    - warp: factor of the formants' frequencies
    - tilt_db: brightness, dB an octave above 500 Hz
    - breathiness: share of noise added, 0 to 1
    - vibrato_hz, vibrato_semitones, vibrato_delay_s: rate, depth to one side, and how long a note is straight first
    """

    name: str
    bank: Bank
    midi_range: tuple[int, int]
    warp: float = 1.0
    tilt_db: float = 0.0
    breathiness: float = 0.0
    vibrato_hz: float = 5.5
    vibrato_semitones: float = 0.3
    vibrato_delay_s: float = 0.3


@dataclass(frozen=True)
class FormantSinger:
    """The synthetic voice of `instruments.py`: no words, any pitch."""

    name: str
    voice: instruments.Voice
    articulation: str

    @property
    def midi_range(self) -> tuple[int, int]:
        return self.voice.midi_range


Singer = RecordedSinger | FormantSinger


def range_of(singer: Singer) -> tuple[int, int]:
    """The lowest and the highest MIDI number that the singer should be given."""
    return singer.midi_range


def draw_singer(rng: np.random.Generator, banks: dict[str, Bank], split: str) -> Singer:
    """A singer for a song of this split: UNSEEN_SINGERS only for "test". Without banks, the formant singer."""
    unseen = [name for name in sorted(banks) if name in UNSEEN_SINGERS]
    names = [name for name in sorted(banks) if name not in UNSEEN_SINGERS]
    formant, is_unseen = rng.random(2) < (FORMANT_SHARE, UNSEEN_SHARE)
    if split == "test" and unseen and (is_unseen or not names):
        names = unseen
    if formant or not names:
        voice = instruments.VOICES[str(rng.choice(list(instruments.VOICES)))]
        shares = instruments.ARTICULATIONS
        return FormantSinger(f"formant {voice.name}", voice, str(rng.choice(list(shares), p=list(shares.values()))))
    bank = banks[str(rng.choice(names))]
    centre = round(69 + 12 * np.log2(bank.pitch_hz / 440))
    low = centre - int(rng.integers(5, 10))
    high = min(low + int(rng.integers(17, 21)), centre + FARTHEST_SEMITONES)
    return RecordedSinger(
        bank.name,
        bank,
        (low, high),
        warp=float(rng.uniform(1 - MOST_WARP, 1 + MOST_WARP)),
        tilt_db=float(rng.uniform(-2.5, 2.0)),
        breathiness=float(rng.uniform(0.0, 0.35) ** 2 * 2),
        vibrato_hz=float(rng.uniform(5.0, 6.5)),
        vibrato_semitones=float(rng.uniform(0.08, 0.45)),
        vibrato_delay_s=float(rng.uniform(0.15, 0.45)),
    )


def sing(
    notes: Sequence[TimedNote], singer: Singer, rng: np.random.Generator, num_samples: int, rate_hz: int
) -> np.ndarray:
    """Sing the notes, which are in order and do not overlap: float32 [S], a vowel at about LEVEL, no sample above PEAK.

    The same notes, singer and generator give the same samples, bit for bit, on the same machine. Raises InputError
    where a recording cannot be read.
    """
    sung = np.zeros(num_samples, np.float32)
    phrases = _phrases(notes)
    if isinstance(singer, FormantSinger):
        numbered = [
            Note(note.start_s, note.end_s, note.midi, velocity=float(rng.uniform(0.75, 1.0)), phrase=number)
            for number, phrase in enumerate(phrases)
            for note in phrase
        ]
        sung = instruments.sing(numbered, singer.voice, singer.articulation, rng, num_samples, rate_hz)
        sung *= np.float32(LEVEL / (np.sqrt(np.mean(sung[sung != 0] ** 2)) + 1e-9)) if sung.any() else 1
    else:
        free_s = 0.0
        for phrase in phrases:
            if phrase[0].start_s - free_s > BREATH_GAP_S and rng.random() < 0.8:
                _add(sung, _breath(singer.bank, rng, rate_hz), phrase[0].start_s - BREATH_GAP_S, rate_hz)
            start_s, sound = _sing_phrase(phrase, singer, rng, free_s, rate_hz)
            _add(sung, sound, start_s, rate_hz)
            free_s = phrase[-1].end_s
    return sung * np.float32(min(1.0, PEAK / (np.abs(sung).max(initial=0) + 1e-9)))


def _phrases(notes: Sequence[TimedNote]) -> list[list[TimedNote]]:
    phrases: list[list[TimedNote]] = []
    for note in notes:
        if not phrases or note.start_s - phrases[-1][-1].end_s >= PHRASE_GAP_S:
            phrases.append([])
        phrases[-1].append(note)
    return phrases


def _add(track: np.ndarray, sound: np.ndarray, start_s: float, rate_hz: int) -> None:
    """Add a sound to a track [S], cut at the track's ends."""
    start = round(start_s * rate_hz)
    first, stop = max(start, 0), min(start + len(sound), len(track))
    if stop > first:
        track[first:stop] += sound[first - start : stop - start]


def _breath(bank: Bank, rng: np.random.Generator, rate_hz: int) -> np.ndarray:
    """The singer's own breath, or noise where the bank has none, BREATH_GAP_S minus a pause: float32 [S]."""
    seconds = rng.uniform(0.2, BREATH_GAP_S - 0.06)
    if bank.breaths:
        recorded, recorded_hz = bank.breath(bank.breaths[int(rng.integers(len(bank.breaths)))])
        sound = soxr.resample(recorded, recorded_hz, rate_hz).astype(np.float32)
        middle = int(np.argmax(np.convolve(sound**2, np.ones(rate_hz // 20), "same")))  # recordings start in silence
        length = min(round(seconds * rate_hz), len(sound))
        first = min(max(middle - length // 2, 0), len(sound) - length)
        sound = sound[first : first + length]
    else:
        sound = instruments.shaped_noise(rng, seconds, rate_hz, rng.uniform(600, 1100), rng.uniform(3500, 6000))
    sound = sound * np.sin(np.pi * np.linspace(0, 1, len(sound)) ** 0.8).astype(np.float32)
    return sound * np.float32(LEVEL * 10 ** (rng.uniform(-34, -24) / 20) / (np.sqrt(np.mean(sound**2)) + 1e-9))


@dataclass(frozen=True)
class _Placed:
    """A syllable in a phrase: from which of its frames (`first`) at which frame of the phrase (`start`) it is sung,
    over how many it blends with the one before, and on which frame its note begins."""

    syllable: Syllable
    first: int
    start: int
    blend: int
    beat: int
    stops: bool


def _choose(phrase: Sequence[TimedNote], bank: Bank, rng: np.random.Generator) -> list[tuple[int, Entry]]:
    """Which notes begin a syllable, and the recording of each: the word's, or one drawn."""
    chosen = []
    context = "-"
    plain = [mora for mora in bank.morae if mora != NASAL and len(mora[0]) < 2] or list(bank.morae)
    for number, note in enumerate(phrase):
        if note.syllable.strip() == "-" and chosen:
            continue
        mora: Mora = nearest_mora(note.syllable, bank.morae) or plain[int(rng.integers(len(plain)))]
        entries = bank.find(context, mora)
        chosen.append((number, entries[int(rng.integers(len(entries)))]))
        context = mora[1] if mora[1] in VOWELS or mora == NASAL else None
    return chosen


def _sing_phrase(
    phrase: Sequence[TimedNote], singer: RecordedSinger, rng: np.random.Generator, free_s: float, rate_hz: int
) -> tuple[float, np.ndarray]:
    """Sing one phrase, which must not begin before `free_s`: its start in seconds and float32 [S]."""
    chosen = _choose(phrase, singer.bank, rng)
    lead_s = min(chosen[0][1].preutterance_s + 2 * FRAME_S, max(phrase[0].start_s - free_s - RELEASE_S, 0.03))
    start_s = phrase[0].start_s - lead_s
    notes = [(round((n.start_s - start_s) / FRAME_S), round((n.end_s - start_s) / FRAME_S)) for n in phrase]
    end = notes[-1][1]
    placed: list[_Placed] = []
    for number, entry in chosen:
        syllable = singer.bank.syllable(entry)
        beat = notes[number][0]
        # A preutterance longer than half of the note before (or than the rest) loses its head, as in UTAU.
        room = (beat - placed[-1].beat) // 2 if placed else beat
        lead = max(min(syllable.beat, room), min(2, beat))
        blend = round(max(syllable.overlap, 0) * lead / max(syllable.beat, 1))
        blend = int(np.clip(blend, 3, max(lead, 3)))
        stops = entry.context is None and entry.mora is not None and entry.mora[0] in _STOPS
        placed.append(_Placed(syllable, syllable.beat - min(lead, syllable.beat), beat - lead, blend, beat, stops))
    envelope, noise, voiced = _blend(placed, end)
    midi, level_db = _gestures(phrase, notes, placed, end, singer, rng)
    f0_hz = np.where(voiced, 440.0 * 2.0 ** ((midi - 69) / 12), 0.0)
    envelope = np.where(voiced[:, None], _open_jaw(envelope, midi, singer.warp), envelope)
    # WORLD's own rule, at the pitch that is sung: high voices need shorter spectra.
    size = world().get_cheaptrick_fft_size(rate_hz, float(np.clip(f0_hz[voiced].min(initial=1e9), *LONGEST_PERIOD_HZ)))
    power, noise = _spectra(envelope, noise, level_db, singer, np.linspace(0, rate_hz / 2, size // 2 + 1))
    sound = world().synthesize(f0_hz, power, noise, rate_hz, 1000 * FRAME_S)
    return start_s, sound.astype(np.float32)


def _blend(placed: Sequence[_Placed], end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Envelope and aperiodicity float [F, K] and voicing bool [F] of a phrase of `end` frames."""
    num_points = placed[0].syllable.envelope.shape[1]
    envelope, noise = np.full((end, num_points), -30, np.float32), np.ones((end, num_points), np.float32)  # silence
    voiced = np.zeros(end, bool)
    for here, after in [*pairwise(placed), (placed[-1], None)]:
        stop = min(after.start + after.blend, end) if after else end
        source = _source_frames(here, stop - here.start)
        target = slice(here.start, stop)
        weight = np.ones(stop - here.start, np.float32)
        if here is not placed[0]:
            blend = min(here.blend, len(weight))
            weight[:blend] = (np.arange(blend) + 1) / (blend + 1)
        keep = weight[:, None]
        envelope[target] += keep * (here.syllable.envelope[source] - envelope[target])
        noise[target] += keep * (here.syllable.aperiodicity[source] - noise[target])
        voiced[target] = np.where(weight >= 0.5, here.syllable.voiced[source], voiced[target])
    return envelope, noise, voiced


def _source_frames(placed: _Placed, count: int) -> np.ndarray:
    """Frames of the recording for `count` frames of song: its steady part goes there and back as long as needed."""
    frames = placed.first + np.arange(max(count, 0))
    steady = placed.syllable.steady
    length = steady.stop - steady.start
    if length < 2:
        return np.minimum(frames, steady.stop - 1)
    turn = np.abs((frames - steady.start + length - 1) % (2 * length - 2) - (length - 1))
    return np.where(frames < steady.start, frames, steady.start + turn)


def _open_jaw(envelope: np.ndarray, midi: np.ndarray, warp: float) -> np.ndarray:
    """Above its first formant a singer opens the jaw, so that the formant follows the pitch (Sundberg 1975): up to the
    fundamental an envelope does not fall, and after it by no more than 18 dB an octave. [F, K] -> [F, K]."""
    points_hz = coarse_axis_hz() * warp
    top_hz = 1.1 * 440.0 * 2.0 ** ((midi - 69) / 12)  # [F]
    highest = np.maximum.accumulate(envelope, axis=1)
    peak = np.take_along_axis(highest, np.searchsorted(points_hz, top_hz)[:, None], axis=1)
    octaves = np.log2(np.maximum(points_hz / top_hz[:, None], 1))
    return np.maximum(envelope, peak - 18 * _NEPER * octaves)


def _gestures(
    phrase: Sequence[TimedNote],
    notes: Sequence[tuple[int, int]],
    placed: Sequence[_Placed],
    end: int,
    singer: RecordedSinger,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Pitch (MIDI) and level (dB) of a phrase: [F] each."""
    midi, vibrato, bend = np.zeros(end), np.zeros(end), np.zeros(end)
    level_db = np.zeros(end)
    middle = sum(singer.midi_range) / 2
    glide = int(rng.integers(6, 11))  # frames to each side
    loudest = rng.uniform(0.3, 0.8)  # where in the phrase
    for number, (note, (first, stop)) in enumerate(zip(phrase, notes, strict=True)):
        # The glide ends a little after the beat; in a long note before the beat it starts no sooner.
        turn = max(first - glide // 2, 0) if number else 0
        midi[turn:] = note.midi + np.clip(rng.normal(0, 0.06), -0.15, 0.15)
        since_s = np.arange(stop - first) * FRAME_S
        depth = singer.vibrato_semitones * rng.uniform(0.6, 1.0)
        vibrato[first:stop] = depth * np.clip((since_s - singer.vibrato_delay_s) / 0.3, 0, 1)
        if number == 0 or rng.random() < 0.15:
            bend[first:stop] -= rng.uniform(0.0, 0.9) * np.exp(-since_s / 0.035)
        place = (first / max(end, 1) - loudest) ** 2
        level_db[turn:] = 0.25 * np.clip(note.midi - middle, -8, 8) - 5 * place + rng.normal(0, 0.8)
    whole = np.arange(end)
    drift = instruments.smooth(rng.normal(0, 1, end), 81) * 9  # of about unit variance
    wave = np.sin(2 * np.pi * (np.cumsum(singer.vibrato_hz * (1 + 0.04 * drift)) * FRAME_S + rng.random()))
    vibrato = instruments.smooth(vibrato, 9)
    midi = instruments.smooth(midi, 2 * glide + 1) + vibrato * wave + bend
    midi += 0.05 * drift + 0.025 * instruments.smooth(rng.normal(0, 1, end), 3)
    level_db = (
        instruments.smooth(level_db, 15) + 1.5 * vibrato * wave + 0.3 * instruments.smooth(rng.normal(0, 1, end), 3)
    )
    level_db -= 60 * np.clip(1 - whole / 3, 0, 1) + 60 * np.clip(1 - (end - 1 - whole) * FRAME_S / RELEASE_S, 0, 1) ** 2
    for here in placed[1:]:
        if here.stops:
            level_db[max(here.start - 5, 0) : here.start] -= 24
    return midi, level_db


def _spectra(
    envelope: np.ndarray, noise: np.ndarray, level_db: np.ndarray, singer: RecordedSinger, bins_hz: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Power and aperiodicity as WORLD takes them, float64 [F, B], of the warped and tilted singer."""
    points_hz = coarse_axis_hz()
    place = np.interp(bins_hz / singer.warp, points_hz, np.arange(len(points_hz)))
    below = np.minimum(place.astype(int), len(points_hz) - 2)
    share = (place - below).astype(np.float32)
    octaves = np.clip(np.log2(np.maximum(bins_hz, 1) / 500), 0, 4)
    # Louder is brighter: a quarter of a decibel an octave for each (ours).
    tilt_db = np.outer(singer.tilt_db + 0.25 * np.clip(level_db, -6, 6), octaves)
    logs = envelope[:, below] * (1 - share) + envelope[:, below + 1] * share
    power = LEVEL**2 * np.exp(logs + _NEPER * (level_db[:, None] + tilt_db))
    air = noise[:, below] * (1 - share) + noise[:, below + 1] * share
    air += (1 - air) * singer.breathiness * np.clip(bins_hz / 4000, 0, 1)
    # The library takes contiguous float64 only.
    return power.astype(np.float64, order="C"), np.clip(air, 0.001, 1 - 1e-6).astype(np.float64, order="C")
