"""Recorded voices: what oto.ini says against truth written by hand, and what is wrong with it by file and line."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from helpers.small_voicebank import SYLLABLES, VOWEL_S, write_voicebank

from hafm_jax.common.errors import InputError
from hafm_jax.synthesis.voicebank import load_bank, load_banks


@pytest.fixture
def folder(tmp_path):
    """A folder with a recording of 2 s under two names."""
    for name in ("_ああ.flac", "ka.wav"):
        soundfile.write(tmp_path / name, 0.1 * np.sin(np.arange(32_000)), 16_000)
    return tmp_path


def write_oto(folder, *lines, encoding="utf-8"):
    (folder / "oto.ini").write_bytes("\r\n".join(lines).encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_oto_against_truth_written_by_hand(folder, encoding):
    write_oto(
        folder,
        "_ああ.wav=- あ,100,250,-700,150,50",  # a negative cutoff counts from the offset
        "_ああ.wav=a あ2,900,200.5,400,160,-20",  # a positive one from the end of the recording
        "",
        "ka.wav=,0,80,1000,20,5",  # without an alias, the file's name is it
        "ka.wav=息,0,0,0,0,0",
        encoding=encoding,
    )
    bank = load_bank(folder)
    found = {
        key: [(e.path.name, e.offset_s, e.fixed_s, e.end_s, e.preutterance_s, e.overlap_s) for e in entries]
        for key, entries in bank.entries.items()
    }
    truth = {
        ("-", ("", "a")): [("_ああ.flac", 0.1, 0.25, 0.8, 0.15, 0.05)],
        ("a", ("", "a")): [("_ああ.flac", 0.9, 0.2005, 1.6, 0.16, -0.02)],
        (None, ("k", "a")): [("ka.wav", 0.0, 0.08, 0.88, 0.02, 0.005)],  # no vowel is kept for more than 0.8 s
    }
    assert found.keys() == truth.keys()
    for key, entries in truth.items():
        assert [e[0] for e in found[key]] == [e[0] for e in entries]
        assert [e[1:] for e in found[key]] == [pytest.approx(e[1:]) for e in entries]
    assert [breath.alias for breath in bank.breaths] == ["息"]
    assert bank.skipped == ()


def test_a_bad_line_costs_that_line(folder):
    bad = [
        "ka.wav=ka,1,2,3",
        "ka.wav=ka,x,80,0,20,5",
        "gone.wav=ki,0,80,0,20,5",
        "ka.wav=ku,1990,80,-700,20,5",
        "../ka.wav=ke,0,80,0,20,5",
    ]
    write_oto(folder, *bad, "ka.wav=ka,0,80,0,20,5")
    bank = load_bank(folder)
    assert list(bank.entries) == [(None, ("k", "a"))]
    assert [reason.removeprefix(f"{folder / 'oto.ini'}:").split(":")[0] for reason in bank.skipped] == list("12345")


def test_what_cannot_be_sung_is_named_by_file_and_line(folder):
    write_oto(folder, "gone.wav=ka,0,80,0,20,5")
    with pytest.raises(InputError, match=r"oto\.ini:1: 'gone\.wav' is not among the recordings"):
        load_bank(folder)
    write_oto(folder, "ka.wav=hello there,0,80,0,20,5")
    with pytest.raises(InputError, match=r"oto\.ini names no syllable"):
        load_bank(folder)
    (folder / "oto.ini").unlink()
    with pytest.raises(InputError, match="holds no voice"):
        load_banks(folder)
    with pytest.raises(InputError, match=r"oto\.ini cannot be read"):
        load_bank(folder)
    write_oto(folder, "ka.wav=ka,0,80,0,20,5")
    (folder / "ka.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"ka\.wav is not audio"):
        load_bank(folder)


def test_analysis_finds_pitch_vowel_and_consonant(tmp_path):
    bank = load_banks(write_voicebank(tmp_path / "tiny").parent)["tiny"]
    assert bank.pitch_hz == pytest.approx(220, rel=0.01)
    assert len(bank.morae) == len(SYLLABLES)
    syllable = bank.syllable(bank.entries[None, ("s", "a")][0])
    assert syllable.beat == 16  # 80 ms
    assert syllable.voiced[20:].all()
    assert not syllable.voiced[2:12].any()
    assert syllable.steady.start == 28
    assert syllable.steady.stop == pytest.approx(16 + VOWEL_S / 0.005, abs=4)
