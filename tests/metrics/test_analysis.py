"""The analysis of audio whose content is known: sines, clicks, cadences, and synthesised songs."""

from __future__ import annotations

import warnings

import mir_eval
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.audio.music import Key
from hafm_jax.evaluation.baselines import click_track
from hafm_jax.metrics.analysis import FRAME_RATE_HZ, RATE_HZ, Analysis, correlation, key_of, tempo_of
from hafm_jax.metrics.coherence import Truth
from hafm_jax.synthesis.song import synthesize_song

KEYS = st.builds(Key, st.integers(0, 11), st.sampled_from(["major", "minor"]))


def tones(midis: list[int], seconds: float, amplitude: float = 0.2) -> np.ndarray:
    """Sines, float32 [S]."""
    t_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    waves = [np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * t_s) for midi in midis]
    return (amplitude * np.sum(waves, axis=0)).astype(np.float32)


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def test_level_of_a_sine_is_3_db_below_its_peak():
    level_dbfs = Analysis(tones([69], 2.0, amplitude=0.1)).level_dbfs
    assert level_dbfs.shape == (2 * FRAME_RATE_HZ + 1,)
    np.testing.assert_allclose(level_dbfs[1:-1], 20 * np.log10(0.1) - 10 * np.log10(2), atol=0.01)


@pytest.mark.parametrize(("amplitude", "sounds"), [(0.01, True), (0.003, False)])
def test_what_sounds_is_above_minus_50_dbfs(amplitude, sounds):
    assert (Analysis(tones([69], 1.0, amplitude)).sounds[1:-1] == sounds).all()


@pytest.mark.parametrize("midi", [45, 57, 64, 71, 78])
def test_chroma_of_a_tone_is_its_pitch_class_in_any_octave(midi):
    chroma = Analysis(tones([midi], 2.0)).chroma
    assert chroma.shape == (2 * FRAME_RATE_HZ + 1, 12)
    inside = chroma[3:-3]
    assert (inside.argmax(axis=1) == midi % 12).all()
    others = np.delete(inside, [(midi + step) % 12 for step in (-1, 0, 1)], axis=1)
    assert (others.max(axis=1) < 0.1 * inside.max(axis=1)).all()


def test_onsets_of_clicks_are_found_where_they_are():
    times_s = np.array([0.31, 0.9, 1.402, 2.5, 2.75, 3.333])
    onsets_s = Analysis(click_track(times_s, 4 * RATE_HZ)).onsets_s
    assert len(onsets_s) == len(times_s)
    np.testing.assert_allclose(onsets_s, times_s, atol=0.015)


def test_a_clip_cut_from_a_held_chord_begins_and_ends_without_an_onset():
    chord = tones([57, 61, 64], 4.0)
    assert Analysis(chord[RATE_HZ : 3 * RATE_HZ]).onset_envelope.max() < 1.0  # dB; clicks have 20 and more


@pytest.mark.parametrize("tempo_bpm", [72.0, 97.3, 120.0, 141.0])
def test_beats_and_tempo_of_clicks(tempo_bpm):
    clicks_s = np.arange(0.17, 10, 60 / tempo_bpm)
    heard = Analysis(click_track(clicks_s, 10 * RATE_HZ))
    assert mir_eval.beat.f_measure(clicks_s, heard.beats_s, 0.02) > 0.95
    assert heard.tempo_bpm == pytest.approx(tempo_bpm, rel=2e-3)


@given(st.floats(40, 240), st.integers(8, 40), st.sets(st.integers(2, 6), max_size=1), st.integers(0, 2**32))
def test_tempo_is_the_slope_through_the_beats(tempo_bpm, count, missing, seed):
    """Jitter of 5 ms and a missing beat do not matter."""
    beats_s = 0.3 + np.arange(count) * 60 / tempo_bpm + np.random.default_rng(seed).uniform(-0.005, 0.005, count)
    assert tempo_of(np.delete(beats_s, list(missing))) == pytest.approx(tempo_bpm, rel=0.02)


def test_two_beats_have_no_tempo():
    assert np.isnan(tempo_of(np.array([0.5, 1.0])))


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", [0, 3, 8])
def test_key_of_a_cadence(tonic, mode):
    """I IV V I, and i iv V i: the key that any harmony book names."""
    third = 4 if mode == "major" else 3
    chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    audio = np.concatenate([tones([48 + tonic + step for step in chord], 1.0) for chord in chords])
    assert Analysis(audio).key == Key(tonic, mode)


@given(KEYS, st.floats(0.1, 10), st.floats(0.0, 5))
def test_key_moves_with_the_chroma_and_not_with_its_level(key, gain, floor):
    scale = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}[key.mode]
    chroma = np.zeros(12)
    chroma[[(key.tonic + step) % 12 for step in scale]] = 1.0
    chroma[[(key.tonic + step) % 12 for step in (0, scale[2], 7)]] = 2.0
    assert key_of(gain * chroma + floor) == key


