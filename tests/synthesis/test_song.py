"""Synthesised songs against measurements of their sound: pitch, chroma and onsets must be what `info` says they are."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from hafm_jax.audio.music import TONICS
from hafm_jax.audio.songs import SPLITS
from hafm_jax.synthesis import instruments, patterns
from hafm_jax.synthesis.song import PEAK, RMS, Song, song_seed, synthesize_song

RATE_HZ = 24_000
SECONDS = 10.0


@pytest.fixture(scope="module")
def songs() -> list[Song]:
    return [synthesize_song(seed, SECONDS) for seed in range(6)]


def frames_of(audio: np.ndarray, size: int, hop: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(audio, size)[::hop]


def autocorrelation_pitch_hz(frame: np.ndarray) -> float:
    """Pitch of one frame: the first peak of the normalised autocorrelation that is nearly as high as the highest."""
    lags = np.arange(RATE_HZ // 1000, RATE_HZ // 60)
    size = len(frame) - lags[-1]
    windows = np.lib.stride_tricks.sliding_window_view(frame, size)[[0, *lags]]
    windows = windows - windows.mean(axis=1, keepdims=True)
    windows /= np.linalg.norm(windows, axis=1, keepdims=True)
    scores = windows[1:] @ windows[0]
    peaks = np.flatnonzero((scores[1:-1] > scores[:-2]) & (scores[1:-1] >= scores[2:])) + 1
    first = next(p for p in peaks if scores[p] > 0.93 * scores[peaks].max())
    below, at, above = scores[first - 1 : first + 2]
    return RATE_HZ / (lags[first] + 0.5 * (below - above) / (below - 2 * at + above))


def chroma_of(audio: np.ndarray) -> np.ndarray:
    """Energy per pitch class [12] between 60 and 1000 Hz."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    f_hz = np.fft.rfftfreq(len(audio), 1 / RATE_HZ)
    band = (f_hz > 60) & (f_hz < 1000)
    pitch_class = np.round(69 + 12 * np.log2(f_hz[band] / 440)).astype(int) % 12
    return np.sqrt(np.bincount(pitch_class, power[band], minlength=12))


def is_on_a_beat(note: dict, info: dict) -> bool:
    return min(abs(note["start_s"] - beat) for beat in info["beats_s"]) < 1e-4


def begins_in(note: dict, chord: dict) -> bool:
    return chord["start_s"] - 1e-4 <= note["start_s"] < chord["end_s"] - 1e-4


