"""The kit of blind pairs: what it must not reveal, its balance, its sound, and its page in a real browser."""

from __future__ import annotations

import filecmp
import html
import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT
from helpers.html_pages import assert_well_formed
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax import listen
from hafm_jax.audio import files, mixing
from hafm_jax.audio.loudness import loudness_lufs
from hafm_jax.common.errors import InputError
from hafm_jax.listening.kit import LEVEL_LUFS, NUM_CHECKS, design, level_pair, make_kit
from hafm_jax.synthesis.song import song_seed, synthesize_song

RATE_HZ = 24_000
TEMPLATE = ROOT / "hafm_jax" / "listening" / "page.html.j2"
SYSTEMS = ("model", "retrieval", "random", "truth")
CLIPS = [f"{i:05d}-10s" for i in range(6)]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Six clips of 3 s: the true band, two other songs' bands, and a faint copy of the true one a beat late."""
    folder = tmp_path_factory.mktemp("report")
    songs = [synthesize_song(song_seed("test", i, 0), 3.0, RATE_HZ) for i in range(len(CLIPS))]
    for i, (clip, song) in enumerate(zip(CLIPS, songs, strict=True)):
        band = song.instrumental
        bands = {"vocal": song.vocals, "truth": band, "model": 0.05 * np.roll(band, RATE_HZ // 2)}
        bands |= {"retrieval": songs[i - 1].instrumental, "random": songs[i - 2].instrumental, "silence": 0 * band}
        for name, audio in bands.items():
            path = folder / "clips" / name / f"{clip}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_audio(path, audio, RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def kit(report, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("kits") / "kit"
    listen.main(["make", "--report", str(report), "--systems", *SYSTEMS, "--out", str(out), "--clips", "4"])
    return out


def key_of(kit: Path) -> dict:
    return json.loads((kit / "key.json").read_text())


def sounds_of(kit: Path) -> list[Path]:
    return sorted((kit / "page" / "audio").iterdir())


# ------------------------------------------------------------------------------------------------------ the design


@settings(max_examples=60)
@given(
    num_clips=st.integers(1, 9),
    num_systems=st.integers(2, 5),
    with_truth=st.booleans(),
    one_against_all=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_comparison_on_every_clip_and_sides_in_balance(num_clips, num_systems, with_truth, one_against_all, seed):
    systems = ["truth" if with_truth and i == 0 else f"s{i}" for i in range(num_systems)]
    against = systems[-1] if one_against_all else None
    clips = CLIPS[:num_clips] if num_clips <= len(CLIPS) else [str(i) for i in range(num_clips)]
    pairs = design(clips, systems, against, np.random.default_rng(seed))
    asked = [pair for pair in pairs if not pair.check]
    comparisons = [set(c) for c in itertools.combinations(systems, 2) if against is None or against in c]

    counted = Counter((pair.clip, frozenset((pair.a, pair.b))) for pair in asked)
    assert counted == {(clip, frozenset(c)): 1 for clip in clips for c in comparisons}
    for comparison in comparisons:
        left = Counter(pair.a for pair in asked if {pair.a, pair.b} == comparison)
        assert abs(len(clips) - 2 * left[next(iter(comparison))]) <= 1
    checks = [pair for pair in pairs if pair.check]
    assert len(checks) == (NUM_CHECKS if with_truth else 0)
    assert all({pair.a, pair.b} == {"truth", "vocal_alone"} for pair in checks)
    if with_truth:
        assert {pair.a for pair in checks} == {"truth", "vocal_alone"}  # not always on one side
    if num_clips >= 3:
        assert all(one.clip != other.clip for one, other in itertools.pairwise(pairs))


def test_the_first_pairs_cover_every_clip_and_every_comparison():
    pairs = [p for p in design(CLIPS, SYSTEMS, None, np.random.default_rng(0)) if not p.check]
    first_round = pairs[: len(CLIPS)]
    assert {p.clip for p in first_round} == set(CLIPS)
    assert len({frozenset((p.a, p.b)) for p in first_round}) == 6  # of six comparisons


def test_the_side_follows_neither_system_nor_place():
    """Over many seeds the first pair's left side is each system equally often: chi-square at 4 standard deviations."""
    left = Counter(design(CLIPS, SYSTEMS[:3], None, np.random.default_rng(seed))[0].a for seed in range(900))
    assert all(abs(left[system] - 300) < 4 * (900 * 1 / 3 * 2 / 3) ** 0.5 for system in SYSTEMS[:3])


# ------------------------------------------------------------------------------------------------------- blindness


def test_the_page_holds_only_the_number_of_pairs_and_their_length(kit):
    page = (kit / "page" / "index.html").read_text()
    assert_well_formed(page)
    embedded = json.loads(re.search(r"const KIT = (.*);", page)[1])
    key = key_of(kit)
    assert embedded == {"format_version": 1, "kit": key["kit"], "pairs": 27, "seconds": 3, "minutes": 6}
    template = TEMPLATE.read_text().removesuffix("\n")
    as_json = json.dumps(embedded, sort_keys=True)
    assert page == template.replace("{{ kit | tojson }}", as_json).replace("{{ question }}", key["question"])
    assert not re.search(r"https?:|\bsrc=|<link|key\.json|@import|url\(", page)  # nothing from elsewhere
    assert not any(word in template for word in ("retrieval", "truth", "model", "silence", "vocal"))


def test_names_sizes_and_headers_are_the_same_for_every_side(kit):
    pairs = len(key_of(kit)["pairs"])
    expected = {"index.html"} | {f"audio/{n:03d}{side}.wav" for n in range(1, pairs + 1) for side in "ab"}
    assert {str(p.relative_to(kit / "page")) for p in (kit / "page").rglob("*") if p.is_file()} == expected
    headers = {path.read_bytes()[:44] for path in sounds_of(kit)}
    assert len(headers) == 1  # RIFF, fmt and data: no room for a comment, and one size
    (header,) = headers
    assert header[12:16] == b"fmt " and header[36:40] == b"data"
    assert {path.stat().st_size for path in sounds_of(kit)} == {44 + 2 * 3 * RATE_HZ}


def test_the_same_mix_in_two_pairs_is_not_the_same_bytes(kit):
    rows = key_of(kit)["pairs"]
    assert len({(row["clip"], row[side]) for row in rows for side in "ab"}) < 2 * len(rows)  # mixes do come back
    assert len({path.read_bytes() for path in sounds_of(kit)}) == 2 * len(rows)


def test_the_key_is_outside_the_page_and_names_the_right_systems(kit, report):
    assert {p.name for p in kit.iterdir()} == {"page", "key.json"}
    for row in key_of(kit)["pairs"]:
        vocal, _ = files.read_audio(report / "clips" / "vocal" / f"{row['clip']}.flac")
        for side in "ab":
            mix, _ = files.read_audio(kit / "page" / "audio" / f"{row['pair']:03d}{side}.wav")
            likeness = {}
            for system in SYSTEMS:
                band, _ = files.read_audio(report / "clips" / system / f"{row['clip']}.flac")
                likeness[system] = np.corrcoef(mixing.mix(vocal, band, RATE_HZ).audio[0], mix[0])[0, 1]
            likeness["vocal_alone"] = np.corrcoef(vocal[0], mix[0])[0, 1]
            assert max(likeness, key=likeness.get) == row[side] and likeness[row[side]] > 0.999


# ------------------------------------------------------------------------------------------------------------ sound


def test_every_side_has_the_clips_length_and_its_pairs_loudness(kit):
    for row in key_of(kit)["pairs"]:
        levels = []
        for side in "ab":
            audio, rate_hz = soundfile.read(kit / "page" / "audio" / f"{row['pair']:03d}{side}.wav")
            assert rate_hz == RATE_HZ and audio.shape == (3 * RATE_HZ,)
            assert np.abs(audio).max() < 10 ** (-0.9 / 20)
            levels.append(loudness_lufs(audio, RATE_HZ))
        assert abs(levels[0] - levels[1]) < 0.05 and row["level_lufs"] == pytest.approx(levels[0], abs=0.05)
        assert row["level_lufs"] <= LEVEL_LUFS


def test_a_pair_with_high_peaks_is_softer_on_both_sides():
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    sine = 0.5 * np.sin(2 * np.pi * 997 * time_s)
    clicks = np.where(np.arange(time_s.size) % 4800 < 3, 0.9, 1e-3 * sine)  # loudness far below its peaks
    (a, b), level_lufs = level_pair([sine, clicks], np.random.default_rng(0))
    assert level_lufs < LEVEL_LUFS - 3
    assert loudness_lufs(a, RATE_HZ) == pytest.approx(loudness_lufs(b, RATE_HZ), abs=0.1)
    assert 20 * np.log10(np.abs(b).max()) == pytest.approx(mixing.PEAK_LIMIT_DBFS, abs=0.01)


def test_the_dither_is_triangular_and_of_one_step():
    soft = 1e-2 * np.sin(np.arange(5 * RATE_HZ) / 7)
    (a, b), _ = level_pair([soft, soft], np.random.default_rng(0))
    difference = 2**15 * (a - b)  # of two independent triangular ones, each of variance 1/6
    assert np.var(difference) == pytest.approx(2 / 6, rel=0.02) and np.abs(difference).max() <= 2


# ------------------------------------------------------------------------------------------- same seed, bad input


def test_the_same_seed_makes_the_same_kit_bit_for_bit(kit, report, tmp_path):
    make_kit(report, SYSTEMS, tmp_path / "again", 4, seed=0)
    make_kit(report, SYSTEMS, tmp_path / "other", 4, seed=1)
    names = [str(p.relative_to(kit)) for p in sorted(kit.rglob("*")) if p.is_file() and "results" not in p.parts]
    assert filecmp.cmpfiles(kit, tmp_path / "again", names, shallow=False) == (names, [], [])
    _, differing, missing = filecmp.cmpfiles(kit, tmp_path / "other", names, shallow=False)
    assert sorted(differing) == names and missing == []  # other sides and orders, so another id in page and key too


def test_against_asks_only_about_one_system(report, tmp_path):
    key, _ = make_kit(report, SYSTEMS, tmp_path / "kit", 1, against="model")
    asked = [pair for pair in key["pairs"] if not pair["check"]]
    assert len(asked) == 3 and all("model" in (pair["a"], pair["b"]) for pair in asked)


def test_clips_that_a_system_lacks_are_named_and_left_out(report, tmp_path, capsys):
    copy = shutil.copytree(report, tmp_path / "report")
    (copy / "clips" / "random" / f"{CLIPS[2]}.flac").unlink()
    arguments = ["make", "--report", str(copy), "--systems", "model", "random", "--out", str(tmp_path / "kit")]
    listen.main(arguments)
    assert f"clip {CLIPS[2]}, missing in random" in capsys.readouterr().err
    assert {pair["clip"] for pair in key_of(tmp_path / "kit")["pairs"]} == {*CLIPS} - {CLIPS[2]}
    with pytest.raises(InputError, match=f"5 clips.*expected 6.*{CLIPS[2]} is missing in random"):
        make_kit(copy, ["model", "random"], tmp_path / "more", 6)


def test_what_cannot_be_made_is_refused_and_leaves_nothing(report, tmp_path):
    copy = shutil.copytree(report, tmp_path / "report")
    for name, audio, rate_hz in (("short", np.zeros(100, np.float32), RATE_HZ), ("stereo", np.zeros((2, 100)), 16_000)):
        (copy / "clips" / name).mkdir()
        for clip in CLIPS:
            files.write_audio(copy / "clips" / name / f"{clip}.flac", audio, rate_hz)
    out = tmp_path / "kits" / "kit"
    for systems, against, found in [
        (["model"], None, "two or more"),
        (["model", "model"], None, "each once"),
        (["model", "humans"], None, "no clips of a system 'humans'; expected some of model, random"),
        (["model", "vocal"], None, "no clips of a system 'vocal'"),
        (["model", "truth"], "random", "--against is random; expected one of"),
        (["model", "short"], None, "100 samples of short; expected 72000"),
        (["model", "stereo"], None, "2 channels at 16000 Hz; expected 1 at 24000"),
    ]:
        with pytest.raises(InputError, match=found):
            make_kit(copy, systems, out, against=against)
    with pytest.raises(InputError, match="holds no clips/vocal"):
        make_kit(tmp_path, ["model", "truth"], out)
    assert not out.exists() and not list(out.parent.glob("*"))
    out.mkdir(parents=True)
    with pytest.raises(InputError, match="exists already"):
        make_kit(copy, ["model", "truth"], out)


def test_a_clip_in_which_nothing_sounds_is_named(report, tmp_path):
    copy = shutil.copytree(report, tmp_path / "report")
    for clip in CLIPS:
        files.write_audio(copy / "clips" / "vocal" / f"{clip}.flac", np.zeros(3 * RATE_HZ), RATE_HZ)
    with pytest.raises(InputError, match=r"clip 0000\d-10s is silent with the band of (silence|vocal_alone)"):
        make_kit(copy, ["silence", "truth"], tmp_path / "kit")


# ---------------------------------------------------------------------------------------------------------- the page

LISTENER = """
const hear = (side) => sounds[side].dispatchEvent(new Event("ended"));
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
function answerOne(k) {
  press("ArrowLeft"); $("next").click();              // before anything was heard: no answer
  hear("a"); press("ArrowLeft"); $("next").click();   // after one side: neither
  hear("b"); $("next").click();                       // without a choice: neither
  if (kept.answers.length !== k) throw new Error("answered too early");
  press(["ArrowLeft", "ArrowDown", "ArrowRight"][k % 3]);
  $("next").click();
  if (kept.answers.length !== k + 1) throw new Error("not answered");
}
if (kept === null) {
  $("listener").value = " Ada  Lovelace "; $("start").requestSubmit();
  for (let k = 0; k < 5; k++) answerOne(k);
  location.reload();                                  // as after a closed tab
} else {
  for (let k = kept.answers.length; k < KIT.pairs; k++) answerOne(k);
  document.body.dataset.text = $("text").value;
  document.body.dataset.visible = [...document.querySelectorAll("section")].filter((s) => !s.hidden).map((s) => s.id);
}
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_listener_in_a_browser_answers_all_pairs_and_the_analysis_reads_them(kit, tmp_path, capsys):
    copy = shutil.copytree(kit, tmp_path / "kit")
    page = copy / "page" / "index.html"
    page.write_text(page.read_text().replace("</body>", f"<script>{LISTENER}</script></body>"))
    dom = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert 'data-visible="end"' in dom and "That was all" in dom
    answers = json.loads(html.unescape(re.search(r'data-text="([^"]*)"', dom)[1]))
    pairs = len(key_of(kit)["pairs"])
    assert answers["listener"] == "Ada  Lovelace"
    order = [answer["pair"] for answer in answers["answers"]]
    assert order == [(order[0] - 1 + k) % pairs + 1 for k in range(pairs)]
    assert [answer["choice"] for answer in answers["answers"]] == [("a", "none", "b")[k % 3] for k in range(pairs)]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    listen.main(["analyse", "--kit", str(kit), "--answers", str(tmp_path / "answers.json"), "--out", str(tmp_path)])
    assert f"{pairs} answers of 1 listeners" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "results.json").read_text())["by_listener"]) == ["ada lovelace"]
