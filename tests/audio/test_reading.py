"""The reader of audio against the writers of libsndfile and FFmpeg: whole and damaged files, false headers, pipes."""

from __future__ import annotations

import io
import math
import os
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.media import write_media
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import reading
from hafm_jax.audio.reading import length_s, read_audio, read_sound
from hafm_jax.common.errors import InputError

RATE_HZ = 24_000
SECONDS = 6
LOSSLESS = ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"]
LOSSY = ["MP3", "VORBIS", "OPUS", "M4A"]


def sweep(seconds: float = SECONDS, channels: int = 1) -> np.ndarray:
    """[C, S], multiples of 2**-15: a tone that rises, other in each channel, so that each moment sounds different, and
    noise, without which codecs would have little to write."""
    t_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    waves = [np.sin(2 * np.pi * (200 + 30 * channel + 60 * t_s) * t_s) for channel in range(channels)]
    noise = np.random.default_rng(0).uniform(-1, 1, (channels, len(t_s)))
    return np.round(2**15 * (0.3 * np.stack(waves) + 0.03 * noise)) / 2**15


@cache
def encoded(file_format: str, channels: int = 1, seconds: float = SECONDS) -> bytes:
    audio = sweep(seconds, channels)
    if file_format == "M4A":
        path = Path(os.environ.get("TMPDIR", "/tmp"), f"hafm-{os.getpid()}.m4a")
        try:
            return write_media(path, [audio], RATE_HZ, "aac").read_bytes()
        finally:
            path.unlink(missing_ok=True)
    buffer = io.BytesIO()
    container, subtype = ("OGG", file_format) if file_format in ("VORBIS", "OPUS") else (file_format, None)
    # libsndfile overflows the stack where it encodes Vorbis in one go
    with soundfile.SoundFile(buffer, "w", RATE_HZ, channels, format=container, subtype=subtype) as file:
        for start in range(0, audio.shape[1], 4096):
            file.write(audio[:, start : start + 4096].T)
    return buffer.getvalue()


