"""Baselines: the planted song is found, its beats fall on the vocal's, lengths are exact, no chance but the seed."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from helpers.tunes import write_song

from hafm_jax.audio.files import write_audio
from hafm_jax.common.errors import InputError
from hafm_jax.evaluation import baselines
from hafm_jax.evaluation.baselines import Entry, Library, click_track, nearest, random_instrumental, retrieval, silence
from hafm_jax.metrics.analysis import RATE_HZ, Analysis, Key
from hafm_jax.metrics.coherence import Truth
from hafm_jax.synthesis.song import synthesize_song

SAMPLES = 8 * RATE_HZ
SONG_S = 16.0
SONGS = 5


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """A songs folder with SONGS training songs."""
    root = tmp_path_factory.mktemp("songs")
    for number in range(SONGS):
        write_song(root / "train" / f"song_{number}", synthesize_song(number, SONG_S))
    return root


def folders(songs: Path) -> list[Path]:
    return sorted((songs / "train").iterdir())


@pytest.fixture(scope="module")
def library(songs, tmp_path_factory) -> Library:
    return Library.build(folders(songs), tmp_path_factory.mktemp("cache"), workers=1)


def truth_of(number: int, start_s: float = 3.0) -> Truth:
    song = synthesize_song(number, SONG_S)
    return Truth.of_clip(song.instrumental[round(start_s * RATE_HZ) :][:SAMPLES], song.info, start_s)


Given = namedtuple("Given", "beats_s tempo_bpm key")  # facts of a vocal


def grid(tempo_bpm: float, first_s: float = 0.2, seconds: float = 8.0) -> np.ndarray:
    return np.arange(first_s, seconds, 60 / tempo_bpm)


@pytest.fixture
def click_library(tmp_path) -> Library:
    """Songs of clicks: (tempo, key), all else equal."""
    entries = []
    for tempo_bpm, key in ((100.0, Key(0, "major")), (104.0, Key(7, "major")), (76.0, Key(9, "minor"))):
        folder = tmp_path / f"{tempo_bpm:.0f}"
        folder.mkdir()
        beats_s = grid(tempo_bpm, 0.37, 30.0)
        write_audio(folder / "instrumental.flac", click_track(beats_s, 30 * RATE_HZ), RATE_HZ)
        entries.append(Entry(folder, 30.0, tempo_bpm, beats_s, key))
    return Library(tuple(entries))


@pytest.mark.parametrize("number", range(SONGS))
def test_the_planted_song_is_found_and_falls_on_the_beat(library, number):
    truth = truth_of(number)
    entry, rate = nearest(library, truth, 8.0)
    assert entry.folder.name == f"song_{number}" and rate == pytest.approx(1.0)
    band = retrieval(library, truth, SAMPLES)
    start_s = baselines._start_s(entry, rate, truth, 8.0)
    beats_s = (entry.beats_s - start_s) / rate
    inside = beats_s[(beats_s >= 0) & (beats_s < 8.0)]
    assert mir_eval.beat.f_measure(truth.beats_s, inside, 0.005) > 0.95
    assert band.shape == (SAMPLES,) and band.dtype == np.float32 and np.abs(band).max() > 0.05


@pytest.mark.parametrize("tempo_bpm", [93.0, 100.0, 107.5])
def test_a_song_is_stretched_so_that_its_clicks_fall_on_the_beats(click_library, tempo_bpm):
    beats_s = grid(tempo_bpm)
    band = retrieval(click_library, Given(beats_s, tempo_bpm, Key(0, "major")), SAMPLES)
    onsets_s = Analysis(band).onsets_s
    assert mir_eval.onset.f_measure(beats_s, onsets_s, 0.04)[0] > 0.95  # a stretched click begins some 25 ms early
    level = np.convolve(np.square(band), np.ones(480), "same")
    loudest_s = [np.argmax(level[round(t * RATE_HZ) : round((t + 0.2) * RATE_HZ)]) / RATE_HZ for t in beats_s - 0.1]
    np.testing.assert_allclose(loudest_s, 0.105, atol=0.012)


@pytest.mark.parametrize("rate", [0.95, 1.0, 1.06])
def test_all_beats_decide_about_the_start_not_the_first(rate):
    """The vocal's first beat is found 30 ms late, the others in place: the song's beats fall on the others."""
    beats_s, vocal_s = grid(100.0 / rate, 0.37, 30.0), grid(100.0)
    heard_s = vocal_s + 0.03 * (np.arange(vocal_s.size) == 0)
    entry = Entry(Path("song"), 30.0, 100.0 / rate, beats_s, None)
    start_s = baselines._start_s(entry, rate, Given(heard_s, 100.0, None), 8.0)
    played_s = (beats_s - start_s) / rate
    assert np.abs(played_s[:, None] - vocal_s).min(axis=0).max() < 1e-3


def test_half_the_tempo_fits_every_second_beat(click_library):
    beats_s = grid(148.0)
    facts = Given(beats_s, 148.0, Key(9, "minor"))
    entry, rate = nearest(click_library, facts, 8.0)
    assert entry.tempo_bpm == 76.0 and rate == pytest.approx(148 / 152)
    onsets_s = Analysis(retrieval(click_library, facts, SAMPLES)).onsets_s
    assert len(onsets_s) == pytest.approx(len(beats_s) / 2, abs=1)
    assert np.abs(onsets_s[:, None] - beats_s).min(axis=1).max() < 0.03


@pytest.mark.parametrize(
    ("tempo_bpm", "key", "expected_bpm"),
    [
        (101.0, Key(0, "major"), 100.0),  # nearer in both
        (101.0, Key(9, "minor"), 100.0),  # its relative
        (101.0, Key(2, "major"), 104.0),  # a fifth nearer for 2 % of stretch
        (76.0, Key(6, "major"), 76.0),  # far in key, but the only one that need not be stretched by a fourth
        (101.0, None, 100.0),  # tempo alone
    ],
)
def test_nearest_in_tempo_and_key(click_library, tempo_bpm, key, expected_bpm):
    entry, _ = nearest(click_library, Given(grid(tempo_bpm), tempo_bpm, key), 8.0)
    assert entry.tempo_bpm == expected_bpm


def test_a_vocal_without_beats_gets_the_nearest_key_from_its_start(click_library):
    facts = Given(np.zeros(0), float("nan"), Key(4, "minor"))
    entry, rate = nearest(click_library, facts, 8.0)
    assert entry.key == Key(7, "major") and rate == 1.0
    np.testing.assert_array_equal(retrieval(click_library, facts, SAMPLES), entry.read()[:SAMPLES])
    silent = Analysis(silence(SAMPLES))
    assert retrieval(click_library, silent, SAMPLES).shape == (SAMPLES,)


def test_the_analysis_of_a_vocal_is_enough_to_retrieve(library):
    vocal = Analysis(synthesize_song(2, SONG_S).vocals[:SAMPLES])
    band = retrieval(library, vocal, SAMPLES)
    assert band.shape == (SAMPLES,) and np.isfinite(band).all() and band.any()
    np.testing.assert_array_equal(band, retrieval(library, vocal, SAMPLES))


@pytest.mark.parametrize("num_samples", [1, 12_345, SAMPLES, round(SONG_S * RATE_HZ)])
def test_lengths_are_exact(library, num_samples):
    facts = truth_of(1)
    for band in (
        retrieval(library, facts, num_samples),
        random_instrumental(library, num_samples, seed=0),
        silence(num_samples),
        click_track(facts.beats_s, num_samples),
    ):
        assert band.shape == (num_samples,) and band.dtype == np.float32


def test_the_seed_decides_the_random_band(library):
    bands = [random_instrumental(library, SAMPLES, seed) for seed in (1, 1, 2, 3)]
    np.testing.assert_array_equal(bands[0], bands[1])
    assert all(np.abs(bands[0] - other).max() > 0.01 for other in bands[2:])


def test_clicks_are_on_the_beats():
    track = click_track(np.array([-0.5, 0.25, 1.0, 1.99, 3.0]), 2 * RATE_HZ)
    sounding = np.flatnonzero(np.abs(track) > 0.05)
    starts = sounding[np.concatenate([[True], np.diff(sounding) > 0.1 * RATE_HZ])]
    np.testing.assert_allclose(starts / RATE_HZ, [0.25, 1.0, 1.99], atol=0.002)
    assert 0.4 < np.abs(track).max() <= 0.5
    assert not silence(5).any()


def test_the_cache_gives_the_same_library_and_saves_the_analysis(songs, library, tmp_path, monkeypatch):
    first = Library.build(folders(songs), tmp_path / "cache", workers=1)
    (tmp_path / "cache" / "song_3.json").unlink()  # as if a build had been stopped
    (tmp_path / "cache" / "song_4.json").write_text("{")  # and another program had written here
    heard = []
    of_clip = Truth.of_clip.__func__
    monkeypatch.setattr(Truth, "of_clip", classmethod(lambda cls, *a: heard.append(a) or of_clip(cls, *a)))
    second = Library.build(folders(songs), tmp_path / "cache", workers=1)
    assert len(heard) == 2
    for other in (first, second):
        assert other.left_out == {}
        for a, b in zip(other.entries, library.entries, strict=True):
            assert (a.folder, a.seconds, a.tempo_bpm, a.key) == (b.folder, b.seconds, b.tempo_bpm, b.key)
            np.testing.assert_array_equal(a.beats_s, b.beats_s)
    os.utime(songs / "train" / "song_0" / "instrumental.flac")
    Library.build(folders(songs), tmp_path / "cache", workers=1)
    assert len(heard) == 3


def test_without_a_song_json_beats_and_key_are_estimated(songs, tmp_path):
    audio = synthesize_song(1, SONG_S).instrumental
    folder = tmp_path / "songs" / "train" / "a"
    folder.mkdir(parents=True)
    write_audio(folder / "instrumental.wav", audio, RATE_HZ)
    (entry,) = Library.build(folders(tmp_path / "songs"), tmp_path / "cache", 1).entries
    assert len(entry.beats_s) > 10 and entry.key is not None and entry.seconds == SONG_S
    written = Analysis(entry.read())
    np.testing.assert_array_equal(entry.beats_s, written.beats_s)


def test_songs_that_cannot_be_used_are_left_out_with_a_reason(songs, tmp_path):
    root = tmp_path / "songs" / "train"
    for name in ("good", "silent", "torn"):
        (root / name).mkdir(parents=True)
    write_audio(root / "good" / "instrumental.flac", synthesize_song(0, 2.0).instrumental, RATE_HZ)
    write_audio(root / "silent" / "instrumental.flac", silence(RATE_HZ), RATE_HZ)
    (root / "torn" / "instrumental.flac").write_bytes(b"fLaC")
    library = Library.build(folders(tmp_path / "songs"), tmp_path / "cache", workers=1)
    library_again = Library.build([root / "gone", root / "good"], tmp_path / "cache", workers=1)
    assert [e.folder.name for e in library.entries + library_again.entries] == ["good", "good"]
    assert "silent" in library.left_out["silent"] and "cannot be read" in library.left_out["torn"]
    assert "gone" in library_again.left_out
    with pytest.raises(InputError, match=r"longest of 1 training songs has 2\.0 s"):
        retrieval(library, truth_of(0), SAMPLES)
    with pytest.raises(InputError, match="none of 3 songs for retrieval can be used"):
        (root / "good" / "instrumental.flac").write_bytes(b"fLaC")
        Library.build(folders(tmp_path / "songs"), tmp_path / "cache", 1)
