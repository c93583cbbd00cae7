"""Songs from music, with a separator that needs no weights (separator_stand_in.py)."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
from helpers import scripts
from helpers.corpora import fma_row, write_fma, write_musdb
from helpers.media import write_media
from helpers.separation import (  # noqa: F401
    MODEL,
    arguments,
    contents,
    label,
    logged,
    music,
    noise,
    num_songs,
    report_of,
    run,
    songs,
    stand_in,
)
from helpers.tunes import read_stems

from hafm_jax.audio import files
from hafm_jax.audio.files import read_audio, resample, song_folders, song_splits, stem_file
from hafm_jax.common.errors import InputError

STEP = 2**-15  # of 16 bits

# ------------------------------------------------------------------------------------------------------------ the songs


def test_stems_add_up_to_the_mixture(songs, music):
    found = {}
    for folder in (folder for split in song_splits(songs) for folder in song_folders(songs, split)):
        song = json.loads((folder / "song.json").read_text())
        (source,) = song["source"]
        found[source] = song["seconds"]
        mixture, rate_hz = read_audio(music / source)
        mixture = resample(files.to_mono(resample(mixture, rate_hz, 44_100)), 44_100, 24_000)
        (vocals, vocals_hz), (instrumental, instrumental_hz) = read_stems(folder)
        assert vocals_hz == instrumental_hz == 24_000
        assert vocals.shape == instrumental.shape == (1, len(mixture))
        np.testing.assert_allclose(vocals + instrumental, song["gain"] * mixture[None], atol=3.1 * STEP)
        np.testing.assert_allclose(vocals[0], 0.6 * song["gain"] * mixture, atol=2.1 * STEP)
        assert song["vocal_dbfs"] == pytest.approx(10 * np.log10(np.mean((0.6 * mixture) ** 2)), abs=0.02)
        assert np.abs(np.concatenate([vocals, instrumental])).max() < 1 - STEP / 2  # nothing was clipped
    assert found.pop("good.mp3") == pytest.approx(1.4, abs=0.06)  # the format has whole frames alone
    assert found == {"more/copy.flac": 1.5, "more/mono.wav": 1.2, "more/loud.wav": 1.0}  # copy_ sorts before good_


def test_one_gain_keeps_loud_stems_from_clipping(songs):
    gains = {label(path.parent.name): json.loads(path.read_text())["gain"] for path in songs.glob("*/*/song.json")}
    assert gains["loud"] < 0.8 and gains["mono"] == 1.0


def test_each_reject_has_its_reason(songs, music):
    report = report_of(songs)
    rejects = {label(reject["id"]): reject for reject in report["rejects"]}
    assert {name: reject["reason"] for name, reject in rejects.items()} == {
        "good": "duplicate",
        "silent": "silent",
        "short": "too short",
        "long": "too long",
        "faint": "no singing",
        "damaged": "damaged",
        "empty": "empty",
    }
    assert all(reject["split"] in ("train", "validation", "test") for reject in rejects.values())
    assert "0.50 s" in rejects["short"]["detail"] and "more than 3 s" in rejects["long"]["detail"]
    # 0.6 of the mean of two independent channels at 0.02, less what resampling takes from the top of the band
    level_dbfs = float(rejects["faint"]["detail"].split()[2])
    assert level_dbfs == pytest.approx(20 * np.log10(0.6 * 0.02 / np.sqrt(2)), abs=0.5)
    assert rejects["damaged"]["detail"].startswith("damaged.mp3 cannot be read")  # no folder of this machine
    assert (report["tracks"], report["songs"], report["rejected"], report["to_do"]) == (12, 4, 8, 0)
    assert report["rejected_by_reason"]["damaged"] == 1 and report["rejected_by_reason"]["not in the metadata"] == 0
    assert sum(split["songs"] for split in report["splits"].values()) == 4
    assert report["licences"] == {"not stated": 4}
    files = report["files"]
    assert files["found"] == len([path for path in music.rglob("*") if not path.is_dir()]) == 15
    assert files["of_tracks"] == report["tracks"] == files["found"] - len(files["aside"])
    assert {one["file"]: one["reason"] for one in files["aside"]} == {
        **{".hidden.mp3": "hidden", "cover.jpg": "not audio", "dead.mp3": "dead link"}
    }


def test_each_reject_is_printed_in_a_line(songs):
    lines = (songs.parent / "printed").read_text().splitlines()
    assert sum(line.startswith("left out ") for line in lines) == 7  # those that had to be read
    assert "1 duplicate" in lines[-1] and "1 damaged, 2 empty" in lines[-1]
    assert lines[0].endswith(": 15 files, 12 of them of tracks; the others: 1 hidden, 1 not audio, 1 dead link")


def test_finished_songs_are_not_separated_again(monkeypatch, songs, music, tmp_path):
    out = shutil.copytree(songs, tmp_path / "out")
    before = contents(out)
    run(monkeypatch, *arguments(music, out))
    assert not logged(tmp_path, "separation") and contents(out) == before

    gone = next(out.glob("*/mono*"))
    shutil.rmtree(gone)
    soundfile.write(music / "new.wav", noise(1.1, 24_000, 0.3, 9), 24_000)
    try:
        run(monkeypatch, *arguments(music, out))
    finally:
        (music / "new.wav").unlink()
    assert len(logged(tmp_path, "separation")) == 2  # the one that was gone and the new one
    assert before.keys() < contents(out).keys() and report_of(out)["songs"] == 5


def test_fma_writes_licences_and_reports_tracks_without_metadata(monkeypatch, tmp_path):
    music = tmp_path / "fma_large"
    for number in (2, 5, 1003):
        path = music / f"{number // 1000:03d}" / f"{number:06d}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(1.5, 44_100, 0.25, number), 44_100, format="MP3")
    rows = {2: fma_row("training", "Food", "CC BY-SA"), 5: fma_row("validation", "Electric Ave")}
    metadata = write_fma(tmp_path, rows)
    out = tmp_path / "songs"
    command = ["--music", music, "--layout", "fma", "--metadata", metadata, *MODEL, "--min-seconds", 1, "--out", out]
    run(monkeypatch, *command)
    song = json.loads((out / "train" / "fma_000002" / "song.json").read_text())
    assert (song["licence"], song["artist"], song["title"]) == ("CC BY-SA", "The Band", "Food")
    assert song["separator"] == "mdx" and len(song["separator_sha256"]) == 64
    report = report_of(out)
    assert report["licences"] == {"CC BY": 1, "CC BY-SA": 1}
    assert report["splits"] == {"train": {"songs": 1, "hours": 0.0}, "validation": {"songs": 1, "hours": 0.0}}
    (reject,) = report["rejects"]
    assert (reject["id"], reject["split"], reject["reason"]) == ("fma_001003", None, "not in the metadata")

    write_fma(tmp_path, {2: fma_row("test", "Food")})
    with pytest.raises(InputError, match="begun with metadata_sha256"):
        run(monkeypatch, *command)


def test_given_stems_are_taken_as_they_are(monkeypatch, tmp_path):
    for k in range(2):
        write_musdb(tmp_path / "musdb", "train", f"Band {k} - Song", k, num_samples=52_920)
    vocals_file = tmp_path / "musdb" / "train" / "Band 0 - Song" / "vocals.wav"
    (tmp_path / "musdb" / "train" / "Band 1 - Song" / "drums.wav").unlink()
    out = tmp_path / "songs"
    given = ["--layout", "musdb", "--separator", "given", "--min-seconds", 1]
    run(monkeypatch, "--music", tmp_path / "musdb", *given, "--out", out)
    (folder,) = song_folders(out, "train")
    song = json.loads((folder / "song.json").read_text())
    assert (song["artist"], song["title"], song["separator_sha256"]) == ("Band 0", "Song", None)
    assert song["source"] == [f"train/Band 0 - Song/{stem}.wav" for stem in ("bass", "drums", "other", "vocals")]
    expected = song["gain"] * resample(files.to_mono(read_audio(vocals_file)[0]), 44_100, 24_000)
    np.testing.assert_allclose(read_audio(stem_file(folder, "vocals"))[0][0], expected, atol=2.1 * STEP)
    (reject,) = report_of(out)["rejects"]
    assert reject["reason"] == "file missing" and "drums.wav does not exist" in reject["detail"]


@pytest.mark.parametrize(
    "change, reason, found",
    [
        (lambda bass: soundfile.write(bass, np.zeros((44_100, 2)), 44_100), "stems differ", "2 channels of 44100 sam"),
        (lambda bass: soundfile.write(bass, np.zeros((52_920, 1)), 44_100), "stems differ", "bass.wav has 1 channels"),
        (lambda bass: soundfile.write(bass, np.zeros((52_920, 2)), 48_000), "stems differ", "at 48000 Hz, vocals.wav"),
        (lambda bass: bass.write_bytes(b""), "empty", "bass.wav has 0 bytes"),
        (lambda bass: bass.write_bytes(b"no audio"), "damaged", "bass.wav"),
        (lambda bass: bass.rename(bass.with_name("Bass.WAVE")), None, "Bass.WAVE"),
    ],
)
def test_stems_that_cannot_be_used_have_the_true_reason(monkeypatch, tmp_path, change, reason, found):
    write_musdb(tmp_path / "musdb", "train", "Band - Song", num_samples=52_920)
    change(tmp_path / "musdb" / "train" / "Band - Song" / "bass.wav")
    given = ["--layout", "musdb", "--separator", "given", "--min-seconds", 1]
    run(monkeypatch, "--music", tmp_path / "musdb", *given, "--out", tmp_path / "songs")
    report = report_of(tmp_path / "songs")
    assert report["files"]["found"] == report["files"]["of_tracks"] == 5
    assert {one["reason"] for one in report["rejects"]} == ({reason} if reason else set())
    told = [one["detail"] for one in report["rejects"]]
    assert found in "".join(told or [path.read_text() for path in (tmp_path / "songs").glob("*/*/song.json")])


def test_linked_albums_become_songs(monkeypatch, tmp_path):
    for name in ("music", "outside"):
        (tmp_path / name).mkdir()
    soundfile.write(tmp_path / "outside" / "a.wav", noise(1.2, 24_000, 0.3, 1), 24_000)
    (tmp_path / "music" / "album").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "up").symlink_to(tmp_path / "music")
    run(monkeypatch, *arguments(tmp_path / "music", tmp_path / "out"))
    (song,) = (tmp_path / "out").glob("*/*/song.json")
    assert json.loads(song.read_text())["source"] == ["album/a.wav"]
    assert report_of(tmp_path / "out")["files"]["aside_by_reason"] == {"link to a listed folder": 1}


def test_media_files_become_songs(monkeypatch, tmp_path):
    (tmp_path / "music").mkdir()
    write_media(tmp_path / "music" / "a.m4a", [noise(1.5, 44_100, 0.25, 1).T], 44_100)
    run(monkeypatch, *arguments(tmp_path / "music", tmp_path / "out"))
    assert report_of(tmp_path / "out")["songs"] == 1


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "change, found",
    [
        (["--weights", "other"], "begun with separator_sha256"),
        (["--sha256", "0" * 64], "sha256 is"),
        (["--ray-gpus", -1], "--ray-gpus is -1"),
        (["--vocal-gate-dbfs", -30], "begun with vocal_gate_dbfs -25.0, this run has -30"),
        (["--test-share", 0.2], "begun with test_share"),
        (["--min-seconds", 1.1], "begun with min_s"),
        (["--separator", "given"], "with --weights"),
        (["--part", "0/4"], "part '0/4'"),
        (["--workers", 0], "--workers is 0"),
        (["--min-seconds", 5], "min <= max"),
        (["--validation-share", 2], "shares"),
        (["--vocal-gate-dbfs", "nan"], "not a number"),
    ],
)
def test_other_arguments_are_refused(monkeypatch, music, songs, change, found):
    before = contents(songs)
    with pytest.raises(InputError, match=found) as caught:
        run(monkeypatch, *arguments(music, songs, *change))
    assert "expected" in str(caught.value) and contents(songs) == before


def test_songs_of_another_collection_are_refused(monkeypatch, music, songs, tmp_path):
    fewer = shutil.copytree(music, tmp_path / "fewer", symlinks=True)
    (fewer / "more" / "mono.wav").unlink()
    with pytest.raises(InputError, match=r"mono_\w+ and 0 more songs that are not"):
        run(monkeypatch, *arguments(fewer, songs))


def test_damaged_logs_are_named(monkeypatch, music, songs, tmp_path):
    out = shutil.copytree(songs, tmp_path / "out")
    log_file = out / "rejects.jsonl"
    whole = log_file.read_bytes()
    log_file.write_bytes(whole + b'{"id": "torn')  # as a kill leaves it
    run(monkeypatch, *arguments(music, out))
    assert log_file.read_bytes() == whole

    log_file.write_bytes(b"what?\n" + whole)
    with pytest.raises(InputError, match=r"rejects.jsonl cannot be read"):
        run(monkeypatch, *arguments(music, out))
    log_file.write_bytes(whole)
    next(out.glob("*/*/song.json")).write_text("[]")
    with pytest.raises(InputError, match=r"song.json cannot be read"):
        run(monkeypatch, *arguments(music, out))


def test_bad_input_ends_with_exit_code_two(monkeypatch, tmp_path, music, capsys):
    for out, found in [(music / "songs", "is in --music"), (music / "good.flac" / "songs", "is in")]:
        (line,) = scripts.errors(monkeypatch, capsys, "separate_stems", *arguments(music, out))
        assert found in line
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*Not a directory"):
        run(monkeypatch, *arguments(music, tmp_path / "file" / "songs"))