def wav(
    samples: np.ndarray,
    *,
    size: int | None = None,
    rate_hz: int = RATE_HZ,
    channels: int = 1,
    long_size: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """A WAV of 16-bit samples, or an RF64 where `long_size` is given; `size` is what its header says, in bytes."""
    data = np.asarray(samples, "<i2").tobytes()
    size = len(data) if size is None else size
    ds64 = b"" if long_size is None else b"ds64" + struct.pack("<IQQQI", 28, long_size + 80, long_size, 0, 0)
    fmt = struct.pack(
        "<IHHIIHH", 16, 1, channels, rate_hz, min(2 * channels * rate_hz, 2**32 - 1), 2 * channels % 2**16, 16
    )
    body = b"WAVE" + ds64 + b"fmt " + fmt + b"data" + struct.pack("<I", size) + data + tail
    return (b"RIFF" if long_size is None else b"RF64") + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def flac_that_claims(data: bytes, num_samples: int) -> bytes:
    """STREAMINFO's count has 36 bits; 0 says that it is not known."""
    flac = bytearray(data)
    flac[21] = flac[21] & 0xF0 | num_samples >> 32
    flac[22:26] = struct.pack(">I", num_samples & 0xFFFFFFFF)
    return bytes(flac)


def like(found: np.ndarray, expected: np.ndarray) -> float:
    """The correlation of the first channels, over the length of the shorter."""
    length = min(found.shape[1], expected.shape[1])
    return float(np.corrcoef(found[0, :length], expected[0, :length])[0, 1])


# ---------------------------------------------------------------------------------------------------------- whole files


@settings(max_examples=20)
@given(
    file_format=st.sampled_from(LOSSLESS),
    channels=st.integers(1, 8),
    rate_hz=st.sampled_from([1000, 8000, 22_050, 44_100, 96_000, 192_000]),
    num_samples=st.integers(1, 6000),
    subtype=st.sampled_from(["PCM_16", "PCM_24"]),
)
def test_a_lossless_file_is_read_to_the_bit(tmp_path_factory, file_format, channels, rate_hz, num_samples, subtype):
    bits = int(subtype[-2:])
    samples = np.random.default_rng(num_samples).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (num_samples, channels))
    path = tmp_path_factory.mktemp("lossless") / "a"
    soundfile.write(path, samples.astype(np.int32) << (32 - bits), rate_hz, format=file_format, subtype=subtype)
    sound = read_sound(path)
    assert sound.audio.dtype == np.float32 and sound.audio.flags.c_contiguous and sound.sample_rate_hz == rate_hz
    np.testing.assert_array_equal(sound.audio, (samples.T / 2 ** (bits - 1)).astype(np.float32))
    assert sound.holes == () and sound.damage == ""
    assert length_s(path) == sound.claimed_s == num_samples / rate_hz


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"])
def test_other_encodings_of_wav_are_read_as_libsndfile_reads_them(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", 0.9 * sweep(1, 2).T, RATE_HZ, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    sound = read_sound(tmp_path / "a.wav")
    assert sound.damage == ""
    length = len(expected)
    np.testing.assert_allclose(sound.audio[:, :length], expected.T, atol=3e-3 if "ADPCM" in subtype else 1e-7)
    assert sound.audio.shape[1] - length in (range(2048) if "ADPCM" in subtype else [0])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("file_format", LOSSY)
def test_a_lossy_file_is_as_long_as_what_was_encoded_and_in_its_place(tmp_path, file_format, channels):
    path = tmp_path / "a"
    path.write_bytes(encoded(file_format, channels))
    sound = read_sound(path)
    audio = sound.audio[:, :: sound.sample_rate_hz // RATE_HZ]  # Opus is 48 kHz
    assert audio.shape == (channels, SECONDS * RATE_HZ) and sound.damage == ""
    assert min(like(audio[[c]], sweep(channels=channels)[[c]]) for c in range(channels)) > 0.98
    assert length_s(path) == pytest.approx(SECONDS, abs=0.01)


@settings(max_examples=20)
@given(rate_hz=st.sampled_from([8000, 22_050, 24_000, 44_100]), num_samples=st.integers(2000, 30_000))
def test_an_ogg_of_one_page_is_read_as_libsndfile_reads_it(tmp_path_factory, rate_hz, num_samples):
    path = tmp_path_factory.mktemp("ogg") / "a.ogg"
    soundfile.write(path, 0.3 * np.sin(np.arange(num_samples) ** 1.4 / 70), rate_hz)
    expected, _ = soundfile.read(path)
    sound = read_sound(path)
    assert sound.audio.shape == (1, num_samples) and sound.damage == ""
    np.testing.assert_allclose(sound.audio[0, :-300], expected[:-300], atol=1e-4)


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "MP3", "VORBIS", "M4A"])
@pytest.mark.parametrize("max_s", [0.04, 1.0, 2.5, 100.0, math.inf, 1e308])
def test_no_more_is_read_than_asked_for(tmp_path, file_format, max_s):
    path = tmp_path / "a"
    path.write_bytes(encoded(file_format))
    whole, head = read_sound(path), read_sound(path, max_s)
    np.testing.assert_array_equal(head.audio, whole.audio[:, : round(min(max_s, SECONDS) * RATE_HZ)])
    assert head.damage == "" and head.claimed_s == pytest.approx(min(max_s, SECONDS))


# --------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("file_format", ["WAV", "RF64", "AIFF", "AU", "FLAC", "MP3"])
def test_wherever_a_file_is_cut_what_is_left_is_read_and_both_durations_are_named(tmp_path, file_format):
    whole, path, expected = encoded(file_format), tmp_path / "a", sweep()

    @settings(max_examples=8)
    @given(share=st.floats(0.1, 0.95))
    def cut(share):
        path.write_bytes(whole[: round(share * len(whole))])
        sound = read_sound(path)
        found_s = sound.audio.shape[1] / RATE_HZ
        assert abs(found_s - share * SECONDS) < 0.7  # MP3's bit rate and FLAC's change
        assert like(sound.audio, expected) > 0.98
        assert sound.claimed_s == pytest.approx(SECONDS) and not sound.holes
        assert sound.damage == f"holds {found_s:.2f} s of the 6.00 s that it claims"
        with pytest.raises(InputError, match=f"{path} holds .* expected a whole file"):
            read_audio(path)

    cut()


