from __future__ import annotations

import numpy as np
import pytest
import soundfile
from helpers.corpora import write_musdb

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import collections
from hafm_jax.corpus.screening import Unusable
from hafm_jax.corpus.tracks import read_stems


def test_stems_of_nearly_one_length_are_cut_and_others_refused(tmp_path):
    write_musdb(tmp_path, "train", "x")
    (track,) = collections.find_tracks(tmp_path, "musdb").tracks
    bass = tmp_path / "train" / "x" / "bass.wav"
    soundfile.write(bass, np.zeros((4300, 2)), 44_100)
    stems = read_stems(track)
    assert stems.vocals.shape == stems.instrumental.shape == (2, 4300)
    for shape, rate_hz in [((2000, 2), 44_100), ((4410, 1), 44_100), ((4410, 2), 48_000)]:
        soundfile.write(bass, np.zeros(shape), rate_hz)
        found = rf"bass\.wav has {shape[1]} channels of {shape[0]} samples at {rate_hz} Hz, vocals\.wav has 2 .* 4410"
        with pytest.raises(Unusable, match=found) as caught:
            read_stems(track)
        assert caught.value.reason == "stems differ"
    bass.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_stems(track)
