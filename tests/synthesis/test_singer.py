"""Singers against measurements of their sound: pitch by librosa's yin, onsets, levels, and the same bytes again."""

from __future__ import annotations

from dataclasses import replace

import librosa
import numpy as np
import pytest
from helpers.small_voicebank import write_voicebank

from hafm_jax.synthesis.room import record
from hafm_jax.synthesis.singer import (
    FARTHEST_SEMITONES,
    PEAK,
    UNSEEN_SINGERS,
    FormantSinger,
    RecordedSinger,
    TimedNote,
    draw_singer,
    range_of,
    sing,
)
from hafm_jax.synthesis.voicebank import load_banks

RATE_HZ = 24_000
NUM_SAMPLES = 6 * RATE_HZ
SYLLABLES = ("ta", "mo", "", "-", "sa", "see", "ta", "sa", "mo")
MIDI = (57, 60, 64, 62, 55, 52, 65, 57, 50)
STARTS_S = (0.5, 1.0, 1.5, 2.0, 2.75, 3.25, 3.5, 4.5, 5.0)
ENDS_S = (1.0, 1.5, 2.0, 2.5, 3.25, 3.5, 4.25, 5.0, 5.5)
NOTES = [TimedNote(*note) for note in zip(STARTS_S, ENDS_S, MIDI, SYLLABLES, strict=True)]


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    return load_banks(write_voicebank(tmp_path_factory.mktemp("voices") / "tiny").parent)


@pytest.fixture(scope="module")
def singer(banks):
    return RecordedSinger("tiny", banks["tiny"], (50, 67))


@pytest.fixture(scope="module")
def sung(singer):
    return sing(NOTES, singer, np.random.default_rng(0), NUM_SAMPLES, RATE_HZ)


def cents_off(sung: np.ndarray, note: TimedNote) -> float:
    """Median over the note's inner part, of the pitch's distance from the score."""
    part = sung[int((note.start_s + 0.06) * RATE_HZ) : int((note.end_s - 0.06) * RATE_HZ)]
    pitch_hz = librosa.yin(part, fmin=90, fmax=700, sr=RATE_HZ, frame_length=1024, hop_length=128, center=False)
    return float(np.median(1200 * np.log2(pitch_hz / 440) - 100 * (note.midi - 69)))


@pytest.mark.parametrize("warp", [0.88, 1.0, 1.12])
def test_pitch_is_the_melody(singer, warp):
    variant = replace(singer, warp=warp, tilt_db=2.0, breathiness=0.2)
    sung = sing(NOTES, variant, np.random.default_rng(1), NUM_SAMPLES, RATE_HZ)
    assert sung.dtype == np.float32
    assert sung.shape == (NUM_SAMPLES,)
    assert max(abs(cents_off(sung, note)) for note in NOTES) < 50


def test_vowels_start_on_the_notes(sung):
    power = np.abs(librosa.stft(sung, n_fft=512, hop_length=120, window="hann")) ** 2
    low = power[: int(1000 / RATE_HZ * 512)].sum(axis=0)  # where neither s nor t sounds
    for note in NOTES:
        if note.syllable in ("ta", "sa"):
            frame = round(note.start_s * 200)
            sounds = low[frame - 16 : frame + 17] > 0.25 * np.median(low[frame + 10 : frame + 30])
            assert not sounds.all(), note
            assert abs(np.flatnonzero(~sounds)[-1] + 1 - 16) <= 6, note  # within 30 ms


def test_rests_are_silent_but_for_a_breath_and_levels_are_a_voice(sung):
    vowel_rms = np.sqrt(np.mean(sung[int(1.1 * RATE_HZ) : int(1.4 * RATE_HZ)] ** 2))
    assert 0.04 < vowel_rms < 0.2
    assert np.abs(sung).max() <= PEAK
    assert np.abs(sung[int(5.55 * RATE_HZ) :]).max() < 1e-3
    # No click: where a vowel goes to its next note, ends, and gives way to silence, nothing is steeper than inside it.
    steepness = np.abs(np.diff(sung))
    assert (
        steepness[int(1.6 * RATE_HZ) : int(2.6 * RATE_HZ)].max() < 1.3 * steepness[: int(1.9 * RATE_HZ)][-6000:].max()
    )


def test_same_generator_same_bytes(singer, sung):
    assert sing(NOTES, singer, np.random.default_rng(0), NUM_SAMPLES, RATE_HZ).tobytes() == sung.tobytes()
    assert sing(NOTES, singer, np.random.default_rng(2), NUM_SAMPLES, RATE_HZ).tobytes() != sung.tobytes()


def test_notes_beyond_the_song_and_short_ones_are_sung_as_far_as_they_go(singer):
    notes = [TimedNote(0.0, 0.04, 60, "ta"), TimedNote(0.04, 0.1, 62, "sa"), TimedNote(0.9, 3.0, 64, "mo")]
    sung = sing(notes, singer, np.random.default_rng(0), RATE_HZ, RATE_HZ)
    assert np.isfinite(sung).all()
    assert np.abs(sung[-1000:]).max() > 0.01
    assert not sing([], singer, np.random.default_rng(0), RATE_HZ, RATE_HZ).any()


def test_the_formant_singer_has_the_same_interface():
    singer = draw_singer(np.random.default_rng(3), {}, "train")
    assert isinstance(singer, FormantSinger)
    low, _ = range_of(singer)
    notes = [TimedNote(0.5, 1.0, low + 5, "la"), TimedNote(1.0, 1.5, low + 7, "-")]
    sung = sing(notes, replace(singer, articulation="sung"), np.random.default_rng(0), 2 * RATE_HZ, RATE_HZ)
    assert max(abs(cents_off(sung, note)) for note in notes) < 50


def test_draws_keep_the_unseen_singer_for_the_test_split(banks):
    named = {"tiny": banks["tiny"], UNSEEN_SINGERS[0]: replace(banks["tiny"], name=UNSEEN_SINGERS[0])}
    drawn = {
        split: [draw_singer(np.random.default_rng(i), named, split) for i in range(300)] for split in ("train", "test")
    }
    assert not any(s.name in UNSEEN_SINGERS for s in drawn["train"])
    assert {s.name for s in drawn["test"]} > {"tiny", *UNSEEN_SINGERS}
    assert 0.04 < np.mean([isinstance(s, FormantSinger) for s in drawn["train"]]) < 0.17
    for singer in drawn["train"]:
        if isinstance(singer, RecordedSinger):
            low, high = range_of(singer)
            assert 57 - FARTHEST_SEMITONES <= low < high - 10 <= 57 + FARTHEST_SEMITONES - 10  # recorded at A3
            assert 0.88 <= singer.warp <= 1.12


def test_room_keeps_the_level_and_adds_little_noise(sung):
    heard = record(sung, np.random.default_rng(0), RATE_HZ)
    assert heard.dtype == np.float32
    assert heard.std() == pytest.approx(sung.std(), rel=0.05)
    assert heard.tobytes() == record(sung, np.random.default_rng(0), RATE_HZ).tobytes()
    silent = heard[: int(0.1 * RATE_HZ)]
    assert -80 < 20 * np.log10(silent.std() / sung.std()) < -45
    # Nothing is delayed: voice and recording agree best at lag 0.
    lags = range(-40, 41)
    assert max(lags, key=lambda lag: float(np.dot(sung[1000:-1000], np.roll(heard, -lag)[1000:-1000]))) == 0