@pytest.mark.parametrize("file_format", ["VORBIS", "OPUS", "FLAC", "M4A"])
@pytest.mark.parametrize("filled", [False, True], ids=["removed", "overwritten"])
def test_what_follows_a_hole_stays_in_its_place(tmp_path, file_format, filled):
    if file_format == "M4A" and not filled:
        pytest.skip("its index has the places of frames in the file: none is where it was")
    seconds = 20
    whole, path, expected = encoded(file_format, seconds=seconds), tmp_path / "a", sweep(seconds)

    @settings(max_examples=6)
    @given(start=st.floats(0.2, 0.5), share=st.floats(0.1, 0.3))
    def hole(start, share):
        first, last = round(start * len(whole)), round((start + share) * len(whole))
        path.write_bytes(whole[:first] + bytes(last - first) * filled + whole[last:])
        sound = read_sound(path)
        audio = sound.audio[:, :: sound.sample_rate_hz // RATE_HZ]
        assert audio.shape == expected.shape
        # Where a codec has its own times, packets or pages of up to 1 s are lost whole.
        ends = (
            slice(0, round((start * seconds - 2.5) * RATE_HZ)),
            slice(round(((start + share) * seconds + 2.5) * RATE_HZ), None),
        )
        for end in ends:
            assert like(audio[:, end], expected[:, end]) > 0.98
        missing_s = sum(stop - begin for begin, stop in sound.holes)
        assert abs(missing_s - share * seconds) < 2.5
        for begin, stop in sound.holes:
            assert not sound.audio[:, round(begin * sound.sample_rate_hz) : round(stop * sound.sample_rate_hz)].any()
        assert f"{seconds - missing_s:.2f} s of the {seconds}.0" in sound.damage
        assert f"missing at {sound.holes[0][0]:.2f} s" in sound.damage

    hole()


@settings(max_examples=8)
@given(start=st.floats(0.1, 0.6), share=st.floats(0.1, 0.3), filled=st.booleans())
def test_mp3_has_no_times_but_what_a_hole_took_is_missed(tmp_path_factory, start, share, filled):
    whole, path = encoded("MP3"), tmp_path_factory.mktemp("mp3") / "a.mp3"
    first, last = round(start * len(whole)), round((start + share) * len(whole))
    path.write_bytes(whole[:first] + bytes(last - first) * filled + whole[last:])
    sound = read_sound(path)
    assert sound.claimed_s == pytest.approx(SECONDS)
    assert abs(sound.audio.shape[1] / RATE_HZ - (1 - share) * SECONDS) < 0.7 and "s of the 6.00 s" in sound.damage


@settings(max_examples=20)
@given(place=st.floats(0.1, 0.99), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_flac_is_never_a_noise(tmp_path_factory, place, bit):
    data = bytearray(encoded("FLAC"))
    data[round(place * (len(data) - 1))] ^= 1 << bit
    path = tmp_path_factory.mktemp("flac") / "a.flac"
    path.write_bytes(data)
    sound, expected = read_sound(path), sweep().astype(np.float32)
    length = min(sound.audio.shape[1], expected.shape[1])
    same = (sound.audio[:, :length] == expected[:, :length]) | (sound.audio[:, :length] == 0)
    assert same.mean() > 0.989 or np.abs(sound.audio).max() < 0.34
    assert sound.damage


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "VORBIS", "MP3", "M4A", "AIFF"])
def test_any_damage_is_at_most_an_input_error(tmp_path, file_format):
    whole, path = encoded(file_format, 2, 0.25), tmp_path / f"a.{file_format.lower()}"

    @settings(max_examples=40)
    @given(
        flips=st.lists(st.tuples(st.integers(0, min(len(whole) - 1, 300)), st.integers(0, 255)), max_size=4),
        length=st.integers(0, len(whole)),
    )
    def damage(flips, length):
        data = bytearray(whole)
        for place, value in flips:
            data[place] = value
        path.write_bytes(data[:length])
        try:
            sound = read_sound(path, max_s=1.0)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert sound.audio.dtype == np.float32 and np.isfinite(sound.audio).all()
            assert 0 < sound.audio.shape[1] <= sound.sample_rate_hz

    damage()


