"""Analysis of a clip of music by librosa: its level, onsets, beats, tempo, chroma and key.

librosa's defaults are meant for whole songs at 22,050 Hz. The settings here are for clips of some seconds at 24,000 Hz:
frames of 10 ms instead of 23 (beats are compared within 70 ms, onsets within 50); no onsets at the clip's edges, where
the cut itself would be the loudest onset; onsets are not moved half a window later, which would make beats late; beats
are not trimmed at the ends, nor compressed to end with the clip; no tuning is estimated from a single clip; the window
for chroma separates the semitones of the bass; a rest is not made as loud as a chord.

The share of right answers on synthesised songs, whose truth is known, is in docs/evaluation.md.

Axes: S samples, T frames of the onset envelope (10 ms), F frames of level and chroma (100 ms), P pitch classes (12).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from hafm_jax.audio.music import Key
from hafm_jax.common.errors import install, needed_for
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ

# All constants but the profiles are ours.
ONSET_HOP = RATE_HZ // 100
ONSET_EDGE = 2  # hops in half a window
ONSET_WINDOW = 2 * ONSET_EDGE * ONSET_HOP
ONSET_RATE_HZ = RATE_HZ // ONSET_HOP
BEATS_BEYOND_S = 2.0  # of silence after the clip for the beat tracker
MEL_BANDS = 64  # the window of 40 ms does not resolve more: with librosa's 128 the lowest are empty
FRAME_RATE_HZ = 10  # of level and chroma
FRAME = RATE_HZ // FRAME_RATE_HZ
CHROMA_WINDOW = 8192  # 341 ms, bins of 2.9 Hz: semitones apart from about 100 Hz up
CHROMA_GATE = 0.02  # share of the loudest frame's power at which a frame's chroma is half of its full length
SHORTEST_S = 0.5  # of shorter audio only the level is defined
SOUNDING_DBFS = -50.0  # a frame with more RMS sounds: 30 dB below a band at its usual level
LEAST_BEATS = 3  # for a tempo: two intervals

# Temperley, "Music and Probability" (2007), table 6.1, of the Kostka-Payne corpus: the share of a key's passages that
# contain a pitch class, from the tonic up. Why not Krumhansl & Kessler's (1982): see docs/notebook.md.
KEY_PROFILES = {
    "major": (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
    "minor": (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
}


def import_librosa() -> Any:
    """librosa. Raises InputError where it is not installed."""
    with needed_for("analysing music needs librosa", install("evaluate")):
        import librosa
    return librosa


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis of two arrays [..., N] -> [...]; 0 where either is constant, as silence is."""
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (np.asarray(a, np.float64), np.asarray(b, np.float64)))
    norm = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product = (a * b).sum(axis=-1)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 1e-12)


