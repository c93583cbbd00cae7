"""Which clips an evaluation is made of."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import unsealed
from hafm_jax.evaluation import protocol
from hafm_jax.evaluation.clips import Clip, read_clip
from hafm_jax.evaluation.protocol import Rule, make_protocol

RATE_HZ = 8_000


def write_song(folder, vocal_levels, band_level=0.1, rate_hz=RATE_HZ):
    """Noise, ten seconds at each level, and three seconds more."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.name))
    levels = np.repeat([*vocal_levels, 0.1], [10 * rate_hz] * len(vocal_levels) + [3 * rate_hz])
    vocals = np.clip(levels * rng.standard_normal(levels.size), -1, 1)
    soundfile.write(folder / "vocals.flac", vocals, rate_hz)
    soundfile.write(
        folder / "instrumental.flac", np.clip(band_level * rng.standard_normal(levels.size), -1, 1), rate_hz
    )


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    write_song(root / "test" / "a-1", [0.1, 0.1, 0.1])
    write_song(root / "test" / "b", [0.1, 0.05, 0.1])  # -26 dBFS in the middle
    write_song(root / "test" / "c", [0.1], rate_hz=11_025)
    write_song(root / "test" / "no-band", [0.1, 0.1], band_level=0.0)
    (root / "test" / "broken").mkdir()
    (root / "test" / "broken" / "vocals.wav").write_bytes(b"RIFF")
    write_song(root / "train" / "d", [0.1, 0.1], rate_hz=24_000)
    write_song(root / "train" / "e", [0.1])
    for name in "fg":
        write_song(root / "train" / name, [0.1], rate_hz=RATE_HZ // 4)
    return root


def test_clips_sound_and_do_not_overlap_and_each_song_comes_before_its_second_clip(songs):
    read = []
    made = make_protocol(songs, Rule(), read.append)
    expected = {("a-1", 0), ("a-1", 10), ("a-1", 20), ("b", 0), ("b", 20), ("c", 0)}
    assert set(made.clips) == expected and len(made.clips) == 6
    assert {clip.song for clip in made.clips[:3]} == {"a-1", "b", "c"}
    of_each = {"d": {("d", 0), ("d", 10)}} | {name: {(name, 0)} for name in "efg"}
    assert set(made.reference) == set().union(*(of_each[clip.song] for clip in made.reference))
    assert sorted(read) == sorted(
        [f"test/{path.name}" for path in songs.glob("test/*")] + [f"train/{c.song}" for c in made.reference[:2]]
    )


def test_half_of_the_training_songs_are_the_reference_and_others_the_library(songs, monkeypatch):
    for seed in range(5):
        made = make_protocol(songs, Rule(seed=seed))
        songs_of_reference = {clip.song for clip in made.reference}
        assert len(songs_of_reference) == 2 and songs_of_reference | set(made.library) == set("defg")
        assert not songs_of_reference & set(made.library)
    assert len(make_protocol(songs, Rule(num_reference_clips=1)).library) == 3
    monkeypatch.setattr(protocol, "LIBRARY_SONGS", 1)
    assert len({make_protocol(songs, Rule(seed=seed)).library for seed in range(8)}) > 1
    assert len(make_protocol(songs, Rule()).library) == 1


def test_one_song_cannot_be_both_reference_and_library(songs, tmp_path):
    (tmp_path / "test").symlink_to(songs / "test")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "e").symlink_to(songs / "train" / "e")
    with pytest.raises(InputError, match="holds one song; expected two or more"):
        make_protocol(tmp_path, Rule())


def test_the_gate_is_in_true_dbfs(songs):
    louder = make_protocol(songs, Rule(vocal_gate_dbfs=-26.5))
    assert ("b", 10) in louder.clips  # 20 log10 0.05 = -26.02
    with pytest.raises(InputError, match="no 10 s of a song"):
        make_protocol(songs, Rule(vocal_gate_dbfs=-10))


def test_the_seed_orders_songs_and_decides_what_is_drawn(songs):
    orders = {make_protocol(songs, Rule(seed=seed)).clips for seed in range(8)}
    assert len(orders) > 1
    made = make_protocol(songs, Rule())
    assert made == make_protocol(songs, Rule())
    seeds = [made.seed_of(clip) for clip in made.clips]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)
    assert replace(made, clips=made.clips[::-1]).seed_of(made.clips[0]) == seeds[0]


def test_a_number_of_clips_is_kept_to(songs):
    made = make_protocol(songs, Rule(num_clips=2, num_reference_clips=1))
    assert len(made.clips) == 2 and len({clip.song for clip in made.clips}) == len(made.clips)
    assert len(made.reference) == 1