# -------------------------------------------------------------------------------------------------------- false headers


@settings(max_examples=40)
@given(
    num_samples=st.integers(RATE_HZ // 4, RATE_HZ),
    size=st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 3 * RATE_HZ), st.sampled_from([0, 2**31, 2**32 - 1])),
    long_size=st.one_of(st.none(), st.integers(1, 2**50)),
)
def test_all_sound_of_a_wav_is_read_whatever_its_header_says(tmp_path_factory, num_samples, size, long_size):
    samples = np.arange(num_samples) % 200 - 100  # whose bytes are never a chunk's name
    if long_size is not None:
        size = 2**32 - 1
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    path.write_bytes(wav(samples, size=size, long_size=long_size))
    sound = read_sound(path)
    stated = size if long_size is None else long_size
    kept = num_samples - sound.audio.shape[1]
    assert kept == 0 or (kept <= 1 + 0.1 * RATE_HZ and stated <= 2 * num_samples)  # a short tail is no sound
    np.testing.assert_array_equal(sound.audio[0], (samples / 2**15).astype(np.float32)[: sound.audio.shape[1]])
    unknown = long_size is None and (size in (0, 2**32 - 1) or 0x7FFFF000 <= size <= 0x80000000)
    assert bool(sound.damage) == (not unknown and stated / 2 - num_samples > 0.1 * RATE_HZ)
    if sound.damage:
        assert sound.damage.endswith(f"of the {stated / 2 / RATE_HZ:.2f} s that it claims")


def test_chunks_that_follow_the_data_are_not_sound(tmp_path):
    samples = np.arange(RATE_HZ) % 200 - 100
    tail = b"LIST" + struct.pack("<I", 20_000) + bytes(20_000)
    (tmp_path / "a.wav").write_bytes(wav(samples, tail=tail))
    assert read_audio(tmp_path / "a.wav")[0].shape == (1, RATE_HZ)


@settings(max_examples=20)
@given(claimed=st.one_of(st.integers(0, 2**36 - 1), st.integers(0, 2 * SECONDS * RATE_HZ)))
def test_all_sound_of_a_flac_is_read_whatever_its_header_says(tmp_path_factory, claimed):
    path = tmp_path_factory.mktemp("flac") / "a.flac"
    path.write_bytes(flac_that_claims(encoded("FLAC"), claimed))
    try:
        sound = read_sound(path)
    except InputError as error:  # the length is possible in a file of its size, for silence
        assert "half of the free memory" in str(error) and claimed * 8 > reading.host_free_bytes() / 2
        return
    np.testing.assert_array_equal(sound.audio, sweep().astype(np.float32))
    assert sound.claimed_s == (claimed / RATE_HZ or None)
    assert bool(sound.damage) == (claimed > (SECONDS + 0.1) * RATE_HZ)
    assert length_s(path) == (claimed / RATE_HZ or SECONDS)


@pytest.mark.parametrize("rate_hz", [0, 1, 7, 999, 1_000_001, 10**9, 4 * 10**9])
def test_rates_that_no_voice_has_are_refused(tmp_path, rate_hz):
    (tmp_path / "a.wav").write_bytes(wav(np.ones(48_000), rate_hz=rate_hz))
    with pytest.raises(InputError, match=rf"a\.wav has {rate_hz} samples a second; expected 1000 to 1000000"):
        read_sound(tmp_path / "a.wav")


@pytest.mark.parametrize("channels", [0, 65, 1000, 65_535])
def test_numbers_of_channels_that_no_voice_has_are_refused(tmp_path, channels):
    (tmp_path / "a.wav").write_bytes(wav(np.ones(48_000), channels=channels))
    with pytest.raises(InputError, match=rf"a\.wav has {channels} channels; expected 1 to 64"):
        read_sound(tmp_path / "a.wav")


def test_the_greatest_number_of_channels_is_read(tmp_path):
    samples = np.random.default_rng(0).integers(-99, 99, (500, 64))
    (tmp_path / "a.wav").write_bytes(wav(samples, channels=64))
    np.testing.assert_array_equal(read_sound(tmp_path / "a.wav").audio, (samples.T / 2**15).astype(np.float32))