def part(audio: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    return audio[int(start_s * RATE_HZ) : int(end_s * RATE_HZ)]


def onset_strength(audio: np.ndarray, hop: int) -> np.ndarray:
    """Rise of the magnitude above 2 kHz over four hops: [frames]. Below, detuned strings and basses beat."""
    magnitude = np.abs(np.fft.rfft(frames_of(audio, 480, hop) * np.hanning(480)))
    magnitude = magnitude[:, np.fft.rfftfreq(480, 1 / RATE_HZ) > 2000]
    return np.maximum(magnitude[4:] - magnitude[:-4], 0).sum(axis=1)


def test_same_seed_same_song_bit_for_bit(songs):
    again, song = synthesize_song(3, SECONDS), songs[3]
    assert (again.vocals == song.vocals).all() and (again.instrumental == song.instrumental).all()
    assert again.info == song.info


def test_other_seeds_other_songs(songs):
    for one, other in itertools.combinations(songs, 2):
        assert one.info["melody"] != other.info["melody"]
        assert abs(np.corrcoef(one.vocals, other.vocals)[0, 1]) < 0.2
        assert abs(np.corrcoef(one.instrumental, other.instrumental)[0, 1]) < 0.4


def test_a_longer_song_begins_as_the_shorter_one():
    short, long = synthesize_song(5, 4.0, 8_000).info, synthesize_song(5, 30.0, 8_000).info
    for name in ("key", "tempo_bpm", "feel", "instruments", "patterns", "voice"):
        assert short[name] == long[name]
    notes = [[(n["start_s"], n["midi"]) for n in info["melody"]] for info in (short, long)]
    assert notes[0] == notes[1][: len(notes[0])]


@pytest.mark.parametrize(("seconds", "rate_hz"), [(1.0, 24_000), (3.21987, 24_000), (2.0001, 16_000), (1.5, 44_100)])
def test_length_is_exact(seconds, rate_hz):
    song = synthesize_song(11, seconds, rate_hz)
    assert song.vocals.shape == song.instrumental.shape == (round(seconds * rate_hz),)
    assert song.vocals.dtype == song.instrumental.dtype == np.float32


def test_levels(songs):
    for song in songs:
        sung = np.zeros(len(song.vocals), bool)
        for note in song.info["melody"]:
            part(sung, note["start_s"], note["end_s"])[:] = True
        for track, where in ((song.vocals, sung), (song.instrumental, slice(None))):
            assert np.isfinite(track).all()
            assert np.abs(track).max() <= PEAK + 1e-6
            assert abs(track.mean()) < 1e-4
            # +-1.5 dB by design; a peaky band is lowered rather than clipped.
            assert -4 < 20 * np.log10(np.sqrt(np.mean(track[where] ** 2)) / RMS) < 2
        quiet = np.sqrt(np.mean(song.vocals[~sung] ** 2))
        assert quiet < 0.3 * np.sqrt(np.mean(song.vocals[sung] ** 2))  # consonants, breaths and the room's tail


def test_band_plays_on_while_the_singer_rests(songs):
    for song in songs:
        pairs = itertools.pairwise(song.info["melody"])
        rests = [(a["end_s"], b["start_s"]) for a, b in pairs if b["start_s"] - a["end_s"] > 0.5]
        assert rests
        for start_s, end_s in rests:
            assert np.sqrt(np.mean(part(song.instrumental, start_s + 0.1, end_s - 0.1) ** 2)) > 0.02


def test_vocal_starts_soon_and_first_downbeat_is_anywhere_in_a_beat():
    infos = [synthesize_song(seed, 2.4, 8_000).info for seed in range(16)]
    assert all(info["melody"][0]["start_s"] < 2.2 for info in infos)
    places = [info["downbeats_s"][0] * info["tempo_bpm"] / 60 for info in infos]
    assert all(0 <= place < 1 for place in places)
    assert min(places) < 0.25 and max(places) > 0.75


def test_sung_pitch_is_the_melody(songs):
    """Frames from the middle of each note, its glide and its consonant left out: within 50 cents nearly always."""
    errors = []
    for song in songs:
        for note in song.info["melody"][::4]:
            middle = int((0.4 * note["start_s"] + 0.6 * note["end_s"]) * RATE_HZ)
            if note["end_s"] - note["start_s"] > 0.18 and middle + 600 < len(song.vocals):
                measured_hz = autocorrelation_pitch_hz(song.vocals[middle - 600 : middle + 600])
                errors.append(1200 * np.log2(measured_hz / 440) - 100 * (note["midi"] - 69))
    assert len(errors) > 20
    assert np.mean(np.abs(errors) < 50) > 0.9
    assert abs(np.median(errors)) < 10


def test_vocal_onsets_are_on_the_grid(songs):
    """The level rises from a rest at the phrase's first note, which is on a slot of the beat."""
    for song in songs:
        info = song.info
        fractions = patterns.FEELS[info["feel"]].slot_fractions
        beat_s = 60 / info["tempo_bpm"]
        for note in info["melody"]:
            phase = (note["start_s"] - info["downbeats_s"][0]) / beat_s % 1
            assert min(abs(phase - f) for f in (*fractions, 1.0)) < 1e-3
    level = np.sqrt(np.mean(frames_of(songs[0].vocals, 480, 120) ** 2, axis=1))
    notes = songs[0].info["melody"]
    for before, note in itertools.pairwise(notes):
        if note["start_s"] - before["end_s"] > 0.4:
            at = int(note["start_s"] * 200) - 2
            assert level[at + 12 : at + 20].max() > 4 * level[at - 60 : at - 50].max()


def test_instrumental_chroma_is_the_chord(songs):
    """Of the twelve transpositions of a chord, the written one is the loudest, in most bars of every song."""
    for song in songs:
        won = []
        for chord in song.info["chords"]:
            if chord["end_s"] - chord["start_s"] < 0.8:
                continue
            template = np.isin(np.arange(12), chord["pitch_classes"])
            chroma = chroma_of(part(song.instrumental, chord["start_s"] + 0.05, chord["end_s"]))
            scores = [np.corrcoef(chroma, np.roll(template, shift))[0, 1] for shift in range(12)]
            won.append(int(np.argmax(scores)) == 0)
        assert np.mean(won) >= 0.7, song.info["instruments"]


def test_melody_fits_its_chords_and_its_singer(songs):
    for song in songs:
        low, high = instruments.VOICES[song.info["voice"]].midi_range
        on_beat = []
        for note in song.info["melody"]:
            assert low <= note["midi"] <= high
            if is_on_a_beat(note, song.info):
                chord = next(chord for chord in song.info["chords"] if begins_in(note, chord))
                on_beat.append(note["midi"] % 12 in chord["pitch_classes"])
        assert len(on_beat) > 3 and all(on_beat)


def test_melody_begins_each_chord_with_its_root(songs):
    """Nearly always, of the notes on a chord's beats. Of random chord tones it would be one in three."""
    root_first = []
    for song in songs:
        on_beat = [note for note in song.info["melody"] if is_on_a_beat(note, song.info)]
        for chord in song.info["chords"]:
            sung = [note["midi"] % 12 for note in on_beat if begins_in(note, chord)]
            root_first += [tone == chord["pitch_classes"][0] for tone in sung[:1]]
    assert len(root_first) > 15 and np.mean(root_first) > 0.7


def test_drum_onsets_are_on_the_grid():
    """Loud onsets are on sixteenths of the beat, and most of the sound's rise is at the beats, not between them."""
    hop, checked = 120, 0
    for seed in range(20):
        info = synthesize_song(seed, 1.0, 8_000).info
        if "drums" not in info["instruments"] or info["feel"] != "straight":
            continue
        song = synthesize_song(seed, 8.0)
        strength = onset_strength(song.instrumental, hop)
        neighbours = np.lib.stride_tricks.sliding_window_view(np.pad(strength, 12), 25).max(axis=1)
        loud = np.flatnonzero((strength == neighbours) & (strength > 0.3 * strength.max()))
        times_s = (loud + 2) * hop / RATE_HZ + 240 / RATE_HZ  # halfway of the rise, middle of the frame
        sixteenth_s = 60 / song.info["tempo_bpm"] / 4
        phase = (times_s - song.info["beats_s"][0]) / sixteenth_s
        assert len(loud) >= 8
        assert np.mean(np.abs(phase - np.round(phase)) * sixteenth_s < 0.02) > 0.9

        def strongest(times_s: np.ndarray, strength: np.ndarray = strength) -> float:
            frames = np.round((times_s * RATE_HZ - 240) / hop).astype(int) - 2
            return float(np.median([strength[max(f - 3, 0) : f + 4].max() for f in frames]))

        beats_s = np.array(song.info["beats_s"][1:-1])
        assert strongest(beats_s) > 2 * strongest(beats_s + 1.5 * sixteenth_s)
        checked += 1
        if checked == 3:
            return
    pytest.fail("too few songs with drums")


def test_info_is_consistent_json(songs):
    for song in songs:
        info = json.loads(json.dumps(song.info))
        assert info == song.info
        assert np.allclose(np.diff(info["beats_s"]), 60 / info["tempo_bpm"], atol=2e-6)
        assert info["downbeats_s"] == info["beats_s"][:: info["beats_per_bar"]]
        assert info["beats_s"][-1] < SECONDS
        for a, b in itertools.pairwise(info["chords"]):
            assert a["end_s"] == b["start_s"]
        assert info["chords"][-1]["end_s"] == SECONDS
        for chord in info["chords"]:
            root = chord["name"][: 2 if chord["name"][1:2] in ("b", "#") else 1]
            steps = patterns.QUALITIES[chord["name"][len(root) :]]
            assert chord["pitch_classes"] == [(TONICS.index(root) + s) % 12 for s in steps]
            assert min(abs(chord["start_s"] - d) for d in info["downbeats_s"]) < 1e-5
        for a, b in itertools.pairwise(info["melody"]):
            assert a["start_s"] < a["end_s"] <= b["start_s"] + 1e-6


def test_tables_are_whole():
    for mode, progressions in patterns.PROGRESSIONS.items():
        assert mode in patterns.SCALES
        assert all(len(p.split()) == 4 and set(p.split()) <= set(patterns.NUMERALS) for p in progressions)
    for tables in (patterns.BASS_PATTERNS, patterns.CHORD_PATTERNS, patterns.DRUM_PATTERNS):
        assert tables.keys() == patterns.FEELS.keys()
        for feel, rows in tables.items():
            for row in itertools.chain.from_iterable(r.values() if isinstance(r, dict) else [r] for r in rows.values()):
                assert len(row) in (patterns.FEELS[feel].slots_per_bar, 2 * patterns.FEELS[feel].slots_per_bar)
    played = {*patterns.CHORD_INSTRUMENTS, *patterns.BASS_INSTRUMENTS, *patterns.LEAD_INSTRUMENTS}
    assert played == set(instruments.TIMBRES)
    kit = instruments.drum_kit(np.random.default_rng(0), RATE_HZ)
    used = {drum for feel in patterns.DRUM_PATTERNS.values() for rows in feel.values() for drum in rows}
    assert used | {"tom", "crash"} == set(kit)


def test_splits_share_no_seed():
    numbers = itertools.product(SPLITS, (0, 1, 2, 3, 4, 2**32 - 1), (0, 1, 2, 5, 10**9))
    seeds = list(itertools.starmap(song_seed, numbers))
    assert len(set(seeds)) == len(seeds)
    for bad in (("dev", 0, 0), ("train", -1, 0), ("train", 2**32, 0), ("train", 0, -1)):
        with pytest.raises(ValueError):
            song_seed(*bad)


@pytest.mark.parametrize(
    "arguments", [(0, 0.5, RATE_HZ), (0, float("nan"), RATE_HZ), (0, 2.0, 4000), (-1, 2.0, RATE_HZ)]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        synthesize_song(*arguments)