def test_the_fingerprint_is_of_all_that_figures_depend_on(songs, monkeypatch):
    made = make_protocol(songs, Rule())
    others = [made.fingerprint(*of) for of in ((), ("mel",), ("vggish", "0" * 64), ("vggish", "1" * 64))]
    others += [replace(made, **{k: getattr(made, k)[:-1]}).fingerprint() for k in ("clips", "reference", "library")]
    others.append(replace(made, rule=Rule(seed=1)).fingerprint())
    assert len(set(others)) == len(others)
    assert all(len(fingerprint) == 12 for fingerprint in others)
    monkeypatch.setattr(protocol, "MEASURES_VERSION", protocol.MEASURES_VERSION + 1)
    assert made.fingerprint() not in others


def test_what_is_written_is_read(songs, tmp_path):
    made = make_protocol(songs, Rule())
    protocol.write_protocol(tmp_path / "p.json", made)
    found = protocol.read_protocol(tmp_path / "p.json")
    assert found == made and found.fingerprint() == made.fingerprint()


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda d: d | {"clip_s": 5}, "another version"),
        (lambda d: d | {"format_version": 99}, "another version"),
        (lambda d: d | {"clips": ["a-xs"]}, "expected a protocol"),
        (lambda d: d | {"library": [*d["library"], d["reference"][0].split("-")[0]]}, "in reference and library"),
        (lambda d: d | {"rule": {"colour": 1}}, "not a protocol .*'colour'"),
        (lambda d: [d], "expected a protocol"),
        (lambda d: d | {"rule": d["rule"] | {"seed": "x"}}, "seed is 'x'"),
        (lambda d: d | {"rule": d["rule"] | {"split": "../.."}}, "split is '../..'; expected the name of a file"),
        (lambda d: d | {"clips": ["../../elsewhere-0s"]}, "a song is '../../elsewhere'; expected the name of a file"),
        (lambda d: d | {"clips": ["/etc/cron.d/x-0s"]}, "a song is '/etc/cron.d/x'"),
        (lambda d: d | {"library": ["..", *d["library"]]}, "a song is '..'"),
    ],
)
def test_other_files_are_refused(songs, tmp_path, change, found):
    path = tmp_path / "p.json"
    protocol.write_protocol(path, make_protocol(songs, Rule()))
    path.write_text(json.dumps(change(unsealed(json.loads(path.read_text())))))
    with pytest.raises(InputError, match=found):
        protocol.read_protocol(path)
    with pytest.raises(InputError, match="No such file"):
        protocol.read_protocol(tmp_path / "none.json")


def test_a_clip_is_its_ten_seconds_at_the_codecs_rate(songs):
    whole, _ = soundfile.read(songs / "train" / "d" / "vocals.flac", dtype="float32")
    np.testing.assert_array_equal(read_clip(songs, "train", Clip("d", 10), "vocals"), whole[240_000:480_000])
    assert read_clip(songs, "test", Clip("c", 0), "instrumental").shape == (240_000,)
    with pytest.raises(InputError, match="ends before 20 s"):
        read_clip(songs, "test", Clip("c", 10), "vocals")


def test_a_split_is_not_its_own_reference(songs):
    with pytest.raises(InputError, match="both evaluated and the reference"):
        make_protocol(songs, Rule(reference_split="test"))


def test_too_few_songs_are_refused_before_any_is_read(songs, tmp_path):
    with pytest.raises(InputError, match=r"train holds 4 songs, .*; expected 16 songs or more, half for the reference"):
        protocol.check_songs(songs, Rule())
    (tmp_path / "test").symlink_to(songs / "test")
    for i in range(16):
        (tmp_path / "train" / f"{i}").mkdir(parents=True)
        (tmp_path / "train" / f"{i}" / "vocals.flac").touch()  # empty: it is not read
    protocol.check_songs(tmp_path, Rule())
    with pytest.raises(InputError, match="a reference of 7 clips"):
        protocol.check_songs(tmp_path, Rule(num_reference_clips=7))
    with pytest.raises(InputError, match="holds no ID/vocals"):
        protocol.check_songs(tmp_path, Rule(split="nothing"))


def test_a_reference_of_few_songs_or_mostly_of_one_is_refused():
    def made(*songs: str) -> protocol.Protocol:
        return protocol.Protocol(Rule(), (), tuple(Clip(song, 10 * i) for i, song in enumerate(songs)), ())

    protocol.check_reference(made(*"abcdefgh"))
    with pytest.raises(InputError, match="the reference is of 7 songs; expected 8 or more for a distance"):
        protocol.check_reference(made(*"abcdefgg"))
    with pytest.raises(InputError, match="8 of 15 clips are of one song"):
        protocol.check_reference(made(*"abcdefgh" + 7 * "h"))
