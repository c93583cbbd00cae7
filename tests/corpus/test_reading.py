from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.media import write_media
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.reading import Source, read_source


def encoded(file_format: str, folder: Path) -> bytes:
    wave = 0.3 * np.sin(np.arange(6000) / 7)
    audio = np.stack([wave, -wave])
    if file_format == "M4A":
        return write_media(folder / "encoded.m4a", [audio], 22_050, "aac").read_bytes()
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.T, 22_050, format=file_format)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3", "M4A"])
def test_any_damage_is_at_most_an_input_error(tmp_path, file_format):
    whole = encoded(file_format, tmp_path)
    path = tmp_path / f"a.{file_format.lower()}"

    @settings(max_examples=80)
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
            audio, rate_hz = read_source(Source(path), max_s=1.0)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert audio.dtype == np.float32 and np.isfinite(audio).all() and 0 < audio.shape[1] <= rate_hz

    damage()
    path.write_bytes(whole)
    assert read_source(Source(path))[0].shape[0] == 2


def test_no_more_is_read_than_asked_for(tmp_path):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 1000)
    soundfile.write(tmp_path / "a.wav", audio, 1000, subtype="FLOAT")
    head, rate_hz = read_source(Source(tmp_path / "a.wav"), max_s=0.25)
    np.testing.assert_array_equal(head[0], audio[:250].astype(np.float32))
    assert rate_hz == 1000 and read_source(Source(tmp_path / "a.wav"), max_s=5.0)[0].shape == (1, 1000)


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    with open(os.fsencode(path), "wb") as file:
        file.write(encoded("WAV", tmp_path))
    assert read_source(Source(path))[0].shape == (2, 6000)


# ------------------------------------------------------------------------------------------------------- media files


def tone(num_samples: int, rate_hz: int = 44_100, channels: int = 2) -> np.ndarray:
    """[C, S], multiples of 2**-15."""
    wave = np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate_hz)
    return np.round(0.5 * wave * 2**15)[None].repeat(channels, axis=0) / 2**15


@pytest.mark.parametrize("rate_hz, channels", [(44_100, 2), (22_050, 1)])
def test_a_lossless_media_file_is_read_to_the_bit(tmp_path, rate_hz, channels):
    audio = tone(6001, rate_hz, channels)
    odd = write_media(tmp_path / "-v: 100%.m4a", [audio], rate_hz)
    found, found_hz = read_source(Source(odd))
    assert found.dtype == np.float32 and found_hz == rate_hz
    np.testing.assert_array_equal(found, audio)
    head, _ = read_source(Source(odd), max_s=0.1)
    np.testing.assert_array_equal(head, audio[:, : math.ceil(0.1 * rate_hz)])
    assert read_source(Source(odd), max_s=5.0)[0].shape == audio.shape
    latin = tmp_path / os.fsdecode(b"caf\xe9.m4a")
    odd.rename(latin)
    np.testing.assert_array_equal(read_source(Source(latin))[0], audio)


def test_a_file_of_aac_begins_and_ends_where_its_container_says(tmp_path):
    """Without the encoder's delay of 1,024 samples and the padding of the last frame."""
    audio = tone(44_100 // 2)
    found, _ = read_source(Source(write_media(tmp_path / "a.m4a", [audio], 44_100, "aac", bit_rate=256_000)))
    assert found.shape == audio.shape
    middle = slice(2000, 20_000)
    np.testing.assert_allclose(found[:, middle], audio[:, middle], atol=0.01)


def test_a_length_that_a_container_only_estimates_cuts_nothing(tmp_path):
    """Raw AAC has no length in it: FFmpeg guesses one from the bit rate of the first frames, here loud ones."""
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 44_100))
    audio = np.concatenate([loud, np.zeros((2, 44_100 * 9))], axis=1)
    path = write_media(tmp_path / "a.aac", [audio], 44_100, "aac", "adts", bit_rate=256_000)
    assert audio.shape[1] <= read_source(Source(path))[0].shape[1] <= audio.shape[1] + 3 * 1024


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"no audio" * 100,
        lambda data: data[:200],
        lambda data: data[:100] + 20_000 * b"\xff" + data[20_100:],
    ],
    ids=["empty", "text", "cut", "overwritten"],
)
def test_a_damaged_media_file_is_named_in_one_line(tmp_path, change):
    path = write_media(tmp_path / "a.m4a", [tone(9000)], 44_100)
    path.write_bytes(change(path.read_bytes()))
    message = r"a\.m4a .*cannot be decoded \(.*\); expected audio: export it again"
    with pytest.raises(InputError, match=message) as caught:
        read_source(Source(path))
    assert "\n" not in str(caught.value)


def test_absent_media_files_and_streams_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_source(Source(tmp_path / "absent.m4a"))
    path = write_media(tmp_path / "a.mp4", [tone(100), tone(100)], 44_100)
    assert read_source(Source(path, 1))[0].shape == (2, 100)
    with pytest.raises(InputError, match=r"stream 2\) cannot be decoded \(it has 2 audio streams"):
        read_source(Source(path, 2))


def test_media_samples_that_are_not_numbers_are_refused(tmp_path):
    audio = tone(100)
    audio[1, 50] = np.nan
    path = write_media(tmp_path / "a.mka", [audio], 44_100, "pcm_f32le")
    with pytest.raises(InputError, match=r"a\.mka holds NaN or infinity"):
        read_source(Source(path))