@pytest.mark.parametrize(
    ("value", "words"), [(1e38, "1.0e"), (-3e9, "3.0e"), (np.nan, "3 samples that"), (np.inf, "3 s"), (1e300, "3 s")]
)
def test_numbers_that_are_no_samples_are_said_of_the_file(tmp_path, value, words):
    audio = np.zeros(RATE_HZ)
    audio[[5, 700, -1]] = value
    soundfile.write(tmp_path / "a.wav", audio, RATE_HZ, subtype="DOUBLE")
    with pytest.raises(InputError, match=rf"a\.wav holds .*{words}.*expected numbers in -1\.\.1.*: export it again"):
        read_sound(tmp_path / "a.wav")


@pytest.mark.parametrize("scale", [1.0, 40.0, 2.0**15, 2.0**23, 2.0**31])
def test_floats_in_the_scale_of_integers_are_read(tmp_path, scale):
    soundfile.write(tmp_path / "a.wav", scale * sweep(1)[0], RATE_HZ, subtype="FLOAT")
    np.testing.assert_array_equal(read_sound(tmp_path / "a.wav").audio, np.float32(scale * sweep(1)))


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("known", [True, False], ids=["by the header", "while it is read"])
def test_no_more_is_read_than_fits(tmp_path, monkeypatch, known):
    """Two minutes of silence in eight channels are 20 KB as FLAC, and 92 MB as samples."""
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", RATE_HZ, 8) as file:
        for _ in range(120):
            file.write(np.zeros((RATE_HZ, 8)))
    if not known:
        path.write_bytes(flac_that_claims(path.read_bytes(), 0))
    monkeypatch.setattr(reading, "host_free_bytes", lambda: 20_000_000)
    tracemalloc.start()
    with pytest.raises(
        InputError, match=r"a\.flac has \d+ s or more of 8 channels .*; expected at most 0\.01 GB, half"
    ):
        read_sound(path)
    assert tracemalloc.get_traced_memory()[1] < (1e6 if known else 12e6)
    tracemalloc.stop()
    assert read_sound(path, max_s=10).audio.shape == (8, 10 * RATE_HZ)
    monkeypatch.setattr(reading, "host_free_bytes", lambda: None)  # unknown
    assert read_sound(path, max_s=20).audio.shape == (8, 20 * RATE_HZ)


# --------------------------------------------------------------------------------------------------------------- places


def test_bad_places_are_named_by_their_reason(tmp_path):
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "text.wav").write_text("la la la " * 99)
    (tmp_path / "raw.raw").write_bytes(bytes(64))
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE_HZ)
    for name, reason in {
        "absent.wav": "does not exist",
        "dangling.wav": "does not exist",
        ".": "is a folder",
        "empty.mp3": r"is empty \(0 bytes\)",
        "text.wav": "cannot be read as audio",
        "raw.raw": "cannot be read as audio",
        "none.wav": "holds no samples",
        "loop.wav": r"cannot be opened \(Too many levels",
        f"{'x' * 300}.wav": r"cannot be opened \(File name too long\)",
        "nul\0.wav": r"cannot be opened \(embedded null byte\)",
        "text.wav/a.wav": r"cannot be opened \(Not a directory\)",
    }.items():
        for read in (read_sound, read_audio) + (length_s,) * (name != "none.wav"):
            with pytest.raises(InputError, match=reason) as caught:
                read(tmp_path / name)
            assert "expected" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_permission_is_named_so(tmp_path):
    (tmp_path / "folder").mkdir(0)
    soundfile.write(tmp_path / "a.wav", np.zeros(9000), RATE_HZ)
    (tmp_path / "a.wav").chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything; 65534 may not even enter pytest's folder
        os.seteuid(65_534)
    try:
        for name in ("a.wav", "folder/a.wav"):
            with pytest.raises(InputError, match=rf"{name} cannot be opened \(Permission denied\)"):
                read_sound(tmp_path / name)
    finally:
        os.seteuid(user)
        (tmp_path / "folder").chmod(0o700)


