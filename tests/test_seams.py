"""No seam is left where one window ends and the next continues: the shipped model on songs it was not trained on."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from helpers import FULL_COMPILATION

from hafm_jax.audio.stft import log_mel_db
from hafm_jax.model import decode, transformer
from hafm_jax.model.pretrained import DEMO, load_model
from hafm_jax.model.sampling import Sampling, combine
from hafm_jax.model.weights import Weights
from hafm_jax.model.windows import generate_stage, plan_windows
from hafm_jax.streams import CELLS_PER_S, CODEC_SAMPLE_RATE_HZ, STAGES
from hafm_jax.synthesis.song import song_seed, synthesize_song
from hafm_jax.tokenizers.codecs import load_codec
from hafm_jax.tokenizers.semantic import load_semantic, vocal_tokens

SECONDS, SONGS = 16, 3
CELLS = SECONDS * CELLS_PER_S
KEYS = jax.random.split(jax.random.key(0), SONGS)
pytestmark = pytest.mark.slow  # whole songs, sampled and examined several times

UNGUIDED, DEFAULT = Sampling(guidance_scale=1.0), Sampling()
CASES = [(UNGUIDED, "semantic"), (UNGUIDED, "coarse"), *((DEFAULT, name) for name in STAGES)]
FLUX_FRAMES = 3  # of the codec, 40 ms, before and after: between single frames the spectrum changes much anywhere
forward = jax.jit(transformer.forward, static_argnums=0, compiler_options=FULL_COMPILATION)


@pytest.fixture(scope="module", autouse=True)
def fast():
    options = {"static_argnames": ("config", "rows"), "donate_argnames": ("cache", "target")}
    with pytest.MonkeyPatch.context() as monkeypatch:
        jitted = jax.jit(decode._extend.__wrapped__, compiler_options=FULL_COMPILATION, **options)
        monkeypatch.setattr(decode, "_extend", jitted)
        yield


@pytest.fixture(scope="module")
def stages():
    return load_model(str(DEMO)).stages


@pytest.fixture(scope="module")
def vocals():
    semantic = load_semantic(DEMO / "semantic")
    songs = [synthesize_song(song_seed("test", 100 + i, base_seed=0), float(SECONDS)) for i in range(SONGS)]
    return np.stack([vocal_tokens(semantic, song.vocals, CODEC_SAMPLE_RATE_HZ)[:, None] for song in songs])


def generate(stage, streams, sampling, cells=CELLS):
    weights = Weights.prepare(stage.config, stage.params)
    return generate_stage(stage.config, weights, streams, cells, KEYS, sampling, lambda frames: None)


@pytest.fixture(scope="module")
def songs(stages, vocals):
    """For each sampling: the vocals and the tokens that the stages draw for them, by stream."""
    made = {UNGUIDED: {"vocal_semantic": vocals}, DEFAULT: {"vocal_semantic": vocals}}
    for sampling, name in CASES:
        made[sampling][STAGES[name].target.name] = generate(stages[name], made[sampling], sampling)
    return made


def seams(config):
    """Cells where one window's new tokens end."""
    return [window.known for window in plan_windows(CELLS, config.window_cells)[1:]]


