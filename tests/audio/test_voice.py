"""One voice at one level, whatever was recorded: the tokens of the shipped demo's tokenizer do not change."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.audio import files, voice
from hafm_jax.audio.loudness import loudness_lufs
from hafm_jax.model.pretrained import DEMO
from hafm_jax.synthesis.song import song_seed, synthesize_song
from hafm_jax.tokenizers.semantic import load_semantic, vocal_tokens

RATE_HZ = 24_000
SEED = st.integers(0, 2**32 - 1)


@cache
def sung(number: int = 0) -> np.ndarray:
    return synthesize_song(song_seed("test", number, 0), 6.0, RATE_HZ).vocals


@cache
def tokens(number: int = 0) -> np.ndarray:
    return found_tokens(sung(number))


def found_tokens(vocal: np.ndarray) -> np.ndarray:
    return vocal_tokens(load_semantic(DEMO / "semantic"), vocal, RATE_HZ)


# ------------------------------------------------------------------------------------------------------------- level


@given(
    number=st.integers(0, 3),
    level_db=st.floats(-50, 60),  # a voice near -20 dBFS is then at -70 to +40 dBFS
    offset=st.sampled_from([0.0, 0.01, -0.5]),
    channels=st.integers(1, 8),
)
@settings(max_examples=30, deadline=None)
def test_tokens_do_not_depend_on_level_offset_and_channels(number, level_db, offset, channels):
    gain = np.float32(10 ** (level_db / 20))
    vocal = np.tile(gain * sung(number) + np.float32(offset), (channels, 1))
    assert (found_tokens(vocal) == tokens(number)).mean() >= 0.99


@given(st.integers(0, 3), st.integers(-9, 23))
@settings(max_examples=20, deadline=None)
def test_a_gain_of_a_power_of_two_changes_nothing(number, exponent):
    """Among them the scales of 16-bit and 24-bit integers, 2**15 and 2**23."""
    np.testing.assert_array_equal(found_tokens(sung(number) * np.float32(2.0**exponent)), tokens(number))


def test_offset_beside_a_voice_that_is_16_bits_faint():
    vocal = np.round((sung() * 10 ** (-50 / 20) + 0.5) * 2**15).astype(np.float32) / 2**15
    assert (found_tokens(vocal) == tokens()).mean() > 0.8  # at 5 steps of RMS it is a noisy recording


@pytest.mark.parametrize("seconds_of_rest", [0, 12])
def test_the_level_is_that_of_the_singing(seconds_of_rest):
    vocal = np.concatenate([np.zeros(seconds_of_rest * RATE_HZ, np.float32), sung()])
    at_level = voice.level(voice.one_channel(0.003 * vocal, RATE_HZ))
    assert loudness_lufs(at_level, 16_000) == pytest.approx(voice.VOICE_LUFS, abs=0.2)


def test_the_demos_training_songs_have_this_level():
    levels = [
        loudness_lufs(files.resample(synthesize_song(song_seed("train", i, 0), 6.0).vocals, 24_000, 16_000), 16_000)
        for i in range(12)
    ]
    assert np.median(levels) == pytest.approx(voice.VOICE_LUFS, abs=0.7)


def quiet(kind: str) -> np.ndarray:
    """Three seconds of what a recorder writes when no one sings."""
    rng = np.random.default_rng(0)
    steps = {
        "zeros": np.zeros(3 * RATE_HZ),
        "offset": np.full(3 * RATE_HZ, 9000.0),
        "dither": np.round(rng.triangular(-1, 0, 1, 3 * RATE_HZ)),
        "faint": 0.3 * np.sin(np.arange(3 * RATE_HZ)),
    }
    return (steps[kind] / 2**15).astype(np.float32)


@pytest.mark.parametrize("kind", ["zeros", "offset", "dither", "faint"])
def test_silence_is_not_raised(kind):
    """Its tokens are those of the noise, near enough: they are not those of a loud voice."""
    assert voice.is_silent(quiet(kind), RATE_HZ)
    assert np.abs(voice.level(voice.one_channel(quiet(kind), RATE_HZ))).max() <= 3 / 2**15
    assert (found_tokens(quiet(kind)) == found_tokens(quiet("zeros"))).mean() > 0.9


@pytest.mark.parametrize("level_db", [-50, 0, 60])
def test_a_voice_is_not_silent(level_db):
    assert not voice.is_silent(sung() * np.float32(10 ** (level_db / 20)), RATE_HZ)


# ---------------------------------------------------------------------------------------------------------- channels


@given(SEED, st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_channels_of_any_gain_and_sign_do_not_cancel(seed, channels):
    """Of a voice, some of them dead, beside a little noise of their own."""
    rng = np.random.default_rng(seed)
    gains = rng.uniform(-1, 1, channels) * (rng.random(channels) < 0.8)
    gains[rng.integers(channels)] = rng.choice([-1, 1])
    noise = rng.normal(0, 1e-5, (channels, sung().size))
    vocal = (gains[:, None] * sung() + noise).astype(np.float32)
    mono = files.to_mono(vocal)
    assert np.abs(mono).max() > 0.45 * np.abs(gains).sum() / channels * np.abs(sung()).max()
    assert np.abs(np.corrcoef(mono, sung())[0, 1]) > 0.999
    np.testing.assert_array_equal(files.to_mono(vocal * np.float32(4096)), mono * np.float32(4096))


@pytest.mark.parametrize("other", [-1.0, -0.95, -0.5, 0.0, 1.0])
def test_two_channels_have_the_tokens_of_one(other):
    """The sign of a voice counts only beside the noise."""
    for first in (1.0, -1.0):
        same = found_tokens(np.stack([first * sung(), other * sung()]).astype(np.float32))
        np.testing.assert_array_equal(same, found_tokens(np.float32(first) * sung()))


def test_offsets_do_not_hide_that_channels_cancel():
    vocal = np.stack([sung() * 1e-3 + 0.5, sung() * -1e-3 + 0.5]).astype(np.float32)
    assert (found_tokens(vocal) == tokens()).mean() > 0.98


@given(SEED, st.integers(1, 2), st.floats(-0.5, 1))
@settings(max_examples=20, deadline=None)
def test_mono_and_ordinary_stereo_are_the_plain_mean_bit_for_bit(seed, channels, likeness):
    """A band's too, whose channels differ."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.1, 3000)
    parts = rng.normal(0, 0.1, (channels, 3000)) * np.sqrt(1 - abs(likeness))
    audio = (parts + np.sign(likeness) ** np.arange(channels)[:, None] * shared * np.sqrt(abs(likeness))).astype("f4")
    np.testing.assert_array_equal(files.to_mono(audio), audio.mean(axis=0))
    np.testing.assert_array_equal(files.to_mono(audio[:1]), audio[0])
    np.testing.assert_array_equal(files.to_mono(audio[0]), audio[0])


def test_two_singers_in_two_channels_are_both_there():
    half = sung().size // 2
    left, right = np.zeros((2, sung().size), np.float32)
    left[:half], right[half:] = sung(0)[:half], sung(1)[half:]
    np.testing.assert_array_equal(files.to_mono(np.stack([left, right])), (left + right) / 2)