@pytest.mark.parametrize(
    "name", [b"caf\xe9.wav", b"-v: 100%.wav", b"pipe:0", b"http:__x.wav", "\u2028 \U0001f3b5.wav".encode()]
)
def test_odd_names_are_read(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(encoded("WAV"))
    assert read_audio(path)[0].shape == (1, SECONDS * RATE_HZ)


CASES = {  # a file as it came from somewhere -> its bytes, the seconds that are read, what is said of it
    "plain.wav": (lambda: encoded("WAV"), 6.0, ""),
    "half.mp3": (lambda: encoded("MP3")[: len(encoded("MP3")) // 2], (2.5, 3.5), "of the 6.00 s that it claims"),
    "hole.opus": (lambda: without_middle(encoded("OPUS")), 6.0, "of the 6.01 s that it claims (silence is"),
    "hole.ogg": (lambda: without_middle(encoded("VORBIS")), 6.0, "of the 6.00 s that it claims (silence is"),
    "unknown_length.flac": (lambda: flac_that_claims(encoded("FLAC"), 0), 6.0, ""),
    "too_many_samples.flac": (lambda: flac_that_claims(encoded("FLAC"), 2**36 - 1), 6.0, "of the 2863311.53 s"),
    "data_size_0.wav": (lambda: wav(2**15 * sweep()[0], size=0), 6.0, ""),
    "data_size_of_a_pipe.wav": (lambda: wav(2**15 * sweep()[0], size=2**32 - 1), 6.0, ""),
    "four_gigabytes.wav": (lambda: wav(2**15 * sweep()[0], size=2**32 - 16), 6.0, "of the 89478.49 s"),
    "2_to_40_samples.rf64": (lambda: wav(2**15 * sweep()[0], size=2**32 - 1, long_size=2**41), 6.0, "6.00 s of the 4"),
    "stopped_recorder.wav": (lambda: wav(2**15 * sweep()[0], size=RATE_HZ), 6.0, ""),
    "two_in_one.opus": (lambda: 2 * encoded("OPUS"), 12.0, ""),
}


def without_middle(data: bytes) -> bytes:
    return data[: len(data) // 2] + data[len(data) * 2 // 3 :]


@pytest.mark.parametrize("name", CASES)
def test_files_that_were_reported_are_read_and_described(tmp_path, name):
    make, seconds, said = CASES[name]
    path = tmp_path / name
    path.write_bytes(make())
    sound = read_sound(path)
    least_s, most_s = (seconds, seconds) if isinstance(seconds, float) else seconds
    assert least_s <= sound.audio.shape[1] / sound.sample_rate_hz <= most_s
    assert bool(sound.damage) == bool(said) and said in sound.damage
    if said:
        with pytest.raises(InputError, match="expected a whole file"):
            read_audio(path)


# ---------------------------------------------------------------------------------------------------------------- pipes


@contextmanager
def piped(path: Path, data: bytes, wait_s: float = 0.0, block: int = 5000):
    """A named pipe into which a thread writes."""

    def write():
        time.sleep(wait_s)
        with suppress(BrokenPipeError), open(path, "wb", 0) as pipe:
            for start in range(0, len(data), block):
                pipe.write(data[start : start + block])

    os.mkfifo(path)
    thread = threading.Thread(target=write)
    thread.start()
    yield path
    thread.join(10)
    assert not thread.is_alive()
    path.unlink()


@pytest.mark.parametrize("max_s", [math.inf, 2.0])
@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "MP3", "VORBIS", "OPUS", "AIFF", "AU"])
def test_a_pipe_is_read_like_a_file(tmp_path, file_format, max_s):
    (tmp_path / "file").write_bytes(encoded(file_format))
    expected = read_sound(tmp_path / "file", max_s)
    with piped(tmp_path / "pipe", encoded(file_format)) as pipe:
        found = read_sound(pipe, max_s)
    kept = expected.audio.shape[1]
    if file_format == "MP3" and max_s == math.inf:  # FFmpeg knows where its padding begins only if it can seek
        assert 0 <= found.audio.shape[1] - kept < 1152
        kept -= 1152
        found = found._replace(audio=found.audio[:, :kept])
    np.testing.assert_array_equal(found.audio, expected.audio[:, :kept])
    assert found.damage == "" and found.sample_rate_hz == expected.sample_rate_hz


def test_of_an_endless_pipe_the_first_seconds_are_read(tmp_path):
    data = wav(np.arange(60 * RATE_HZ) % 200 - 100, size=2**32 - 1)
    with piped(tmp_path / "pipe", data) as pipe:
        assert read_sound(pipe, 1.5).audio.shape == (1, 36_000)


def test_what_a_pipe_claims_and_does_not_send_is_missed(tmp_path):
    with piped(tmp_path / "pipe", encoded("WAV")[: 44 + RATE_HZ]) as pipe:
        assert read_sound(pipe).damage == "holds 0.50 s of the 6.00 s that it claims"


def test_a_pipe_that_does_not_fit_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "host_free_bytes", lambda: 1_000_000)
    with piped(tmp_path / "pipe", encoded("WAV")) as pipe, pytest.raises(InputError, match="half of the free memory"):
        read_sound(pipe)


def test_an_empty_pipe_and_a_format_that_needs_a_file_are_named(tmp_path):
    with piped(tmp_path / "pipe", b"") as pipe, pytest.raises(InputError, match=r"pipe is empty \(0 bytes\)"):
        read_sound(pipe)
    with (
        piped(tmp_path / "pipe", encoded("M4A")) as pipe,
        pytest.raises(InputError, match=r": give a file: from a pipe"),
    ):
        read_sound(pipe)


def test_a_pipe_is_not_waited_for_without_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reading, "PIPE_PATIENCE_S", 0.05)
    with piped(tmp_path / "pipe", encoded("WAV"), wait_s=0.3) as pipe:
        read_sound(pipe)
    assert capsys.readouterr().err == f"waiting for audio from the pipe {tmp_path / 'pipe'}\n"


