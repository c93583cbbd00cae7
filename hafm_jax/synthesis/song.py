"""Procedural songs with known key, tempo, beats, chords and melody: a singer and the band that accompanies it.

They replace recorded songs where there are none: to train the demo, to test every part on material whose truth is
known, and to try a training set-up before real data. `synthesize_song` is the entry point; the same seed gives the same
song, bit for bit, on the same machine. `composition.py` writes the score from the tables of `patterns.py`,
`instruments.py` makes the sounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hafm_jax.audio.music import TONICS
from hafm_jax.audio.songs import SPLITS
from hafm_jax.synthesis.composition import Note, Score, compose
from hafm_jax.synthesis.instruments import ARTICULATIONS, TIMBRES, VOICES, Timbre, drum_kit, render_note, sing
from hafm_jax.synthesis.patterns import BASS_INSTRUMENTS
from hafm_jax.synthesis.room import fft_size

_SEEDS_PER_SPLIT = 4  # the split is the seed modulo 4
_MAX_SONGS = 2**32

PEAK = 0.9  # neither track goes above it
RMS = 0.1  # -20 dBFS: the voice while it sings, the band throughout
LOWEST_RATE_HZ = 8_000
SHORTEST_NOTE_S = 0.12  # a note that the song's end cuts shorter is not sung
FADE_OUT_S = 0.03


@dataclass(frozen=True)
class Song:
    """`vocals` and `instrumental` float32 [S], mono, -1 to 1, equally long; `info` can be written as JSON."""

    vocals: np.ndarray
    instrumental: np.ndarray
    info: dict[str, Any]


def song_seed(split: str, index: int, base_seed: int) -> int:
    """The seed of song `index` of a split. No two splits share one, whatever the base seeds and indices.

    By construction: the seed modulo 4 is the split's number, and the quotient encodes (base_seed, index) uniquely.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if not 0 <= index < _MAX_SONGS or base_seed < 0:
        raise ValueError(f"index {index} is outside 0 to {_MAX_SONGS - 1}, or base seed {base_seed} is negative")
    return (base_seed * _MAX_SONGS + index) * _SEEDS_PER_SPLIT + SPLITS.index(split)


def synthesize_song(seed: int, seconds: float, sample_rate_hz: int = 24_000) -> Song:
    """Compose and render one song of exactly round(seconds * sample_rate_hz) samples.

    Raises ValueError on less than 1 s, a rate below LOWEST_RATE_HZ, or a negative seed.
    """
    if seconds < 1:
        raise ValueError(f"a song has at least 1 s, not {seconds} s")
    if sample_rate_hz < LOWEST_RATE_HZ:
        raise ValueError(f"the sample rate is at least {LOWEST_RATE_HZ} Hz, not {sample_rate_hz} Hz")
    # Separate streams: no part's draws change another part, and a song's score is the same at every length and rate.
    rng, score_rng, voice_rng, band_rng = np.random.Generator(np.random.PCG64(seed)).spawn(4)
    num_samples = round(seconds * sample_rate_hz)
    voice = VOICES[str(rng.choice(list(VOICES)))]
    score = compose(score_rng, seconds, voice.midi_range)
    score.melody = [
        replace(note, end_s=min(note.end_s, seconds))
        for note in score.melody
        if note.start_s < seconds - SHORTEST_NOTE_S
    ]
    level_rng, reverb_rng = rng.spawn(2)
    articulation = str(voice_rng.choice(list(ARTICULATIONS), p=list(ARTICULATIONS.values())))
    reverb = _reverb_response(reverb_rng, sample_rate_hz)
    vocal_wet, band_wet = np.float32(level_rng.uniform((0.0, 0.05), (0.12, 0.25)))
    vocal_rms, band_rms = RMS * 10 ** (level_rng.uniform(-1.5, 1.5, 2) / 20)

    vocals = sing(score.melody, voice, articulation, voice_rng, num_samples, sample_rate_hz)
    vocals = _finish(vocals, reverb * vocal_wet, sample_rate_hz)
    vocals = _level(vocals, _sung(score.melody, num_samples, sample_rate_hz), vocal_rms)

    band = _render_band(score, band_rng, num_samples, sample_rate_hz)
    band = _finish(band, reverb * band_wet, sample_rate_hz)
    band = _level(band, slice(None), band_rms)
    return Song(vocals, band, _describe(score, voice.name, articulation, seed, seconds, sample_rate_hz))


