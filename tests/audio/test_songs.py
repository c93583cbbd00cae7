from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest
from helpers.full_disk import files_of_at_most
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.audio import songs
from hafm_jax.audio.files import read_audio
from hafm_jax.common.errors import InputError, OutputError

TONE = (0.5 * np.sin(np.arange(500) / 9)).astype(np.float32)


def test_a_song_is_written_whole_and_once(tmp_path):
    folder = tmp_path / "train" / "a"
    songs.write_song(folder, TONE, -TONE, 24_000, {"seed": 1}, suffix=".flac")
    for stem, expected in (("vocals", TONE), ("instrumental", -TONE)):
        audio, rate_hz = read_audio(folder / f"{stem}.flac")
        assert rate_hz == 24_000
        np.testing.assert_allclose(audio[0], expected, atol=2**-15)
    assert json.loads((folder / "song.json").read_text()) == {"seed": 1}
    songs.write_song(folder, TONE, -TONE, 24_000, {"seed": 1}, suffix=".flac")  # by another process meanwhile
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


def test_an_interrupted_song_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(songs, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        songs.write_song(tmp_path / "train" / "a", TONE, TONE, 24_000, {})
    assert not list((tmp_path / "train").iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "train").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*train/a \(Not a directory\)"):
        songs.write_song(tmp_path / "train" / "a", TONE, TONE, 24_000, {})


@given(room=st.integers(0, 1600))
def test_on_a_full_disk_there_is_no_part_of_a_song(tmp_path_factory, room):
    out = tmp_path_factory.mktemp("full")
    folder = out / "train" / ("a" * 255)  # as long as a name may be
    with files_of_at_most(room), suppress(OutputError):
        songs.write_song(folder, TONE, TONE, 24_000, {"words": "la" * 400})
    left = [path for path in out.rglob("*") if path != folder.parent]
    assert not left or sorted(left) == [folder, *(folder / n for n in ("instrumental.wav", "song.json", "vocals.wav"))]
    assert bool(left) == (room >= 2 * len(TONE) + 44)
