"""Bands: every groove on known chords. The chords' tones come from the made sheet, not from the arranger."""

import re

import numpy as np
import pytest
from helpers.lead_sheets import chord, lead_sheet, steady

from hafm_jax.audio.songs import SPLITS
from hafm_jax.common.errors import InputError
from hafm_jax.synthesis import arrangement
from hafm_jax.synthesis.arrangement import LEVELS_DB, MOST_LATE_S, arrange
from hafm_jax.synthesis.grooves import (
    BEATS,
    DRUM_KEYS,
    FAMILIES,
    GROOVES,
    KITS,
    UNSEEN_GROOVES,
    UNSEEN_PROGRAMS,
    programs_of,
)
from hafm_jax.synthesis.lead_sheet import Section

SYMBOLS = "C Am F G7 Dm7,G7 Em Fmaj7 G7/B C/G Fsus4 Bdim E7 Am Bb Ab9 C"
METRES = {"4/4": (4, 4), "3/4": (3, 4), "6/8": (6, 8), "2/4": (2, 4)}


def _play(groove, monkeypatch, seed=0, symbols=SYMBOLS, first_s=0.0, split="test", bars=None):
    monkeypatch.setattr(arrangement, "grooves_of", lambda *_: [groove])
    sheet = lead_sheet(symbols, METRES[groove.metre])
    timeline = steady(np.sqrt(np.prod(groove.bpm)), sheet.beat_quarters, first_s)
    bars = bars or (0, len(sheet.bars))
    return sheet, timeline, arrange(sheet, *bars, timeline, np.random.default_rng(seed), split=split)


def _part(band, kind):
    return next(p for p in band.parts if p.kind == kind)


def test_the_tables_are_whole():
    assert len(GROOVES) >= 40 and len({g.style for g in GROOVES.values()}) >= 15
    for groove in GROOVES.values():
        assert 1 <= len(groove.comps) <= 3 and set(groove.kits) <= set(KITS), groove.name
        assert {drum for drum, _ in groove.drums} <= set(DRUM_KEYS), groove.name
        rows = [(p, "xXo.") for _, p in groove.drums]
        rows += [(groove.bass[1], "135678aw.-")] + [(p, "xXodDu123456b.-") for _, p in groove.comps]
        for pattern, symbols in rows:
            assert set(pattern) <= set(symbols), (groove.name, pattern)
            assert len(pattern) % (BEATS[groove.metre] * groove.slots_per_beat) == 0, (groove.name, pattern)
        for family in (groove.bass[0], *(f for f, _ in groove.comps), *groove.leads):
            assert programs_of(family, "train") and programs_of(family, "validation"), (groove.name, family)
    assert set(GROOVES) > UNSEEN_GROOVES and {n for f in FAMILIES.values() for n in f.values()} > UNSEEN_PROGRAMS
    for metre in BEATS:
        assert any(g.metre == metre and g.name in UNSEEN_GROOVES for g in GROOVES.values())