def _render_band(score: Score, rng: np.random.Generator, num_samples: int, rate_hz: int) -> np.ndarray:
    """All parts, at this song's balance: float32 [S]."""
    band = np.zeros(num_samples, np.float32)
    for instrument, notes in score.parts.items():
        timbre = _vary(TIMBRES[instrument], rng)
        track = np.zeros(num_samples, np.float32)
        cache: dict[tuple[int, int], np.ndarray] = {}
        for note in notes:
            length_ms = round(1000 * (note.end_s - note.start_s))
            key = (note.midi, length_ms)
            if note.start_s * rate_hz < num_samples and key not in cache:
                cache[key] = render_note(timbre, note.midi, length_ms / 1000, rate_hz)
            if key in cache:
                _add(
                    track,
                    cache[key] * np.float32(note.velocity),
                    note.start_s * rate_hz + rng.normal(0, 0.002 * rate_hz),
                )
        # Bass and chords at equal power, but for the song's own balance.
        gain_db = rng.uniform(-3, 3) + (2 if instrument in BASS_INSTRUMENTS else 0)
        band += track * np.float32(10 ** (gain_db / 20) * RMS / np.sqrt(np.mean(track**2) + 1e-9))
    if score.drums:
        kit = drum_kit(rng, rate_hz)
        drums = np.zeros(num_samples, np.float32)
        for start_s, drum, velocity in score.drums:
            _add(drums, kit[drum] * np.float32(velocity * rng.uniform(0.85, 1.0)), start_s * rate_hz)
        gain_db = rng.uniform(-5, 1)
        band += drums * np.float32(10 ** (gain_db / 20) * RMS / np.sqrt(np.mean(drums**2) + 1e-9))
    return band


def _vary(timbre: Timbre, rng: np.random.Generator) -> Timbre:
    """A variant of the instrument: a little brighter or duller, longer or shorter."""
    exponent = rng.uniform(-0.25, 0.2)
    amplitudes = tuple(a * (k + 1) ** exponent for k, a in enumerate(timbre.amplitudes))
    factor = rng.uniform(0.75, 1.3)
    return replace(
        timbre,
        amplitudes=amplitudes,
        decay_per_s=timbre.decay_per_s * factor,
        decay_slope_per_s=timbre.decay_slope_per_s * factor,
    )


def _add(track: np.ndarray, sound: np.ndarray, start: float) -> None:
    """Add a sound [S'] to the track [S] from sample `start` on, cut at the track's ends."""
    first = max(round(start), 0)
    count = min(len(sound), len(track) - first)
    if count > 0:
        track[first : first + count] += sound[:count]


def _reverb_response(rng: np.random.Generator, rate_hz: int) -> np.ndarray:
    """Impulse response of a small room, float32 [S], unit energy, without the direct sound."""
    decay_s = rng.uniform(0.06, 0.18)
    t_s = np.arange(int(4 * decay_s * rate_hz)) / rate_hz
    noise = rng.standard_normal(len(t_s), dtype=np.float32)
    noise = (noise + np.roll(noise, 1)) * (np.exp(-t_s / decay_s) * (t_s > 0.008)).astype(
        np.float32
    )  # rooms damp high frequencies
    return noise / np.sqrt(np.sum(noise**2))


def _finish(track: np.ndarray, reverb: np.ndarray, rate_hz: int) -> np.ndarray:
    """Room, no DC and no rumble (second-order high-pass at 30 Hz), and a short fade at the end: float32 [S]."""
    size = fft_size(len(track) + len(reverb))
    f_hz = np.fft.rfftfreq(size, 1 / rate_hz).astype(np.float32)
    response = np.fft.rfft(reverb, size) + 1
    response *= f_hz**2 / (f_hz**2 + np.float32(30.0) ** 2)
    track = np.fft.irfft(np.fft.rfft(track, size) * response, size)[: len(track)].astype(np.float32)
    fade = int(FADE_OUT_S * rate_hz)
    track[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return track - track.mean()


def _sung(melody: list[Note], num_samples: int, rate_hz: int) -> np.ndarray:
    """True where a note is sung: bool [S]."""
    mask = np.zeros(num_samples, bool)
    for note in melody:
        mask[int(note.start_s * rate_hz) : int(note.end_s * rate_hz)] = True
    return mask


def _level(track: np.ndarray, where: np.ndarray | slice, rms: float) -> np.ndarray:
    """Scale to this RMS over `where`, or to the peak PEAK if that is less: float32 [S]."""
    scale = rms / (np.sqrt(np.mean(track[where] ** 2)) + 1e-9)
    return track * np.float32(min(scale, PEAK / (np.abs(track).max() + 1e-9)))


def _describe(score: Score, voice: str, articulation: str, seed: int, seconds: float, rate_hz: int) -> dict[str, Any]:
    """The contents of `song.json`: the truth about the song, with times in seconds from its start."""
    feel = score.feel
    beats_s = [round(float(t), 6) for t in np.arange(score.first_downbeat_s, seconds, score.beat_s)]
    chords = [(score.time_s(c.start_slot), min(score.time_s(c.end_slot), seconds), c) for c in score.chords]
    return {
        "seed": seed,
        "sample_rate_hz": rate_hz,
        "seconds": seconds,
        "key": TONICS[score.tonic],
        "mode": score.mode,
        "tempo_bpm": score.tempo_bpm,
        "metre": feel.metre,
        "feel": feel.name,
        "beats_per_bar": feel.beats_per_bar,
        "beats_s": beats_s,
        "downbeats_s": beats_s[:: feel.beats_per_bar],
        "chords": [
            {"start_s": round(start, 6), "end_s": round(end, 6), "name": c.name, "pitch_classes": list(c.pitch_classes)}
            for start, end, c in chords
            if start < seconds
        ],
        "melody": [{"start_s": round(n.start_s, 6), "end_s": round(n.end_s, 6), "midi": n.midi} for n in score.melody],
        "voice": voice,
        "articulation": articulation,
        "instruments": [*score.parts, *(["drums"] if score.drums else [])],
        "patterns": score.patterns,
    }
