"""Long rests of a voice: where they are, and that the copies that fill them keep its beats.

The tokens of these tests are the numbers of the frames, so that a filled token tells where it was copied from.
"""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import voice
from hafm_jax.audio.files import pad_to_cells
from hafm_jax.streams import SEMANTIC_SAMPLE_RATE_HZ as RATE_HZ
from hafm_jax.synthesis.song import song_seed, synthesize_song
from hafm_jax.tokenizers.chroma import HOP
from hafm_jax.tokenizers.rests import LONG_REST_S, fill_rests

BEAT_TOLERANCE_S = 0.07  # of mir_eval's F-measure of beats


@functools.cache
def sung(index: int, seconds: float = 20.0):
    song = synthesize_song(song_seed("test", index, 0), seconds, RATE_HZ)
    return pad_to_cells(song.vocals, RATE_HZ), 60 / song.info["tempo_bpm"]


def fill(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames' numbers before and after."""
    frames = np.arange(len(audio) // HOP, dtype=np.int32)
    return frames, fill_rests(frames.copy(), voice.level(audio))


def in_time(moved_frames: np.ndarray, beat_s: float) -> np.ndarray:
    beats = moved_frames * HOP / RATE_HZ / beat_s
    return np.abs(beats - np.round(beats)) * beat_s <= BEAT_TOLERANCE_S


def silenced(audio: np.ndarray, start_s: float, stop_s: float) -> np.ndarray:
    t_s = np.arange(len(audio)) / RATE_HZ
    return np.where((t_s >= start_s) & (t_s < stop_s), 0, audio).astype(np.float32)


def test_short_rests_and_silence_stay():
    for index in range(3):
        frames, filled = fill(sung(index)[0])
        np.testing.assert_array_equal(filled, frames)
    frames, filled = fill(np.zeros(10 * RATE_HZ, np.float32))
    np.testing.assert_array_equal(filled, frames)


@pytest.mark.parametrize("silence_s", [4.0, 12.0, 30.0])
def test_a_late_entry_gets_a_voice_in_time(silence_s):
    shares = []
    for index in range(4):
        vocal, beat_s = sung(index)
        frames, filled = fill(np.pad(vocal, (round(silence_s * RATE_HZ), 0)))
        moved = filled - frames
        before = frames < silence_s * RATE_HZ / HOP - 10  # the reverberation of the first note may begin a little later
        assert (moved[before] > 0).all(), "a late entry is filled from what is sung after it"
        assert (filled[before] >= silence_s * RATE_HZ / HOP - 10).all(), "with what is sung, not with silence"
        shares.append(in_time(moved[before], beat_s).mean())
    assert np.mean(shares) > 0.7, shares  # by chance: 0.28 at a beat of 0.5 s


def test_a_rest_is_filled_in_time_with_what_is_sung_elsewhere():
    shares = []
    for index in range(6):
        vocal, beat_s = sung(index)
        frames, filled = fill(silenced(vocal, 9, 17))
        moved = (filled != frames) & (frames * HOP >= 9 * RATE_HZ) & (frames * HOP < 17 * RATE_HZ)
        assert moved.sum() * HOP / RATE_HZ > 7.8
        from_s = filled[moved] * HOP / RATE_HZ
        assert ((from_s < 9.2) | (from_s > 16.8)).all(), "0.2 s: the level is smoothed, and clicks do not count"
        shares.append(in_time((frames - filled)[moved], beat_s).mean())
    assert np.mean(shares) > 0.7, shares


@settings(deadline=None, max_examples=25)
@given(
    index=st.integers(0, 3),
    rests=st.lists(st.tuples(st.floats(0, 18), st.floats(0.1, 10)), max_size=3),
    gain_db=st.floats(-70, 40),
)
def test_only_long_rests_change_at_any_level(index, rests, gain_db):
    vocal, _ = sung(index)
    for start_s, length_s in rests:
        vocal = silenced(vocal, start_s, start_s + length_s)
    frames, filled = fill(vocal)
    power = np.square(vocal.reshape(-1, HOP)).mean(axis=1)
    loud = power > 0.05 * power.max()
    sustained = np.convolve(loud, np.ones(12), "same") > 11  # where it sings for 0.24 s at least
    np.testing.assert_array_equal(filled[sustained], frames[sustained])
    changed = np.flatnonzero(filled != frames)
    runs = np.split(changed, np.flatnonzero(np.diff(changed) > 1) + 1) if changed.size else []
    # A copy may by chance put one frame back where it came from, never more: runs are nearly whole rests.
    assert all(len(run) >= LONG_REST_S * RATE_HZ / HOP - 1 for run in runs)
    louder = (vocal.astype(np.float64) * 10 ** (gain_db / 20)).astype(np.float32)
    assert (fill(louder)[1] == filled).mean() > 0.99


def test_a_click_in_a_rest_does_not_end_it():
    vocal, _ = sung(1)
    vocal = silenced(vocal, 5, 15)
    vocal[10 * RATE_HZ : 10 * RATE_HZ + 800] = 0.5  # 50 ms
    frames, filled = fill(vocal)
    inside = (frames > 6 * RATE_HZ / HOP) & (frames < 14.5 * RATE_HZ / HOP)
    assert (filled[inside] != frames[inside]).all()


def test_noise_at_the_level_of_a_room_is_a_rest():
    vocal, _ = sung(2)
    noise = np.random.default_rng(0).standard_normal(len(vocal), np.float32)
    rested = silenced(vocal, 6, 14) + noise * 10 ** (-55 / 20)
    frames, filled = fill(rested)
    inside = (frames > 7 * RATE_HZ / HOP) & (frames < 13.5 * RATE_HZ / HOP)
    assert (filled[inside] != frames[inside]).all()


def test_a_voice_shorter_than_a_period_is_repeated_whole():
    vocal, _ = sung(0)
    word = pad_to_cells(np.concatenate([np.zeros(5 * RATE_HZ, np.float32), vocal[2 * RATE_HZ : 3 * RATE_HZ]]), RATE_HZ)
    _, filled = fill(word)
    assert (filled[:200] >= 200).all()
