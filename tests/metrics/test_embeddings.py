"""The interface of embeddings, and what the one without weights must notice."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from hafm_jax.audio.files import resample
from hafm_jax.common.errors import InputError
from hafm_jax.metrics import mel
from hafm_jax.metrics.embeddings import load_embedding
from hafm_jax.metrics.frechet import frechet_distance

RATE_HZ = 24_000
SECONDS = 3
MEL = load_embedding("mel")


def band(seed: int, beats_hz: float = 2.0, partials: int = 8, decay_s: float = 0.3) -> np.ndarray:
    """Struck pairs of random notes, harmonics up to `partials`, `beats_hz` times a second. Peak about 0.5."""
    rng = np.random.default_rng(seed)
    out = np.zeros(SECONDS * RATE_HZ, np.float32)
    for onset in np.arange(0, SECONDS, 1 / beats_hz):
        start = int(onset * RATE_HZ)
        time = np.arange(out.size - start, dtype=np.float32) / RATE_HZ
        envelope = np.exp(-time / decay_s) * np.minimum(time / 0.005, 1)
        for note in rng.choice(np.arange(40, 70), 2, replace=False):
            phase = 2 * np.pi * 440 * 2 ** ((note - 69) / 12) * time
            out[start:] += 0.1 * envelope * sum(np.sin(k * phase) / k for k in range(1, partials + 1))
    return out


REFERENCE = [band(seed) for seed in range(6)]
OTHERS = [band(seed) for seed in range(6, 12)]


def distance(songs: list[np.ndarray]) -> float:
    return frechet_distance(*(np.concatenate([MEL(song, RATE_HZ) for song in some]) for some in (REFERENCE, songs)))


def test_mel_gives_a_row_for_each_patch_of_96_frames():
    embeddings = MEL(REFERENCE[0], RATE_HZ)
    assert embeddings.shape == (3, 70) and embeddings.dtype == np.float32
    assert mel.DIMENSIONS == 70 and np.isfinite(embeddings).all()
    assert MEL(REFERENCE[0][: mel.MIN_SAMPLES], RATE_HZ).shape == (1, 70)
    np.testing.assert_array_equal(MEL(REFERENCE[0][: mel.MIN_SAMPLES], RATE_HZ), embeddings[:1])  # patches are local


def test_level_is_in_bels_of_full_scale():
    time = np.arange(RATE_HZ) / RATE_HZ
    sine = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    loud, quiet = (MEL(gain * sine, RATE_HZ)[0] for gain in (1.0, 0.1))
    assert loud[: mel.MEL_BANDS].max() == pytest.approx(0, abs=0.15)  # 0 dB, less what falls beside the filter's peak
    assert (loud - quiet)[: mel.MEL_BANDS].max() == pytest.approx(2.0, abs=1e-3)  # 20 dB
    assert np.abs((loud - quiet)[2 * mel.MEL_BANDS :]).max() < 1.0


def test_deviation_is_that_of_the_level_over_time():
    time = np.arange(RATE_HZ) / RATE_HZ
    loud_then_quiet = np.where(time < mel.MIN_SAMPLES / RATE_HZ / 2, 1.0, 0.1) * np.sin(2 * np.pi * 1000 * time)
    row = MEL(loud_then_quiet.astype(np.float32), RATE_HZ)[0]
    loudest = row[: mel.MEL_BANDS].argmax()
    assert row[mel.MEL_BANDS + loudest] == pytest.approx(1.0, abs=0.05)  # half of the time 2 bels lower


def test_silence_is_finite():
    silence = MEL(np.zeros(RATE_HZ * 2, np.float32), RATE_HZ)
    assert np.isfinite(silence).all()
    np.testing.assert_allclose(silence[0, : mel.MEL_BANDS], -7.0, rtol=1e-6)
    assert frechet_distance(silence, MEL(REFERENCE[0], RATE_HZ)) > 50


def test_flatness_separates_noise_from_tones_and_modulation_finds_the_rate():
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE_HZ * 2).astype(np.float32)
    flatness = slice(2 * mel.MEL_BANDS, 2 * mel.MEL_BANDS + 6)
    assert MEL(noise, RATE_HZ)[:, flatness].mean() > MEL(REFERENCE[0], RATE_HZ)[:, flatness].mean() + 0.3
    time = np.arange(RATE_HZ * 2) / RATE_HZ
    for expected, rate_hz in enumerate((2, 6, 12, 25)):
        throbbing = noise * (1 + 0.9 * np.sin(2 * np.pi * rate_hz * time)).astype(np.float32)
        modulation = MEL(throbbing, RATE_HZ)[:, flatness.stop :].reshape(-1, 4, mel.WIDE_BANDS)  # [P, rates, wide]
        assert modulation.mean(axis=(0, 2)).argmax() == expected


NOISE = np.random.default_rng(1).standard_normal(SECONDS * RATE_HZ).astype(np.float32)


def low_passed(song: np.ndarray, cutoff_hz: float) -> np.ndarray:
    return scipy.signal.sosfilt(scipy.signal.butter(8, cutoff_hz, fs=RATE_HZ, output="sos"), song).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    {
        "noise": lambda level: [song + 10 ** (level / 2 - 3) * NOISE for song in OTHERS],  # -50, -40, -30 dB
        "bandwidth": lambda level: [low_passed(song, 6000 / 3**level) for song in OTHERS],
        "coarse samples": lambda level: [np.round(song * 2 ** (9 - level)) / 2 ** (9 - level) for song in OTHERS],
        "fewer partials": lambda level: [band(s, partials=8 // 2**level) for s in range(6, 12)],
        "longer notes": lambda level: [band(s, decay_s=0.3 * 2**level) for s in range(6, 12)],
        "other rhythm": lambda level: [band(s, beats_hz=2 + level) for s in range(6, 12)],
    }.items(),
    ids=lambda change: change[0],
)
def test_mel_moves_the_more_the_worse_a_sound_is(change):
    distances = [distance(OTHERS), *(distance(change[1](level)) for level in (1, 2, 3))]
    assert np.all(np.diff(distances) > 0), distances
    assert distances[-1] > 2 * distances[0]


def test_other_rates_are_resampled():
    there_and_back = MEL(resample(REFERENCE[0], RATE_HZ, 48_000), 48_000)
    np.testing.assert_allclose(there_and_back[:, :20], MEL(REFERENCE[0], RATE_HZ)[:, :20], atol=0.02)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"lasts 0.50 s; expected 0.99 s"):
        MEL(REFERENCE[0][: RATE_HZ // 2], RATE_HZ)
    with pytest.raises(ValueError, match=r"expected \[S\]"):
        MEL(np.stack(REFERENCE), RATE_HZ)
    with pytest.raises(InputError, match="no embedding is called 'mfcc'; expected mel, vggish, clap, encodec"):
        load_embedding("mfcc")
    with pytest.raises(InputError, match="mel has no weights"):
        load_embedding("mel", "weights.pth")
    for kind, hint in (("vggish", "vggish-10086976.pth"), ("clap", "laion/larger_clap_music"), ("encodec", "24khz")):
        with pytest.raises(InputError, match=f"{kind} needs weights.*{hint}"):
            load_embedding(kind)


def test_without_weights_there_is_no_hash():
    assert MEL.sha256 is None and MEL.name == "mel"