@pytest.mark.parametrize("name", GROOVES)
def test_a_band_states_the_chords_in_time(name, monkeypatch):
    sheet, timeline, band = _play(GROOVES[name], monkeypatch)
    assert (band.groove, band.style) == (name, GROOVES[name].style)
    end_s = timeline.time_s(sheet.end)
    spans_s = [(timeline.time_s(c.start), timeline.time_s(c.end), c) for c in sheet.chords]
    inside = total = 0
    for part in band.parts:
        assert np.all(part.start_s >= 0) and np.all(part.end_s <= end_s) and np.all(part.end_s > part.start_s)
        assert np.all(np.diff(part.start_s) >= 0) and np.all((part.velocity >= 1) & (part.velocity <= 127))
        low, high = LEVELS_DB[part.kind]
        assert low <= part.level_db <= high
        if part.kind == "harmony":
            strum_s = 0.13  # the last string of a slow strum
            for at, midi in zip(part.start_s, part.midi, strict=True):
                now = [c for s, e, c in spans_s if s - MOST_LATE_S <= at < e + strum_s]
                inside += any(midi % 12 in (*c.tones, c.bass) for c in now)
                total += 1
            assert np.all((part.midi >= 38) & (part.midi <= 88))
    assert inside / total >= 0.98
    # Each chord is struck by the harmony and begins with its own bass.
    bass = _part(band, "bass")
    assert np.all((bass.midi >= 28) & (bass.midi <= 52))
    onsets_s = np.concatenate([p.start_s for p in band.parts if p.kind == "harmony"])
    for start_s, stop_s, c in spans_s:
        first = np.flatnonzero(np.abs(bass.start_s - start_s) <= MOST_LATE_S)
        assert first.size, (name, c.symbol)
        assert bass.midi[first[-1]] % 12 == c.bass, (name, c.symbol)
        assert np.any((onsets_s >= start_s - MOST_LATE_S) & (onsets_s < stop_s)), (name, c.symbol)


@pytest.mark.parametrize("name", ["waltz_plain", "six_rock", "two_march", "pop_eights"])
def test_the_kick_opens_every_bar(name, monkeypatch):
    sheet, timeline, band = _play(GROOVES[name], monkeypatch)
    drums = _part(band, "drums")
    kicks_s = drums.start_s[drums.midi == DRUM_KEYS["kick"]]
    for bar in sheet.bars:
        assert np.abs(kicks_s - timeline.time_s(bar)).min() <= MOST_LATE_S


def test_unseen_grooves_and_programs_are_in_the_test_split_alone():
    seen, programs = ({split: set() for split in SPLITS} for _ in range(2))
    for split in SPLITS:
        for seed in range(30):
            for metre, bpm in (((4, 4), 60 + 4 * seed), ((3, 4), 120), ((6, 8), 50 + 2 * seed), ((2, 4), 80)):
                sheet = lead_sheet("C", metre)
                band = arrange(sheet, 0, 1, steady(bpm, sheet.beat_quarters), np.random.default_rng(seed), split=split)
                seen[split].add(band.groove)
                programs[split] |= {p.name for p in band.parts}
    for split in ("train", "validation"):
        assert not seen[split] & UNSEEN_GROOVES and not programs[split] & UNSEEN_PROGRAMS
        assert len(seen[split]) >= 25
    assert seen["test"] > UNSEEN_GROOVES and programs["test"] > UNSEEN_PROGRAMS


def test_the_same_seed_is_the_same_band():
    sheet = lead_sheet(SYMBOLS)

    def notes(seed):
        band = arrange(sheet, 2, 8, steady(100), np.random.default_rng(seed), split="train")
        return band.groove, [
            (p.name, p.level_db, p.start_s.tobytes(), p.end_s.tobytes(), p.midi.tobytes(), p.velocity.tobytes())
            for p in band.parts
        ]

    assert notes(3) == notes(3)
    assert notes(3) != notes(4)


def test_bars_before_the_first_are_an_introduction_on_its_chord(monkeypatch):
    kinds = set()
    for seed in range(8):
        _, timeline, band = _play(GROOVES["pop_eights"], monkeypatch, seed, "F C", first_s=2.5)
        bar_s = timeline.time_s(4) - timeline.time_s(0)
        counted = not np.any(_part(band, "bass").start_s < 2.5 - MOST_LATE_S)
        kinds.add(counted)
        assert _part(band, "drums").start_s[0] >= 2.5 - bar_s - 1e-9
        start_s, stop_s, first = band.chords[0]
        assert first.symbol == "F"
        assert (start_s, stop_s) == pytest.approx((2.5, 2.5 + bar_s) if counted else (2.5 - bar_s, 2.5))
    assert kinds == {True, False}


