from __future__ import annotations

import os

import numpy as np
import pytest
import scipy.signal
import soundfile
from helpers.full_disk import REASON, files_of_at_most
from helpers.tunes import sine
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import files
from hafm_jax.audio.reading import read_audio
from hafm_jax.common import files as common_files
from hafm_jax.common.errors import InputError, OutputError

RATE_HZ = 24_000


# ------------------------------------------------------------------------------------------------ reading and writing


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
@pytest.mark.parametrize("channels", [None, 1, 2])
def test_written_audio_is_read_back_to_half_a_step(tmp_path, suffix, channels):
    audio = np.random.default_rng(0).uniform(-1, 1, 500 if channels is None else (channels, 500)).astype(np.float32)
    path = tmp_path / f"some take{suffix}"
    files.write_audio(path, audio, 22_050)
    back, rate_hz = read_audio(path)
    assert rate_hz == 22_050 and back.dtype == np.float32
    np.testing.assert_allclose(back, np.atleast_2d(audio), atol=1.01 / 2**15)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert soundfile.info(path).subtype == "PCM_16"


def test_too_loud_clips_and_does_not_wrap(tmp_path):
    files.write_audio(tmp_path / "a.wav", np.array([-3.0, 3.0]), 16_000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[0], [[-1, 1]], atol=1e-4)


def test_unwritable_places_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.wav").mkdir()
    for name in ("a.xyz", "a", "absent/a.wav", "file/a.wav", "folder.wav"):
        with pytest.raises(InputError, match="cannot write"):
            files.write_audio(tmp_path / name, np.zeros(8), 16_000)
    with pytest.raises(ValueError, match="NaN"):
        files.write_audio(tmp_path / "a.wav", np.array([np.nan]), 16_000)

    def full_disk(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(KeyboardInterrupt):
        files.write_audio(tmp_path / "a.wav", np.zeros(8), 16_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.wav"]


@settings(max_examples=60)
@given(suffix=st.sampled_from([".wav", ".flac"]), share=st.floats(0, 1), channels=st.sampled_from([1, 2]))
def test_on_a_full_disk_sound_is_whole_or_as_it_was_and_the_reason_is_told(tmp_path_factory, suffix, share, channels):
    folder = tmp_path_factory.mktemp("full")
    audio = np.random.default_rng(0).uniform(-1, 1, (channels, 12_000)).astype(np.float32)
    files.write_audio(folder / f"whole{suffix}", audio, RATE_HZ)
    whole = (folder / f"whole{suffix}").read_bytes()
    path = folder / f"a{suffix}"
    path.write_bytes(b"old")
    with files_of_at_most(round(share * len(whole))):
        try:
            files.write_audio(path, audio, RATE_HZ)
        except OutputError as error:
            assert str(error).startswith(f"cannot write {path} ({REASON}); expected ")
    assert path.read_bytes() == (whole if share == 1 or round(share * len(whole)) == len(whole) else b"old")
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_full_disk_is_full_and_not_a_system_error(tmp_path, monkeypatch, suffix):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")  # takes nothing
    monkeypatch.setattr(common_files, "unfinished", lambda *_: full)
    with pytest.raises(OutputError, match=r"\(No space left on device\)"):
        files.write_audio(tmp_path / f"a{suffix}", np.zeros(99), RATE_HZ)
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_text_are_written(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff\n.wav")
    files.write_audio(path, np.zeros(99), RATE_HZ)
    assert files.read_audio(path)[0].shape == (1, 99)


def test_a_stem_is_found_in_either_format_but_not_in_both(tmp_path):
    with pytest.raises(InputError, match="holds no vocals"):
        files.stem_file(tmp_path, "vocals")
    (tmp_path / "vocals.wav").touch()
    assert files.stem_file(tmp_path, "vocals").name == "vocals.wav"
    (tmp_path / "vocals.flac").touch()
    with pytest.raises(InputError, match=r"holds vocals.wav and vocals.flac; expected one"):
        files.stem_file(tmp_path, "vocals")
    (tmp_path / "vocals.wav").unlink()
    assert files.stem_file(tmp_path, "vocals").name == "vocals.flac"


# -------------------------------------------------------------------------------------------------------- resampling


@settings(max_examples=60)
@given(
    num_samples=st.integers(1, 5000),
    from_hz=st.sampled_from([8000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]),
    to_hz=st.sampled_from([16_000, 24_000]),
    channels=st.sampled_from([None, 1, 2]),
)
def test_length_is_exact(num_samples, from_hz, to_hz, channels):
    audio = np.ones(num_samples if channels is None else (channels, num_samples), np.float32)
    out = files.resample(audio, from_hz, to_hz)
    exact = num_samples * to_hz / from_hz
    assert abs(out.shape[-1] - exact) <= 0.5 and out.shape[:-1] == audio.shape[:-1] and out.dtype == np.float32
    # scipy rounds up, so it has at most one sample more
    assert 0 <= scipy.signal.resample_poly(audio, to_hz, from_hz, axis=-1).shape[-1] - out.shape[-1] <= 1


def test_halves_round_up():
    assert files.resampled_length(1, 2, 1) == 1
    assert files.resampled_length(3, 2, 1) == 2
    assert files.resampled_length(10**9, 44_100, 24_000) == 544_217_687


@pytest.mark.parametrize("from_hz", [44_100, 16_000, 48_000])
def test_a_tone_stays_where_it_is(from_hz):
    out = files.resample(sine(440, 1.0, from_hz), from_hz, RATE_HZ)
    np.testing.assert_allclose(out[2000:-2000], sine(440, 1.0)[2000:-2000], atol=1e-3)


def test_frequencies_that_would_alias_are_removed():
    assert np.abs(files.resample(sine(11_000, 1.0, 44_100), 44_100, 16_000)[500:-500]).max() < 1e-3


@given(num_samples=st.integers(0, 5000), rate_hz=st.sampled_from([16_000, 24_000]))
def test_padding_reaches_the_next_cell_and_keeps_the_rest(num_samples, rate_hz):
    out = files.pad_to_cells(np.ones((2, num_samples), np.float32), rate_hz)
    cell = rate_hz // 25
    assert out.shape[-1] % cell == 0 and 0 <= out.shape[-1] - num_samples < cell
    assert out.sum() == 2 * num_samples


def test_mono_is_the_mean():
    np.testing.assert_array_equal(files.to_mono(np.array([[1, 0], [0.5, 0]])), np.array([0.75, 0], np.float32))
    np.testing.assert_array_equal(files.to_mono(np.array([1, 2])), np.array([1, 2], np.float32))
