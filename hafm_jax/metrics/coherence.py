"""Does this band go with this vocal? Measures of a clip: time, pitch and presence.

    beat_f               0 to 1       beats of the band on the song's beats
    tempo_error_percent  0 up         its tempo against the song's
    onset_f              0 to 1       its onsets against the true band's
    lag_ms               -250 to 250  how late it plays
    lag_strength         -1 to 1      its rhythm against the true band's
    chroma_melody        -1 to 1      its harmony against the vocal
    chroma_chords        -1 to 1      its harmony against the chords
    key_score            0 to 1       its key against the song's
    coverage             0 to 1       its sound where the true band sounds

Each measure alone is fooled by something that is not an accompaniment; its docstring names it. Therefore compare each
one with bands of known rank: the true band, another song's band, clicks on the beats, a held tonic chord, noise, the
vocal as its own band. Their means on synthesised songs are in docs/evaluation.md.

A measure is NaN where it is undefined for a clip, never where a band is bad; its docstring names the cases.

Axes: S samples, T frames of the onset envelope (10 ms), F frames of level and chroma (100 ms), P pitch classes (12).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.audio.music import TONICS, Key
from hafm_jax.common.errors import install, needed_for
from hafm_jax.metrics.analysis import FRAME_RATE_HZ, ONSET_RATE_HZ, Analysis, correlation
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ as RATE_HZ

BEAT_WINDOW_S = 0.07  # mir_eval's default, after Davies et al. 2009
ONSET_WINDOW_S = 0.05  # mir_eval's default, as in MIREX
TEMPO_FACTORS = (1 / 3, 1 / 2, 1, 2, 3)  # tempi that a listener may also tap: "accuracy 2" of Gouyon et al. 2006
MAX_LAG_S = 0.25  # ours: half a beat at 120 BPM; at a larger lag another beat is nearer
ENVELOPE_BLUR_S = 0.02  # ours: standard deviation of the blur, with which hits 20 ms apart still overlap
HARMONY_FRAMES = 5  # ours: chroma is compared over half a second, about a beat


class Chord(NamedTuple):
    """`pitch_classes` sound from `start_s` to `end_s` of the clip; 0 is C."""

    start_s: float
    end_s: float
    pitch_classes: tuple[int, ...]


@dataclass(frozen=True)
class Truth:
    """The ground truth of a clip. Times are seconds of the clip; beats are float64. An unknown tempo is NaN; an unknown
    key and unknown chords are None.

    `reference` is the true instrumental. Its analysis replaces everything that is not known otherwise.
    """

    reference: Analysis
    beats_s: np.ndarray
    tempo_bpm: float
    key: Key | None
    chords: tuple[Chord, ...] | None

    @classmethod
    def of_clip(cls, reference: np.ndarray, song: Mapping[str, Any], start_s: float = 0.0) -> Truth:
        """Of the clip from `start_s` of its song on, whose true instrumental is `reference` (float32 [S], 24 kHz).

        `song` is the content of song.json (see `audio.music.read_song`): its beats, tempo, key and chords are cut to
        the clip. Beats, tempo and key that it lacks come from an analysis of `reference`. Dorian counts as minor.
        """
        analysis = Analysis(reference)
        seconds = analysis.audio.size / RATE_HZ
        if "beats_s" in song:
            beats_s = np.asarray(song["beats_s"], np.float64) - start_s
            beats_s = beats_s[(beats_s >= 0) & (beats_s < seconds)]
        else:
            beats_s = analysis.beats_s
        tempo_bpm = float(song["tempo_bpm"]) if "tempo_bpm" in song else analysis.tempo_bpm
        if "key" in song and "mode" in song:
            key = Key(TONICS.index(song["key"]), "major" if song["mode"] == "major" else "minor")
        else:
            key = analysis.key
        chords = None
        if "chords" in song:
            times = [(c["start_s"] - start_s, c["end_s"] - start_s, c["pitch_classes"]) for c in song["chords"]]
            chords = tuple(
                Chord(max(start, 0.0), min(end, seconds), tuple(tones))
                for start, end, tones in times
                if start < seconds and end > 0
            )
        return cls(analysis, beats_s, tempo_bpm, key, chords)


def measure(vocal: np.ndarray, instrumental: np.ndarray, truth: Truth) -> dict[str, float]:
    """All measures of one band for one vocal, by name; both float32 [S] at 24 kHz, as long as the truth's reference.

    Raises ValueError where lengths differ or a sample is NaN or infinite. Silence, noise and clicks have measures too.
    """
    voice, band = Analysis(vocal), Analysis(instrumental)
    if not voice.audio.size == band.audio.size == truth.reference.audio.size:
        raise ValueError(
            f"vocal, instrumental and reference have {voice.audio.size}, {band.audio.size} and "
            f"{truth.reference.audio.size} samples; expected one length"
        )
    lag_ms, lag_strength = lag(band, truth)
    return {
        "beat_f": beat_f(band, truth),
        "tempo_error_percent": tempo_error_percent(band, truth),
        "onset_f": onset_f(band, truth),
        "lag_ms": lag_ms,
        "lag_strength": lag_strength,
        "chroma_melody": chroma_melody(band, voice),
        "chroma_chords": chroma_chords(band, truth),
        "key_score": key_score(band, truth),
        "coverage": coverage(band, truth),
    }


def _mir_eval() -> Any:
    with needed_for("scoring beats and keys needs mir_eval", install("evaluate")):
        import mir_eval
    return mir_eval


def beat_f(band: Analysis, truth: Truth) -> float:
    """F-measure of the beats detected in the band against the song's, within 70 ms: 0 to 1. NaN where the song
    has none.

    All beats of the clip count; mir_eval's usual trimming of the first 5 s is meant for whole songs. Half or double the
    tempo gets 2/3 at most. Fooled by anything with the right pulse, such as a click track. Chance is well above 0, as
    another song's band shows: there is a beat every half second. The true band is below 1 where its beats are not
    found.
    """
    if not truth.beats_s.size:
        return float("nan")
    if not band.beats_s.size:
        return 0.0
    return float(_mir_eval().beat.f_measure(truth.beats_s, band.beats_s, BEAT_WINDOW_S))


def tempo_error_percent(band: Analysis, truth: Truth) -> float:
    """The distance of the band's tempo from the song's or from its third, half, double or triple, whichever is nearest:
    in percent of that, 0 up. NaN where either has no tempo, as for silence.

    Fooled as `beat_f` is, and by a band of the right tempo in the wrong place, which `beat_f` and `lag` reveal. With
    five tempi allowed no band is far away: another song's band shows the level of chance.
    """
    allowed = truth.tempo_bpm * np.array(TEMPO_FACTORS)
    return float(100 * np.min(np.abs(band.tempo_bpm / allowed - 1)))


def onset_f(band: Analysis, truth: Truth) -> float:
    """F-measure of the band's onsets against the true band's, within 50 ms: 0 to 1. NaN where the true band has none.

    It compares with the true band's own rhythm, and there are many other good ones: do not expect 1 of a new band.
    Fooled by playing everywhere, and by any pulse on the grid: noise and clicks show how much.
    """
    reference_s = truth.reference.onsets_s
    if not reference_s.size:
        return float("nan")
    if not band.onsets_s.size:
        return 0.0
    return float(_mir_eval().onset.f_measure(reference_s, band.onsets_s, ONSET_WINDOW_S)[0])


def lag(band: Analysis, truth: Truth) -> tuple[float, float]:
    """(lag_ms, lag_strength): the lag at which the band's onset envelope is most like the true band's, and how like.

    lag_ms is above 0 where the band is late, within MAX_LAG_S either way, interpolated between frames by a parabola.
    lag_strength is the correlation of the envelopes at that lag, 1 for equal rhythms. Both are NaN where either has no
    onsets, or the clip is shorter than four times MAX_LAG_S.
    The lag of a band that plays something else is noise, spread over the range: another song's band shows how strong
    the best of all lags is by chance, and a lag that is not stronger means nothing. Fooled by clicks, which are as
    strong as the true band's beats are.
    """
    from scipy.ndimage import gaussian_filter1d  # here, because only a lag needs it

    reach = round(MAX_LAG_S * ONSET_RATE_HZ)
    own, true = (
        gaussian_filter1d(a.onset_envelope.astype(np.float64), ENVELOPE_BLUR_S * ONSET_RATE_HZ)  # [T]
        for a in (band, truth.reference)
    )
    if len(true) < 4 * reach or not own.any() or not true.any():
        return float("nan"), float("nan")
    inner = true[reach : len(true) - reach]
    windows = np.lib.stride_tricks.sliding_window_view(own, len(inner))  # [2 * reach + 1, len(inner)], earliest first
    scores = correlation(windows, inner)
    best = int(np.argmax(scores))
    offset, peak = 0.0, scores[best]
    if 0 < best < len(scores) - 1:
        below, at, above = scores[best - 1 : best + 2]
        curvature = below - 2 * at + above
        if curvature < 0:
            offset = 0.5 * (below - above) / curvature
            peak = at - 0.25 * (below - above) * offset
    return float(1000 * (best + offset - reach) / ONSET_RATE_HZ), float(peak)


def chroma_melody(band: Analysis, voice: Analysis) -> float:
    """Correlation over the pitch classes of the band's chroma and the vocal's, half a second at a time, mean over the
    frames in which the vocal sounds: -1 to 1, 0 by chance. NaN where the vocal is silent; a silent band has 0.

    Even the true band is far from 1: the voice sings one tone of the chord at a time, and passing tones. Fooled by
    doubling the vocal: the vocal as its own band has 1. The right key alone already gets a good part of the true band's
    score: see the held chord.
    """
    sung = voice.sounds
    if not sung.any() or not voice.chroma.any():
        return float("nan")
    return float(correlation(_harmony(band.chroma), _harmony(voice.chroma))[sung].mean())


def chroma_chords(band: Analysis, truth: Truth) -> float:
    """Correlation over the pitch classes of the band's chroma and the chord, mean over time: -1 to 1, 0 by chance.

    Where the chords are known, each is compared with the band's mean chroma while it lasts. Where they are unknown, the
    true band's chroma replaces them, half a second at a time, in frames where it sounds. The two are different scales:
    do not mix them in one table. NaN without chords and with a silent true band; a silent band has 0.
    Fooled by one held chord of the key, which is often nearly right, and by doubling the vocal; `onset_f` reveals the
    one, `chroma_melody` the other. Noise under a band hardly changes it.
    """
    if truth.chords is None:
        reference = truth.reference
        if not reference.sounds.any():
            return float("nan")
        scores = correlation(_harmony(band.chroma), _harmony(reference.chroma))
        return float(scores[reference.sounds].mean())
    frames_s = np.arange(len(band.chroma)) / FRAME_RATE_HZ
    scores, weights = [], []
    for chord in truth.chords:
        inside = (frames_s >= chord.start_s) & (frames_s < chord.end_s)
        if inside.any():
            tones = np.isin(np.arange(12), chord.pitch_classes)
            scores.append(correlation(band.chroma[inside].mean(axis=0), tones))
            weights.append(inside.sum())
    return float(np.average(scores, weights=weights)) if scores else float("nan")


def key_score(band: Analysis, truth: Truth) -> float:
    """mir_eval's weighted score of the band's key: 1 the song's, 0.5 a fifth above, 0.3 its relative, 0.2 its parallel,
    else 0, as for a silent band. NaN where the song's key is unknown.

    Rough on a single clip, whose chords may suggest a neighbouring key (the true band itself is below 1). All
    sounds have some key, drums and noise too: clicks show the level of chance. Fooled by a held chord.
    """
    if truth.key is None:
        return float("nan")
    if band.key is None:
        return 0.0
    return float(_mir_eval().key.weighted_score(truth.key.name, band.key.name))


def coverage(band: Analysis, truth: Truth) -> float:
    """Share of the 100 ms frames in which the true band sounds (above SOUNDING_DBFS) where the band does too: 0 to 1.
    NaN where the true band is silent.

    It ignores what sounds: noise has 1. It catches bands that stop, drop out or never begin. The threshold is relative
    to full scale, so a band that is far too soft loses coverage, as it should.
    """
    needed = truth.reference.sounds
    return float(band.sounds[needed].mean()) if needed.any() else float("nan")


def _harmony(chroma: np.ndarray) -> np.ndarray:
    """Running mean of chroma over HARMONY_FRAMES: [F, P] -> [F, P]. Louder frames count more."""
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(chroma, HARMONY_FRAMES, axis=0, mode="constant")