def test_the_standard_input_is_a_pipe_too():
    program = "from hafm_jax.audio.reading import *; print(read_sound('/dev/stdin').audio.shape)"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=encoded("WAV"), capture_output=True, env=environment, check=True)
    assert done.stdout.decode() == f"(1, {SECONDS * RATE_HZ})\n"


def test_corpora_and_songs_are_files_not_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for read in (read_audio, length_s):
        with pytest.raises(InputError, match=r"pipe\.wav is a pipe or a device; expected an audio file"):
            read(tmp_path / "pipe.wav")


# --------------------------------------------------------------------------------------------- containers of PyAV's own


@pytest.mark.parametrize("codec, name", [("alac", "-v: 100%.m4a"), ("flac", "a.mka")])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_lossless_media_file_is_read_to_the_bit(tmp_path, codec, name, channels):
    audio = sweep(0.5, channels)
    path = write_media(tmp_path / name, [audio], RATE_HZ, codec)
    np.testing.assert_array_equal(read_audio(path)[0], audio)
    np.testing.assert_array_equal(read_audio(path, 0.1)[0], audio[:, : RATE_HZ // 10])


def test_a_file_of_aac_begins_and_ends_where_its_container_says(tmp_path):
    """Without the encoder's delay of 1,024 samples and the padding of the last frame."""
    audio = sweep(0.5, 2)
    found, _ = read_audio(write_media(tmp_path / "a.m4a", [audio], RATE_HZ, "aac", bit_rate=256_000))
    assert found.shape == audio.shape
    np.testing.assert_allclose(found[:, 1000:-1000], audio[:, 1000:-1000], atol=0.03)


def test_a_length_that_a_container_only_estimates_cuts_nothing(tmp_path):
    """Raw AAC has no length in it: FFmpeg guesses one from the bit rate of the first frames, here loud ones."""
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, (2, RATE_HZ))
    audio = np.concatenate([loud, np.zeros((2, RATE_HZ * 9))], axis=1)
    path = write_media(tmp_path / "a.aac", [audio], RATE_HZ, "aac", "adts", bit_rate=256_000)
    sound = read_sound(path)
    assert audio.shape[1] <= sound.audio.shape[1] <= audio.shape[1] + 3 * 1024
    assert sound.claimed_s is None and sound.damage == ""
