from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.corpus.screening import Limits, Unusable, check_file, rms_dbfs


def test_levels_of_known_waves():
    time_s = np.arange(48_000) / 48_000
    sine = np.sin(2 * np.pi * 100 * time_s)
    assert rms_dbfs(np.sign(sine + 1e-9)) == pytest.approx(0, abs=1e-9)  # a full-scale square wave
    assert rms_dbfs(sine.astype(np.float32)) == pytest.approx(-10 * math.log10(2), abs=1e-4)
    assert rms_dbfs(2 * (100 * time_s % 1) - 1) == pytest.approx(-10 * math.log10(3), abs=1e-2)  # a sawtooth
    assert rms_dbfs(np.zeros((2, 5))) == rms_dbfs(np.zeros(0)) == -math.inf


@given(level_db=st.floats(-100, 20), channels=st.integers(1, 3))
def test_a_gain_in_db_is_a_difference_in_db(level_db, channels):
    audio = np.random.default_rng(channels).normal(size=(channels, 999)).astype(np.float32)
    louder = (audio * 10 ** (level_db / 20)).astype(np.float32)
    assert rms_dbfs(louder) - rms_dbfs(audio) == pytest.approx(level_db, abs=1e-4)


def test_a_long_file_of_one_level_keeps_its_level():
    assert rms_dbfs(np.full(1 << 24, 0.1, np.float32)) == pytest.approx(-20, abs=1e-6)  # float32 sums would drift


@pytest.mark.parametrize(
    "check, reason",
    [
        (lambda limits: limits.check_length(1.99), "too short"),
        (lambda limits: limits.check_length(4.01), "too long"),
        (lambda limits: limits.check_sound("mixture", np.full(9, 0.99e-3)), "silent"),
        (lambda limits: limits.check_sound("mixture", np.zeros(9)), "silent"),
        (lambda limits: limits.check_singing(np.full(9, 0.099)), "no singing"),
    ],
)
def test_each_limit_has_its_reason(check, reason):
    limits = Limits(min_s=2, max_s=4, vocal_gate_dbfs=-20, silence_dbfs=-60)
    with pytest.raises(Unusable) as caught:
        check(limits)
    assert caught.value.reason == reason and caught.value.detail
    for seconds in (2, 4):
        limits.check_length(seconds)
    limits.check_sound("mixture", np.full(9, 1.01e-3))
    limits.check_singing(np.full(9, 0.101))


def test_files_that_readers_would_call_damaged_have_reasons_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "byte.wav").write_bytes(b"0")
    check_file(tmp_path / "byte.wav")
    for name, reason in (("empty.wav", "empty"), ("absent.wav", "file missing")):
        with pytest.raises(Unusable, match=name) as caught:
            check_file(tmp_path / name)
        assert caught.value.reason == reason

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, to whom all is permitted
    with pytest.raises(Unusable, match=r"byte\.wav cannot be opened \(Permission denied\)") as caught:
        check_file(tmp_path / "byte.wav")
    assert caught.value.reason == "no permission"


def test_a_reject_of_a_worker_is_whole_in_the_parent():
    unusable = pickle.loads(pickle.dumps(Unusable("silent", "detail").of("a", "train")))
    assert unusable.facts() == {"id": "a", "split": "train", "reason": "silent", "detail": "detail"}
