from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import WINDOW_CELLS
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.accompany import Accompanist, SamplingOptions
from hafm_jax.common.errors import InputError
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.windows import plan_windows

FREE = SamplingOptions(sampling=Sampling(guidance_scale=1.0, temperature=1.0))
COARSE = replace(FREE, skip_fine=True)


@given(st.integers(1, 15_000), st.integers(1, 300))  # up to 10 min
def test_windows_cover_every_cell_once_and_overlap(total, window):
    windows = plan_windows(total, window)
    new = [cell for w in windows for cell in range(w.known, w.stop)]
    assert new == list(range(total))
    for w in windows:
        assert 0 <= w.start <= w.known < w.stop <= w.start + window
    for w in windows[1:]:
        assert w.known - w.start >= round(window / 3)  # at least the overlap is given
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
    out = accompanist((voice, rate_hz), FREE).instrumental
    assert out.shape == (round(voice.shape[1] * 24_000 / rate_hz),) and out.dtype == np.float32
    assert np.isfinite(out).all()


@pytest.mark.parametrize("asked", [None, 0.0])  # estimated; left as it is
@pytest.mark.parametrize("cents", [-31.8, 40.0, 0.0])  # A = 432 Hz first
def test_the_band_has_the_tuning_of_the_voice_and_its_length(accompanist, monkeypatch, cents, asked):
    """With a codec that plays A = 440 Hz and a click after the third second, of the voice as it is heard in tune."""
    rate_hz, seconds, seen = 22_050, 6.0013, []
    t_s = np.arange(round(seconds * rate_hz)) / rate_hz
    notes = np.repeat([57, 60, 62, 65, 57, 69, 64], rate_hz)[: t_s.size] + cents / 100
    voice = 0.2 * np.sin(2 * np.pi * np.cumsum(440 * 2 ** ((notes - 69) / 12)) / rate_hz).astype(np.float32)

    def streams(_, vocals, played_hz, cells, options, **how):
        seen.append((played_hz, cells))
        return {name: np.zeros((2, 3 * cells, 4), np.int32) for name in ("instrumental_semantic", "coarse", "fine")}

    def decode(_, codes):
        played_s = np.arange(codes.shape[1] * 320) / 24_000
        click = 5 * (np.abs(played_s - 3.0 * rate_hz / seen[-1][0]) < 1e-4)
        return (np.sin(2 * np.pi * 440 * played_s) + click)[None].astype(np.float32)

    monkeypatch.setattr(Accompanist, "compile", lambda *_, **__: None)
    monkeypatch.setattr(Accompanist, "generate_streams", streams)
    monkeypatch.setattr(type(accompanist.codec), "decode", decode)
    how = {} if asked is None else {"rate_in_tune_hz": rate_hz}
    bands = np.stack([band.instrumental for band in accompanist.takes((voice, rate_hz), 2, FREE, **how)])
    assert bands.shape == (2, round(voice.size * 24_000 / rate_hz)) and bands.dtype == np.float32
    played_hz, cells = seen[0]
    assert cells == -(-round(voice.size * 24_000 / played_hz) // 960)
    tone = bands[0, :60_000] * np.hanning(60_000)
    spectrum = np.abs(np.fft.rfft(tone, 1 << 20))
    found = 1200 * np.log2(spectrum.argmax() * 24_000 / (1 << 20) / 440)
    assert found == pytest.approx(cents if asked is None else 0, abs=2)
    assert (played_hz == rate_hz) == (cents == 0 or asked is not None)
    assert np.abs(bands[1]).argmax() / 24_000 == pytest.approx(3.0, abs=1e-3)


def test_the_seed_decides_and_samples_do_not_depend_on_their_neighbours(accompanist):
    voice = vocal(1.0, 24_000)
    one, two, other = (accompanist((voice, 24_000), FREE, seed=seed).instrumental for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0
    alone, three = (accompanist.tokens(voice, 24_000, 25, replace(COARSE, num_samples=n), seed=3) for n in (1, 3))
    again = accompanist.tokens(voice, 24_000, 25, replace(COARSE, num_samples=3), seed=3)
    np.testing.assert_array_equal(three, again)
    np.testing.assert_array_equal(alone[0], three[0])
    assert (three[0] != three[1]).mean() > 0.5 and (three[1] != three[2]).mean() > 0.5


def test_several_vocals_at_once_get_what_each_gets_alone(accompanist):
    voices = [vocal(1.0, 24_000, seed=s) for s in (1, 2, 3)]
    together = accompanist.tokens_of_each(voices, 24_000, 25, COARSE, seeds=[7, 8, 9])
    alone = [accompanist.tokens(v, 24_000, 25, COARSE, seed=s) for v, s in zip(voices, (7, 8, 9), strict=True)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_a_stage_that_is_not_named_has_the_models_sampling(accompanist):
    greedy = FREE.sampling._replace(temperature=0.0)
    voice, options = vocal(0.2, 24_000), [{"coarse": greedy}, {**accompanist.sampling, "coarse": greedy}, None]
    drawn = [accompanist.tokens(voice, 24_000, 5, SamplingOptions(sampling=s, skip_fine=True)) for s in options]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    with pytest.raises(InputError, match="sampling of corse is given; expected stages: semantic, coarse, fine"):
        SamplingOptions(sampling={"corse": greedy})


def test_another_voice_gets_another_band(accompanist):
    greedy = replace(FREE, sampling=FREE.sampling._replace(temperature=0.0))
    a, b = (accompanist((vocal(1.0, 24_000, seed=s), 24_000), greedy).instrumental for s in (0, 5))
    assert np.abs(a - b).max() > 0


def test_without_the_fine_stage_only_coarse_tokens_are_made(accompanist):
    progress = []
    out = accompanist.tokens(vocal(1.0, 24_000), 24_000, 25, COARSE, progress=lambda *x: progress.append(x))
    assert out.shape == (1, 75, 4)
    assert {stage for stage, *_ in progress} == {"semantic", "coarse"}
    for stage in ("semantic", "coarse"):
        done, total = zip(*[(done, total) for name, done, total in progress if name == stage], strict=True)
        assert sum(done) == total[0] and len(set(total)) == 1


def test_all_tokens_are_of_their_codebook_in_several_windows(accompanist):
    seconds = 2 * WINDOW_CELLS["coarse"] / 25  # several windows of every stage
    voice = vocal(seconds, 24_000)
    cells = round(seconds * 25)
    both = accompanist.tokens(voice, 24_000, cells, FREE)
    assert both.shape == (1, 3 * cells, 8)
    assert both.min() >= 0 and both.max() < 1024
    assert (np.diff(both[0], axis=0) != 0).any(axis=0).all()  # no codebook is stuck


@pytest.mark.parametrize("cells", [5, 25])  # shorter than a window of the next stage, and several windows
def test_given_tokens_of_a_former_call_lead_to_the_same_later_stages(accompanist, cells):
    voices = [vocal(1.0, 24_000, seed=s) for s in (1, 2, 3)]

    def generate(names=(), seeds=(7, 8, 9)):
        progress = set()
        options = {"given": {name: first[name] for name in names}, "progress": lambda stage, *_: progress.add(stage)}
        return accompanist.generate_streams(voices, 24_000, cells, FREE, seeds=seeds, **options), progress

    first, ran = generate()
    assert ran == {"semantic", "coarse", "fine"}
    for names, ran in (
        (["instrumental_semantic"], {"coarse", "fine"}),
        (["coarse"], {"fine"}),  # and no semantic tokens, which only the coarse stage reads
        (["instrumental_semantic", "fine"], {"coarse"}),
        (["coarse", "fine"], set()),
    ):
        streams, progress = generate(names)
        assert progress == ran
        for name in streams:
            np.testing.assert_array_equal(streams[name], first[name])
    other, _ = generate(["coarse"], seeds=(10, 11, 12))
    np.testing.assert_array_equal(other["coarse"], first["coarse"])
    assert (other["fine"] != first["fine"]).mean() > 0.5


def test_given_tokens_are_followed_by_the_stages_after_them(accompanist):
    voice, cells = vocal(1.0, 24_000), 30
    streams = accompanist.generate_streams([voice], 24_000, cells, COARSE, seeds=[0])
    other = (streams["instrumental_semantic"] + 1) % 500
    coarse = accompanist.tokens(voice, 24_000, cells, COARSE, given={"instrumental_semantic": other})
    assert (coarse != streams["coarse"]).mean() > 0.5


GIVEN = np.zeros((1, 60, 1), np.int32)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("vocal_semantic", GIVEN, "'vocal_semantic' are given; expected those of instrumental_semantic, coarse, fine"),
        ("instrumental_semantic", GIVEN[:, :59], r"int32 \[1, 59, 1\]; expected integers \[1, 60, 1\]"),
        ("instrumental_semantic", GIVEN.repeat(2, 0), r"int32 \[2, 60, 1\]; expected integers \[1, 60, 1\]"),
        ("instrumental_semantic", GIVEN[..., 0], r"int32 \[1, 60\]; expected"),
        ("instrumental_semantic", GIVEN.astype(float), r"float64 \[1, 60, 1\]; expected integers"),
        ("instrumental_semantic", GIVEN + 500, "are 500 to 500; expected 0 to 499"),  # the NULL id
        ("instrumental_semantic", GIVEN - 1, "are -1 to -1; expected 0 to 499"),
    ],
)
def test_given_tokens_that_do_not_fit_are_refused(accompanist, name, given, message):
    with pytest.raises(InputError, match=message):
        accompanist.tokens(vocal(1.0, 24_000), 24_000, 30, FREE, given={name: given})


def test_the_api_is_imported_at_its_first_use():
    program = (
        "import sys, hafm_jax; assert hafm_jax.__version__; assert 'jax' not in sys.modules;"
        "from hafm_jax import Accompanist, Sampling, SamplingOptions; assert Accompanist.load"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