def test_the_last_chord_of_a_song_is_held_and_sections_differ_in_strength(monkeypatch):
    sheet, timeline, band = _play(GROOVES["pop_eights"], monkeypatch)
    last_s = timeline.time_s(sheet.bars[-1])
    for kind in ("bass", "harmony"):
        part = _part(band, kind)
        held = part.start_s > last_s - MOST_LATE_S - 1e-9
        assert np.all(part.end_s[held] - part.start_s[held] > 0.8 * (timeline.time_s(sheet.end) - last_s))
    _, _, window = _play(GROOVES["pop_eights"], monkeypatch, bars=(0, 8))
    assert np.sum(_part(window, "bass").start_s > timeline.time_s(sheet.bars[7]) - MOST_LATE_S) > 4

    monkeypatch.setattr(arrangement, "grooves_of", lambda *_: [GROOVES["pop_eights"]])
    parts = lead_sheet("C F " * 8, sections=(Section(0, 8, "A"), Section(8, 16, "chorus")))
    strong = arrange(parts, 0, 16, steady(110), np.random.default_rng(5), split="train")
    for part in strong.parts[:3]:
        half = part.start_s < steady(110).time_s(32)
        assert part.velocity[~half].mean() > part.velocity[half].mean()


def test_a_fill_closes_a_section(monkeypatch):
    _, timeline, band = _play(GROOVES["rock_backbeat"], monkeypatch)
    drums = _part(band, "drums")
    toms = [DRUM_KEYS[n] for n in ("low_tom", "mid_tom", "high_tom")]
    tom_s = drums.start_s[np.isin(drums.midi, toms)]
    snare_s = drums.start_s[drums.midi == DRUM_KEYS["snare"]]
    bar_s = timeline.time_s(4)
    usual = np.histogram(snare_s, np.arange(17) * bar_s)[0] + np.histogram(tom_s, np.arange(17) * bar_s)[0]
    assert usual[7] > np.median(usual)


def test_long_and_short_chords_of_any_kind_sound():
    for symbols in ("C9 Db9 Gbmaj7 B7", "C,Dm7,G7,C F,G", "Ebsus4 Adim/C Bbm7/Ab C"):
        for seed in range(10):
            sheet = lead_sheet(symbols)
            band = arrange(sheet, 0, len(sheet.bars), steady(110), np.random.default_rng(seed), split="test")
            for c in sheet.chords:
                sounding = {
                    int(m) % 12
                    for p in band.parts
                    if p.kind in ("harmony", "bass")
                    for a, m in zip(p.start_s, p.midi, strict=True)
                    if steady(110).time_s(c.start) - MOST_LATE_S <= a < steady(110).time_s(c.end) - MOST_LATE_S
                }
                assert c.bass in sounding and c.root in sounding, (symbols, seed, c.symbol, band.groove)


def test_bars_without_a_chord_have_drums_alone(monkeypatch):
    groove = GROOVES["rock_straight"]
    monkeypatch.setattr(arrangement, "grooves_of", lambda *_: [groove])
    sheet = lead_sheet("C C C C")
    silent = type(sheet)(**{**vars(sheet), "chords": (chord("C", 0, 4), chord("F", 8, 16))})
    band = arrange(silent, 0, 4, steady(120), np.random.default_rng(0), split="train")
    for part in band.parts:
        inside = (part.start_s > 2.05) & (part.start_s < 3.95)
        assert np.any(inside) == (part.kind == "drums"), part.kind


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"split": "dev"}, "the split is 'dev'"),
        ({"metre": (5, 4)}, "no groove is in 5/4"),
        ({"num_bars": 9}, "bars 0 to 9 are asked for, of 2"),
    ],
)
def test_what_cannot_be_arranged_is_said(kwargs, message):
    sheet = lead_sheet("C F", kwargs.get("metre", (4, 4)))
    with pytest.raises(InputError, match=re.escape(message)):
        arrange(
            sheet,
            0,
            kwargs.get("num_bars", 2),
            steady(100),
            np.random.default_rng(0),
            split=kwargs.get("split", "train"),
        )
