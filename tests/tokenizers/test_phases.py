"""Phases from magnitudes: against librosa's Griffin-Lim over the whole file, and in pieces as at once."""

from __future__ import annotations

import functools

import jax
import librosa
import numpy as np
import pytest

from hafm_jax.audio import stft
from hafm_jax.synthesis.song import synthesize_song
from hafm_jax.tokenizers import phases

SIZE, HOP = 1280, 320
_invert = jax.jit(phases.invert, static_argnums=(3, 4))


@functools.cache
def band(seed: int) -> np.ndarray:
    return synthesize_song(seed, 3.2).instrumental


def magnitudes(audio: np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(stft.stft(audio[None], SIZE, HOP))[0])


def sound(wanted: np.ndarray, piece: int = 0) -> np.ndarray:
    """The samples of magnitudes [F, W], `piece` frames at a time."""
    late = phases.delay_samples(SIZE, HOP)
    more = -(-late // HOP)
    padded, exists = np.pad(wanted, ((0, more), (0, 0))), np.pad(np.ones(len(wanted), np.float32), (0, more))
    state, out = phases.start(SIZE, HOP), []
    for first in range(0, len(padded), piece or len(padded)):
        part = slice(first, first + (piece or len(padded)))
        state, samples = _invert(state, padded[part], exists[part], SIZE, HOP)
        out.append(np.asarray(samples))
    return np.concatenate(out)[late : late + len(wanted) * HOP]


def error_db(audio: np.ndarray, wanted: np.ndarray) -> float:
    """How far the sound's own magnitudes are from those that it should have (spectral convergence)."""
    return 20 * np.log10(np.linalg.norm(magnitudes(audio) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("seed", [1, 2])
def test_nearer_to_the_magnitudes_than_32_rounds_of_librosas_griffin_lim(seed):
    wanted = magnitudes(band(seed))
    scale = stft.hann_window(SIZE).sum() / 2  # librosa's spectra are unscaled
    theirs = librosa.griffinlim(wanted.T * scale, n_iter=32, hop_length=HOP, center=False, random_state=0)
    side = (SIZE - HOP) // 2
    ours = error_db(sound(wanted), wanted)
    assert ours < error_db(theirs[side : side + len(wanted) * HOP], wanted)
    assert ours < -20


def test_a_held_tone_stays_where_and_as_loud_as_it_is():
    time_s = np.arange(24_000) / 24_000
    audio = (0.3 * np.sin(2 * np.pi * 333.3 * time_s)).astype(np.float32)  # between two bins
    again = sound(magnitudes(audio))[4000:-4000]
    spectrum = np.abs(np.fft.rfft(again * np.hanning(len(again)))) * 4 / len(again)
    assert spectrum.argmax() * 24_000 / len(again) == pytest.approx(333.3, abs=1.5)
    assert np.sqrt(np.mean(again**2)) == pytest.approx(0.3 / 2**0.5, rel=0.02)


def test_a_click_comes_when_it_should():
    audio = np.zeros(24_000, np.float32)
    audio[12_345] = 0.9
    again = sound(magnitudes(audio))
    assert abs(int(np.abs(again).argmax()) - 12_345) < 0.005 * 24_000


def test_pieces_give_the_same_as_the_whole():
    # 57 frames with those of the delay: the last pieces have 1 frame and 7, as others have, so four programs do.
    wanted = magnitudes(band(3)[: HOP * (57 - -(-phases.delay_samples(SIZE, HOP) // HOP))])
    whole = sound(wanted)
    for piece in (1, 7, 50):
        # Programs for other lengths round differently, and the rounds of every frame amplify that.
        np.testing.assert_allclose(sound(wanted, piece), whole, atol=2e-3)


def test_silence_stays_silent_and_the_sound_after_it_is_right():
    audio = band(4)[:24_000].copy()
    audio[: 320 * 20] = 0
    again = sound(magnitudes(audio))
    assert np.abs(again[: 320 * 17]).max() < 1e-6
    assert error_db(again, magnitudes(audio)) < -15