def test_a_flat_chroma_has_no_key():
    assert key_of(np.ones(12)) is None and key_of(np.zeros(12)) is None


@given(KEYS, KEYS, st.integers(0, 11))
def test_distance_of_keys(a, b, steps):
    assert a.distance(b) == b.distance(a) and a.distance(a) == 0
    moved = (Key((key.tonic + steps) % 12, key.mode) for key in (a, b))
    assert next(moved).distance(next(moved)) == a.distance(b)
    assert a.distance(Key((a.tonic + 7) % 12, a.mode)) == 1
    assert a.distance(Key((a.tonic + 6) % 12, a.mode)) == 6


def test_relative_keys_share_a_signature():
    assert Key(0, "major").distance(Key(9, "minor")) == 0.5
    assert Key(9, "minor").distance(Key(7, "major")) == 1.5


@given(st.lists(st.floats(-1, 1), min_size=12, max_size=12), st.floats(0.1, 9), st.floats(-3, 3))
def test_correlation_is_numpys(values, gain, offset):
    a, b = np.array(values), np.arange(12.0)
    if np.ptp(a) > 1e-3:
        assert correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
        assert correlation(gain * a + offset, a) == pytest.approx(1.0)
    assert correlation(np.full(12, offset), b) == 0.0


CLICK = click_track(np.array([0.5]), 10 * RATE_HZ)


SOUNDS = {"silence": np.zeros(10 * RATE_HZ), "none": np.zeros(0), "one sample": np.ones(1), "one click": CLICK}
SOUNDS |= {"faint click": 1e-4 * CLICK} | {f"{seconds} s": noise(seconds) for seconds in (0.1, 0.5, 1.0, 10.0)}


@pytest.mark.parametrize("name", SOUNDS)
def test_anything_can_be_analysed_and_silence_holds_nothing(name):
    audio = SOUNDS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heard = Analysis(audio)
        assert heard.chroma.shape == (len(heard.level_dbfs), 12) == (audio.size // (RATE_HZ // FRAME_RATE_HZ) + 1, 12)
        assert heard.onset_envelope.shape == (audio.size // (RATE_HZ // 100) + 1,)
        for times_s in (heard.onsets_s, heard.beats_s):
            assert (np.diff(times_s) > 0).all() and (times_s * RATE_HZ <= audio.size).all()
        assert np.isnan(heard.tempo_bpm) or heard.tempo_bpm > 0
        assert heard.key is None or 0 <= heard.key.tonic < 12
    if name in ("silence", "0.1 s"):
        assert heard.onsets_s.size == heard.beats_s.size == 0 and not heard.chroma.any()
        assert np.isnan(heard.tempo_bpm) and heard.key is None


@pytest.mark.parametrize("audio", [np.zeros((2, 100)), np.full(100, np.nan)])
def test_arrays_that_are_not_audio_are_refused(audio):
    with pytest.raises(ValueError, match="expected"):
        Analysis(audio)


@pytest.fixture(scope="module")
def clips() -> list[tuple[Analysis, Truth]]:
    """(analysis, truth) of true bands, clips from the middle of songs."""
    found = []
    for seed in range(12):
        song = synthesize_song(seed, 14.0)
        audio = song.instrumental[2 * RATE_HZ : 12 * RATE_HZ]
        truth = Truth.of_clip(audio, song.info, 2.0)
        found.append((truth.reference, truth))
    return found


def test_a_songs_beats_tempo_and_key_are_found(clips):
    """Of twelve songs; experiments/coherence.py has the figures of more."""
    beat_f = [mir_eval.beat.f_measure(truth.beats_s, heard.beats_s) for heard, truth in clips]
    ratio = np.array([heard.tempo_bpm / truth.tempo_bpm for heard, truth in clips])
    nearest = np.abs(ratio[:, None] / [1 / 3, 1 / 2, 1, 2, 3] - 1).min(axis=1)
    fifths = [heard.key.distance(truth.key) for heard, truth in clips]
    assert np.mean(beat_f) > 0.6
    assert np.mean(nearest < 0.04) > 0.7
    assert np.mean(np.array(fifths) <= 1) > 0.7
    late_s = [
        heard.beats_s - truth.beats_s[np.abs(heard.beats_s[:, None] - truth.beats_s).argmin(axis=1)]
        for heard, truth in clips
    ]
    on_beat_s = np.concatenate(late_s)[np.abs(np.concatenate(late_s)) < 0.07]
    assert abs(np.median(on_beat_s)) < 0.01  # librosa's own centring makes it 17 ms


def test_gain_does_not_change_the_analysis(clips):
    for heard, _ in clips[:3]:
        softer = Analysis(heard.audio / 4)
        np.testing.assert_allclose(softer.beats_s, heard.beats_s, atol=0.011)
        assert mir_eval.onset.f_measure(heard.onsets_s, softer.onsets_s, 0.011)[0] > 0.97
        np.testing.assert_allclose(softer.chroma, heard.chroma, atol=1e-4)
        assert softer.key == heard.key