def surprise(stage, streams, sampling):
    """Nats a token under the logits that tokens are drawn from: (of the two frames after each seam, of frames further
    off), in windows with the seam in the middle."""
    config, cells = stage.config, stage.config.window_cells
    target = config.stage.target
    at, away = [], []
    for seam in seams(config):
        start = min(max(0, seam - cells // 2), CELLS - cells)
        *conditions, tokens = (
            streams[s.name][:, start * s.frames_per_cell : (start + cells) * s.frames_per_cell]
            for s in config.stage.streams
        )
        rows = [(conditions, tokens)]
        if sampling.rows.guided:
            rows.append((transformer.null_conditions(config, conditions, np.ones(SONGS, bool)), tokens))
        logits = np.concatenate([forward(config, stage.params, *row) for row in rows])
        log_probability = jax.nn.log_softmax(combine(logits, sampling.rows, sampling, 0))
        nats = -np.take_along_axis(np.asarray(log_probability), tokens[..., None], -1)[..., 0].mean(-1)  # [B, F]
        middle, reach = (seam - start) * target.frames_per_cell, cells * target.frames_per_cell // 4
        at += [nats[:, middle : middle + 2]]
        away += [nats[:, middle - reach : middle - 4], nats[:, middle + 5 : middle + reach]]
    return np.concatenate(at, axis=None), np.concatenate(away, axis=None)


def standard_errors(at, away):
    return (at.mean() - away.mean()) / (away.std() / len(at) ** 0.5)


@pytest.mark.parametrize(("sampling", "name"), CASES)
def test_tokens_after_a_seam_are_no_more_surprising_than_others(sampling, name, stages, songs):
    """A weak test of the fine stage, whose tokens the shipped model draws almost independently."""
    assert standard_errors(*surprise(stages[name], songs[sampling], sampling)) < 4


def test_windows_without_each_others_tokens_would_be_found(stages, vocals, monkeypatch):
    """The measure of the test above does find a seam: here each window is given noise."""
    real = decode.generate_window

    def forgetful(config, weights, conditions, target, start, *rest):
        noise = np.random.default_rng(0).integers(0, 500, target.shape, np.int32)
        given = np.arange(target.shape[1])[:, None] < start
        return real(config, weights, conditions, jax.numpy.where(given, noise, target), start, *rest)

    monkeypatch.setattr(decode, "generate_window", forgetful)
    streams = {"vocal_semantic": vocals}
    streams["instrumental_semantic"] = generate(stages["semantic"], streams, UNGUIDED)
    assert standard_errors(*surprise(stages["semantic"], streams, UNGUIDED)) > 6


def share_of_places_with_as_much_flux(audio, seam_frames):
    """The spectrum of audio [B, S] at the seams, against the same pattern of places shifted through the song: the share
    of shifts at which the spectrum changes as much on average."""
    frame_samples = CODEC_SAMPLE_RATE_HZ // STAGES["coarse"].target.rate_hz
    mel = log_mel_db(audio, 2 * frame_samples, 64, CODEC_SAMPLE_RATE_HZ)  # [B, F, M], a frame a codec frame
    assert mel.shape[1] == CELLS * STAGES["coarse"].target.frames_per_cell
    means = np.lib.stride_tricks.sliding_window_view(mel, FLUX_FRAMES, axis=1).mean(-1)
    flux = np.abs(means[:, FLUX_FRAMES:] - means[:, :-FLUX_FRAMES]).mean(-1)
    places = seam_frames - FLUX_FRAMES  # flux[:, f] is of the frames before and after frame f + FLUX_FRAMES
    shifts = range(2 * FLUX_FRAMES, flux.shape[1] - 2 * FLUX_FRAMES)
    moved = [flux[:, (places + shift) % flux.shape[1]].mean() for shift in shifts]
    return np.mean(np.array(moved) >= flux[:, places].mean())


@pytest.mark.parametrize(
    ("sampling", "streams"), [(UNGUIDED, ["coarse"]), (DEFAULT, ["coarse"]), (DEFAULT, ["coarse", "fine"])]
)
def test_the_spectrum_changes_at_seams_as_it_does_elsewhere(sampling, streams, stages, songs):
    audio = load_codec(DEMO / "codec").decode(np.concatenate([songs[sampling][s] for s in streams], axis=-1))
    target = STAGES[streams[-1]].target
    seam_frames = np.array(seams(stages[streams[-1]].config)) * target.frames_per_cell
    assert 0.005 < share_of_places_with_as_much_flux(audio, seam_frames) < 0.995
    # A change to another song's band at each seam would be found.
    seam_samples = seam_frames * (CODEC_SAMPLE_RATE_HZ // target.rate_hz)
    pieces = np.split(audio, seam_samples, axis=1)
    spliced = np.concatenate([np.roll(piece, i, axis=0) for i, piece in enumerate(pieces)], axis=1)
    assert share_of_places_with_as_much_flux(spliced, seam_frames) < 0.005


@pytest.mark.parametrize("name", STAGES)
def test_a_song_of_one_window_or_less_is_the_same_by_either_path(name, stages, songs):
    config, target = stages[name].config, STAGES[name].target
    streams = songs[DEFAULT]
    cells = config.window_cells
    weights = Weights.prepare(config, stages[name].params)
    conditions = [streams[s.name][:, : cells * s.frames_per_cell] for s in STAGES[name].conditions]
    empty = np.zeros((SONGS, cells * target.frames_per_cell, target.codebooks), np.int32)
    whole = decode.generate_window(config, weights, conditions, empty, 0, empty.shape[1], KEYS, 0, DEFAULT)
    for song_cells in (cells, cells - cells // 3):
        by_windows = generate(stages[name], streams, DEFAULT, song_cells)
        np.testing.assert_array_equal(by_windows, whole[:, : song_cells * target.frames_per_cell])
