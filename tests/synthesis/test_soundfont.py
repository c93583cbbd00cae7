"""Stems of bands, played by a soundfont of one sample that the tests make."""

import librosa
import numpy as np
import pytest
from helpers.lead_sheets import lead_sheet, steady
from helpers.soundfonts import write_soundfont

from hafm_jax.common.errors import InputError
from hafm_jax.synthesis.arrangement import KINDS, LEVELS_DB, Arrangement, Part, arrange
from hafm_jax.synthesis.soundfont import PEAK, render

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory):
    return write_soundfont(tmp_path_factory.mktemp("soundfont") / "made.sf2")


def _one(kind, *notes):
    start_s, end_s, midi = (np.array(column) for column in zip(*notes, strict=True))
    return Part("made", kind, 0, 0.0, start_s, end_s, midi, np.full(len(midi), 90))


def _rms_db(stem):
    """Loudness of the loud part, apart from the code's own measure: librosa's frames within 30 dB of the loudest."""
    rms = librosa.feature.rms(y=stem, frame_length=800, hop_length=800, center=False)[0]
    return 10 * np.log10(np.mean(rms[rms > rms.max() / 10**1.5] ** 2))


def test_notes_sound_in_time_and_in_tune(soundfont):
    band = Arrangement((_one("harmony", (0.5, 1.4, 60), (2.0, 2.9, 69)),), "made", "made", ())
    stems = render(band, 3 * RATE_HZ, RATE_HZ, soundfont)
    assert set(stems) == set(KINDS) and all(s.dtype == np.float32 and s.shape == (3 * RATE_HZ,) for s in stems.values())
    assert not any(stems[kind].any() for kind in KINDS if kind != "harmony")
    sound = stems["harmony"]
    assert np.flatnonzero(np.abs(sound) > 1e-3)[0] == pytest.approx(0.5 * RATE_HZ, abs=0.005 * RATE_HZ)
    for start_s, f_hz in ((0.6, 261.63), (2.1, 440.0)):
        piece = sound[int(start_s * RATE_HZ) :][: int(0.7 * RATE_HZ)]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 18))
        band_hz = np.fft.rfftfreq(1 << 18, 1 / RATE_HZ)
        near = np.abs(band_hz - f_hz) < 30
        peak_hz = band_hz[near][np.argmax(spectrum[near])]
        assert abs(1200 * np.log2(peak_hz / f_hz)) < 8


@pytest.mark.parametrize("seed", range(4))
def test_no_part_drowns_another(soundfont, seed):
    sheet = lead_sheet("C Am F G7 Dm7,G7 Em F G7/B")
    band = arrange(sheet, 0, 8, steady(100), np.random.default_rng(seed), split="test")
    stems = render(band, 20 * RATE_HZ, RATE_HZ, soundfont)
    levels_db = {kind: _rms_db(stem) for kind, stem in stems.items() if stem.any()}
    assert {"drums", "bass", "harmony"} <= set(levels_db)
    for kind in set(levels_db) - {"harmony"}:
        low, high = LEVELS_DB[kind]
        assert low - 0.7 <= levels_db[kind] - levels_db["harmony"] <= high + 0.7, kind
    assert np.abs(sum(stems.values())).max() <= PEAK + 1e-6


def test_the_same_band_is_the_same_bytes_and_tails_are_cut(soundfont):
    sheet = lead_sheet("C Am F G7")
    band = arrange(sheet, 0, 4, steady(100), np.random.default_rng(1), split="train")
    num_samples = 6 * RATE_HZ  # ends inside a bar
    once, again = (render(band, num_samples, RATE_HZ, soundfont) for _ in range(2))
    for kind in KINDS:
        assert once[kind].tobytes() == again[kind].tobytes()
        assert once[kind][-1] == 0


def test_what_is_not_a_soundfont_is_said(tmp_path):
    band = Arrangement((_one("bass", (0.0, 1.0, 40)),), "made", "made", ())
    with pytest.raises(InputError, match="is not a file: name an"):
        render(band, RATE_HZ, RATE_HZ, tmp_path / "none.sf2")
    (tmp_path / "words.sf2").write_bytes(b"words " * 100)
    with pytest.raises(InputError, match="is not a soundfont that can be read"):
        render(band, RATE_HZ, RATE_HZ, tmp_path / "words.sf2")
