"""Long rests of a voice, filled with its own tokens, so that the band plays on in tempo and key.

Where nothing is sung for long, a model has no voice to follow: what it saw in training are the short rests between
phrases. It then invents another tempo, stops, or bursts. Musicians vamp on what is sung before, or on what comes next;
here the band does so, because it accompanies a copy of the voice. The copy is moved by a period of the song, so that
its beats fall where those of the voice would fall.

Axes: F frames (2 a cell), S samples, D features, L lags.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hafm_jax.audio.voice import VOICE_LUFS
from hafm_jax.streams import STREAMS
from hafm_jax.tokenizers import chroma

FRAME_RATE_HZ = STREAMS["vocal_semantic"].rate_hz

# All ours.
LONG_REST_S = 2.0  # the longest rest of 40 of the demo's training songs is 1.8 s
SHORTEST_SOUND_S = 0.2  # a click or a breath in a rest does not end it
SMOOTHING_FRAMES = 5  # a level is the mean of 100 ms
REST_DBFS = VOICE_LUFS - 30  # the level of a rest is less
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 2.0, 16.0  # from about a bar to eight
ONSET_BLUR_FRAMES, CHORD_BLUR_FRAMES = 2, 10  # half widths


def fill_rests(tokens: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Tokens int32 [F] of a voice -> int32 [F]. `audio`: the voice float32 [S] of `clean_vocal`.

    Frames in a rest of LONG_REST_S or more become tokens from elsewhere in the voice; all others stay. A voice that is
    silent throughout stays as it is.
    """
    power = np.square(audio.reshape(-1, chroma.HOP)).mean(axis=1)  # [F]
    power = np.convolve(power, np.ones(SMOOTHING_FRAMES) / SMOOTHING_FRAMES, "same")
    sung = _sections(power > 10 ** (REST_DBFS / 10))
    rests = _gaps(sung, len(tokens))
    if not sung or not rests:
        return tokens
    period = _period(audio, sung)
    usable = [section for section in sung if section.stop - section.start >= period]
    filled = tokens.copy()
    for rest in rests:
        before = [section.stop - period for section in usable if section.stop <= rest.start]
        first = before[-1] if before else next(s.start for s in usable if s.start >= rest.stop)
        filled[rest] = tokens[first + (np.arange(rest.start, rest.stop) - first) % period]
    return filled


def _sections(sounds: np.ndarray) -> list[slice]:
    """The stretches of bool [F] between long rests, without sounds that are too short to be sung."""
    edges = np.flatnonzero(np.diff(np.pad(sounds, 1).astype(int))).reshape(-1, 2)  # [N, 2] start and stop of each sound
    sections: list[slice] = []
    for start, stop in edges[edges[:, 1] - edges[:, 0] >= SHORTEST_SOUND_S * FRAME_RATE_HZ]:
        if sections and start - sections[-1].stop < LONG_REST_S * FRAME_RATE_HZ:
            start = sections.pop().start
        sections.append(slice(int(start), int(stop)))
    return sections


def _gaps(sections: list[slice], num_frames: int) -> list[slice]:
    """The long rests before, between and after the sections."""
    gaps = [slice(a.stop, b.start) for a, b in pairwise([slice(0, 0), *sections, slice(num_frames, num_frames)])]
    return [gap for gap in gaps if gap.stop - gap.start >= LONG_REST_S * FRAME_RATE_HZ]


def _period(audio: np.ndarray, sections: list[slice]) -> int:
    """Frames after which the voice repeats itself best, in onsets and notes; no more than its longest section."""
    longest = max(section.stop - section.start for section in sections)
    shortest = round(SHORTEST_PERIOD_S * FRAME_RATE_HZ)
    if longest <= shortest:
        return longest
    features = chroma.chroma_features(audio)  # [F, D]
    mask = np.zeros((len(features), 1))
    for section in sections:
        mask[section] = 1
    lags = np.arange(shortest, min(longest, round(LONGEST_PERIOD_S * FRAME_RATE_HZ)) + 1)
    both = _correlate(mask, mask)[lags]  # frames that are sung at both ends of a lag
    scores = sum(
        _similarity(features[:, columns], mask, blur)[lags]
        for columns, blur in ((chroma.FLUX, ONSET_BLUR_FRAMES), (chroma.CHROMA, CHORD_BLUR_FRAMES))
    )
    return int(lags[np.argmax(scores * np.sqrt(np.maximum(both, 0)))])  # what rests on more frames counts for more


def _similarity(features: np.ndarray, mask: np.ndarray, blur: int) -> np.ndarray:
    """The correlation of features [F, D] with themselves at lags 0 to F - 1 -> [F], where the mask [F, 1] is 1."""
    window = np.hanning(2 * blur + 3)[:, None]
    blurred = np.apply_along_axis(np.convolve, 0, features, window[:, 0] / window.sum(), "same")
    centred = mask * (blurred - np.average(blurred, axis=0, weights=mask[:, 0]))  # [F, D]
    energy = np.square(centred).sum(axis=1, keepdims=True)
    norm = np.sqrt(np.maximum(_correlate(energy, mask) * _correlate(mask, energy), 0))
    return _correlate(centred, centred) / (norm + 1e-9 * norm[0])


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over t and columns of a[t + lag] b[t], for lags 0 to F - 1: [F, D], [F, D] -> [F]."""
    size = 2 * len(a)
    return np.fft.irfft((np.fft.rfft(a, size, axis=0) * np.conj(np.fft.rfft(b, size, axis=0))).sum(axis=1), size)[
        : len(a)
    ]
