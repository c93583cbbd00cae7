"""A track's audio: one stream of a container; and nothing that is not whole."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile
from helpers.media import write_media

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.reading import Source, read_source


def tone(num_samples: int, phase: float = 0.0) -> np.ndarray:
    """[2, S], multiples of 2**-15."""
    wave = np.sin(phase + 2 * np.pi * 440 * np.arange(num_samples) / 44_100)
    return np.round(0.5 * wave * 2**15)[None].repeat(2, axis=0) / 2**15


def test_a_source_is_a_file_or_a_stream_of_one(tmp_path):
    first, second = tone(5000), tone(5000, 1.0)
    path = write_media(tmp_path / "a.mp4", [first, second], 44_100)
    for number, expected in ((None, first), (0, first), (1, second)):
        found, rate_hz = read_source(Source(path, number))
        np.testing.assert_array_equal(found, expected)
        assert rate_hz == 44_100
    assert read_source(Source(path, 1), max_s=0.01)[0].shape == (2, 441)
    with pytest.raises(InputError, match=r"stream 2\) cannot be read as audio \(it has 2 audio streams"):
        read_source(Source(path, 2))


@pytest.mark.parametrize("how", ["cut", "hole"])
def test_a_file_with_a_part_missing_is_named_with_both_durations(tmp_path, how):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(4 * 44_100).T, 44_100, format="MP3")
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(whole[:half] if how == "cut" else whole[: half // 2] + whole[-half:])
    with pytest.raises(InputError, match=r"a\.mp3 holds [123]\.\d\d s of the 4\.00 s .*; expected a whole file"):
        read_source(Source(path))
    read_source(Source(path), max_s=0.5)  # that much of it is whole


def test_a_pipe_in_a_collection_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(InputError, match=r"a\.wav is a pipe or a device"):
        read_source(Source(tmp_path / "a.wav"))