class Analysis:
    """Analysis of `audio`, float32 [S], mono, 24 kHz. Each property is computed at its first use.

    Times are seconds from the clip's start. For silence and audio shorter than SHORTEST_S, onsets and beats are empty,
    the envelope and chroma 0, the tempo NaN and the key None. Raises ValueError on anything but one finite channel.
    """

    def __init__(self, audio: np.ndarray):
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 1 or not np.isfinite(audio).all():
            raise ValueError(f"audio of shape {audio.shape}, finite: {np.isfinite(audio).all()}; expected [S], finite")
        self.audio = audio

    @cached_property
    def level_dbfs(self) -> np.ndarray:
        """RMS of frame f, 100 ms around f / FRAME_RATE_HZ seconds: float64 [F], F = S // FRAME + 1; silence is -200."""
        padded = np.pad(self.audio.astype(np.float64), (FRAME // 2, FRAME))
        frames = padded[: (self.audio.size // FRAME + 1) * FRAME].reshape(-1, FRAME)
        return 10 * np.log10(np.square(frames).mean(axis=1) + 1e-20)

    @property
    def sounds(self) -> np.ndarray:
        """Whether a frame is above SOUNDING_DBFS: bool [F]."""
        return self.level_dbfs > SOUNDING_DBFS

    @property
    def _is_audible(self) -> bool:
        return self.audio.size >= SHORTEST_S * RATE_HZ and bool(self.sounds.any())

    @cached_property
    def onset_envelope(self) -> np.ndarray:
        """Onset strength, the mean rise in dB over mel bands, float32 [T] at ONSET_RATE_HZ, T = S // ONSET_HOP + 1.

        0 in frames that extend beyond the clip.
        """
        if not self._is_audible:
            return np.zeros(self.audio.size // ONSET_HOP + 1, np.float32)
        envelope = import_librosa().onset.onset_strength(
            y=self.audio,
            sr=RATE_HZ,
            n_fft=ONSET_WINDOW,
            hop_length=ONSET_HOP,
            n_mels=MEL_BANDS,
            center=False,  # frames are centred even so
        )
        envelope[: ONSET_EDGE + 1] = 0  # a rise is between two frames
        envelope[-ONSET_EDGE:] = 0
        return envelope

    @cached_property
    def onsets_s(self) -> np.ndarray:
        """The starts of notes and hits: float64 [N], rising. Peaks are relative to the clip's highest: a steady sound
        has onsets too, wherever it fluctuates, and noise has many.
        """
        return import_librosa().onset.onset_detect(
            onset_envelope=self.onset_envelope, sr=RATE_HZ, hop_length=ONSET_HOP, units="time"
        )

    @cached_property
    def beats_s(self) -> np.ndarray:
        """Beats by dynamic programming over the envelope (Ellis 2007), one tempo per clip: float64 [N], rising."""
        if not self.onset_envelope.any():
            return np.zeros(0)
        librosa = import_librosa()
        scale = {"sr": RATE_HZ, "hop_length": ONSET_HOP}
        # The tracker puts its last beat near the end and moves earlier beats for that: move the end away.
        _, beats_s = librosa.beat.beat_track(
            onset_envelope=np.pad(self.onset_envelope, (0, round(BEATS_BEYOND_S * ONSET_RATE_HZ))),
            bpm=librosa.feature.tempo(onset_envelope=self.onset_envelope, **scale),
            units="time",
            trim=False,
            **scale,
        )
        return beats_s[beats_s * RATE_HZ < self.audio.size]

    @cached_property
    def tempo_bpm(self) -> float:
        """The slope of the line through the beats, finer than librosa's own; NaN for fewer than LEAST_BEATS."""
        return tempo_of(self.beats_s)

    @cached_property
    def chroma(self) -> np.ndarray:
        """Power of the pitch classes, C first, in the frames of `level_dbfs`: float32 [F, P], each row of length 1.

        Rows are shorter in frames that are much softer than the clip's loudest: CHROMA_GATE.
        """
        if not self._is_audible:
            return np.zeros((len(self.level_dbfs), 12), np.float32)
        chroma = (
            import_librosa()
            .feature.chroma_stft(
                y=self.audio,
                sr=RATE_HZ,
                n_fft=CHROMA_WINDOW,
                hop_length=FRAME,
                norm=None,
                tuning=0.0,
                pad_mode="reflect",
            )
            .T
        )
        length = np.linalg.norm(chroma, axis=1, keepdims=True)
        return (chroma / (length + CHROMA_GATE * length.max())).astype(np.float32)

    @cached_property
    def key(self) -> Key | None:
        """The key whose profile is most like the clip's chroma (Krumhansl & Schmuckler); None for silence.

        Noise and drums get some key too.
        """
        return key_of(self.chroma.sum(axis=0))


def tempo_of(beats_s: np.ndarray) -> float:
    """Beats [N] in seconds -> their tempo in BPM, the slope of the line through them; NaN for fewer than LEAST_BEATS.

    Missing beats are counted: intervals are rounded to multiples of the median.
    """
    beats_s = np.asarray(beats_s, np.float64)
    if len(beats_s) < LEAST_BEATS:
        return float("nan")
    steps = np.diff(beats_s)
    numbers = np.concatenate([[0], np.cumsum(np.maximum(np.round(steps / np.median(steps)), 1))])
    return float(60 / np.polyfit(numbers, beats_s, 1)[0])


def key_of(chroma: np.ndarray) -> Key | None:
    """Chroma [P], C first -> the key whose profile correlates best with it; None where it is constant."""
    keys = [Key(tonic, mode) for mode in KEY_PROFILES for tonic in range(12)]
    profiles = np.array([np.roll(KEY_PROFILES[key.mode], key.tonic) for key in keys])  # [24, P]
    scores = correlation(chroma, profiles)
    return keys[int(np.argmax(scores))] if scores.any() else None
