from __future__ import annotations

import numpy as np
import pytest
from helpers import WINDOW_CELLS
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.accompany import Accompanist, plan_windows
from hafm_jax.model.sampling import Sampling

FREE = Sampling(guidance_scale=1.0, temperature=1.0)


@given(st.integers(1, 15_000), st.integers(1, 300))  # up to 10 min
def test_windows_cover_every_cell_once_and_overlap(total, window):
    windows = plan_windows(total, window)
    new = [cell for w in windows for cell in range(w.known, w.stop)]
    assert new == list(range(total))
    for w in windows:
        assert 0 <= w.start <= w.known < w.stop <= w.start + window
    for w in windows[1:]:
        assert w.known - w.start >= round(window / 3)  # what is given is at least the overlap
        assert w.stop == w.start + window


@pytest.fixture(scope="module")
def accompanist(tiny_model):
    return Accompanist.load(str(tiny_model))


def vocal(seconds, rate_hz, channels=1, seed=0):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * (220 + 20 * seed) * t * (1 + 0.1 * np.sin(t)))
    return np.tile(tone.astype(np.float32), (channels, 1))


@pytest.mark.parametrize(("seconds", "rate_hz", "channels"), [(0.2, 44_100, 2), (1.7003, 48_000, 1), (0.9, 11_025, 1)])
def test_the_band_is_exactly_as_long_as_the_voice(accompanist, seconds, rate_hz, channels):
    voice = vocal(seconds, rate_hz, channels)
    out = accompanist(voice, rate_hz, sampling=FREE)
    assert out.shape == (1, round(voice.shape[1] * 24_000 / rate_hz))
    assert np.isfinite(out).all()


def test_the_seed_decides_and_samples_do_not_depend_on_their_neighbours(accompanist):
    voice = vocal(1.0, 24_000)
    one = accompanist(voice, 24_000, seed=3, sampling=FREE)
    np.testing.assert_array_equal(one, accompanist(voice, 24_000, seed=3, sampling=FREE))
    assert np.abs(one - accompanist(voice, 24_000, seed=4, sampling=FREE)).max() > 0
    alone, three = (
        accompanist.tokens(voice, 24_000, 25, seed=3, num_samples=n, sampling=FREE, skip_fine=True) for n in (1, 3)
    )
    again = accompanist.tokens(voice, 24_000, 25, seed=3, num_samples=3, sampling=FREE, skip_fine=True)
    np.testing.assert_array_equal(three, again)
    np.testing.assert_array_equal(alone[0], three[0])
    assert (three[0] != three[1]).mean() > 0.5 and (three[1] != three[2]).mean() > 0.5


def test_several_vocals_at_once_get_what_each_gets_alone(accompanist):
    voices = [vocal(1.0, 24_000, seed=s) for s in (1, 2)]
    options = {"sampling": FREE, "skip_fine": True}
    together = accompanist.tokens_of_each(voices, 24_000, 25, seeds=[7, 8], **options)
    alone = [accompanist.tokens(v, 24_000, 25, seed=s, **options) for v, s in zip(voices, (7, 8), strict=True)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_the_voice_is_heard(accompanist):
    a, b = (accompanist(vocal(1.0, 24_000, seed=s), 24_000, sampling=FREE._replace(temperature=0.0)) for s in (0, 5))
    assert np.abs(a - b).max() > 0


def test_without_the_fine_stage_only_coarse_tokens_are_made(accompanist):
    progress = []
    out = accompanist.tokens(
        vocal(1.0, 24_000), 24_000, 25, sampling=FREE, skip_fine=True, progress=lambda *x: progress.append(x)
    )
    assert out.shape == (1, 75, 4)
    assert {stage for stage, *_ in progress} == {"semantic", "coarse"}
    for stage in ("semantic", "coarse"):
        done, total = zip(*[(done, total) for name, done, total in progress if name == stage], strict=True)
        assert sum(done) == total[0] and len(set(total)) == 1


def test_all_tokens_are_of_their_codebook_and_coarse_ones_do_not_depend_on_fine(accompanist):
    seconds = 2 * WINDOW_CELLS["coarse"] / 25  # several windows of every stage
    voice = vocal(seconds, 24_000)
    cells = round(seconds * 25)
    both = accompanist.tokens(voice, 24_000, cells, sampling=FREE)
    assert both.shape == (1, 3 * cells, 8)
    assert both.min() >= 0 and both.max() < 1024
    assert (np.diff(both[0], axis=0) != 0).any(axis=0).all()  # no codebook is stuck
