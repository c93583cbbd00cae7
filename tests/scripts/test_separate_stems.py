"""Songs from music, with a separator that needs no weights (separator_stand_in.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT, scripts, separator_stand_in
from helpers.corpora import fma_row, write_fma, write_musdb
from helpers.media import write_media
from helpers.separators import BINS, N_FFT, write_onnx
from helpers.tunes import read_stems

from hafm_jax.audio import files
from hafm_jax.audio.files import read_audio, resample, song_folders, song_splits, stem_file
from hafm_jax.common.errors import InputError
from hafm_jax.corpus import stems

SCRIPT = ROOT / "tokenize" / "separate_stems.py"
STEP = 2**-15  # of 16 bits

MODEL = ("--separator", "mdx", "--weights", "stand-in")


def run(monkeypatch, *arguments) -> None:
    scripts.run(monkeypatch, "separate_stems", *arguments)


def noise(seconds: float, rate_hz: int, level: float, seed: int, channels: int = 2) -> np.ndarray:
    """[S, C], with an RMS of `level`."""
    return np.random.default_rng(seed).normal(0, level, (round(seconds * rate_hz), channels))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "hafm_jax.corpus.separators", separator_stand_in)
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "separator.log"))


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Three good files of several kinds and one file for every reason to leave it out, but the metadata's."""
    root = tmp_path_factory.mktemp("music")
    (root / "more").mkdir()
    soundfile.write(root / "good.flac", noise(1.5, 44_100, 0.25, 1), 44_100)
    soundfile.write(root / "more" / "mono.wav", noise(1.2, 22_050, 0.3, 2, channels=1), 22_050)
    soundfile.write(root / "more" / "loud.wav", noise(1.0, 48_000, 3.0, 3, channels=4), 48_000, subtype="FLOAT")
    soundfile.write(root / "good.mp3", noise(1.4, 44_100, 0.25, 4), 44_100, format="MP3")
    shutil.copy(root / "good.flac", root / "more" / "copy.flac")
    soundfile.write(root / "silent.wav", noise(1.5, 24_000, 1e-4, 5), 24_000)
    soundfile.write(root / "short.wav", noise(0.5, 24_000, 0.2, 6), 24_000)
    soundfile.write(root / "long.wav", noise(3.5, 24_000, 0.2, 7), 24_000)
    soundfile.write(root / "faint.wav", noise(1.5, 24_000, 0.02, 8), 24_000)
    (root / "damaged.mp3").write_bytes(b"no audio" * 100)
    (root / "empty.ogg").write_bytes(b"")
    return root


def arguments(music: Path, out: Path, *more) -> list:
    limits = ("--min-seconds", 1, "--max-seconds", 3)
    return ["--music", music, "--layout", "folder", "--out", out, *MODEL, *limits, *more]


@pytest.fixture(scope="module")
def songs(tmp_path_factory, music) -> Path:
    """The songs; beside them a file of what was printed."""
    out = tmp_path_factory.mktemp("songs") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch, (out.parent / "printed").open("w") as file, redirect_stdout(file):
        monkeypatch.setitem(sys.modules, "hafm_jax.corpus.separators", separator_stand_in)
        run(monkeypatch, *arguments(music, out))
    return out


def num_songs(out: Path) -> int:
    return len(list(out.glob("[!.]*/[!.]*/song.json")))


def logged(tmp_path: Path, word: str) -> list[str]:
    """The second word of each line of the stand-in's log that begins with `word`."""
    log = tmp_path / "separator.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith(word)]


def contents(out: Path) -> dict[str, bytes]:
    """All files but the logs of rejects, whose order and number follow the parts."""
    paths = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(("rejects", "report-"))]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def label(name: str) -> str:
    return name.rsplit("_", 1)[0]  # without the hash


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


def test_each_reject_has_its_reason(songs):
    report = report_of(songs)
    rejects = {label(reject["id"]): reject for reject in report["rejects"]}
    assert {name: reject["reason"] for name, reject in rejects.items()} == {
        "good": "duplicate",
        "silent": "silent",
        "short": "too short",
        "long": "too long",
        "faint": "no singing",
        "damaged": "damaged",
        "empty": "damaged",
    }
    assert all(reject["split"] in ("train", "validation", "test") for reject in rejects.values())
    assert "0.50 s" in rejects["short"]["detail"] and "more than 3 s" in rejects["long"]["detail"]
    # 0.6 of the mean of two independent channels at 0.02, less what resampling takes from the top of the band
    level_dbfs = float(rejects["faint"]["detail"].split()[2])
    assert level_dbfs == pytest.approx(20 * np.log10(0.6 * 0.02 / np.sqrt(2)), abs=0.5)
    assert rejects["damaged"]["detail"].startswith("damaged.mp3 cannot be read")  # no folder of this machine
    assert (report["tracks"], report["songs"], report["rejected"], report["to_do"]) == (11, 4, 7, 0)
    assert report["rejected_by_reason"]["damaged"] == 2 and report["rejected_by_reason"]["not in the metadata"] == 0
    assert sum(split["songs"] for split in report["splits"].values()) == 4
    assert report["licences"] == {"not stated": 4}


def test_each_reject_is_printed_in_a_line(songs):
    lines = (songs.parent / "printed").read_text().splitlines()
    assert sum(line.startswith("left out ") for line in lines) == 6  # those that had to be read
    assert "1 duplicate" in lines[-1] and "2 damaged" in lines[-1]


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
    assert reject["reason"] == "damaged" and "drums.wav does not exist" in reject["detail"]


def test_media_files_become_songs(monkeypatch, tmp_path):
    (tmp_path / "music").mkdir()
    write_media(tmp_path / "music" / "a.m4a", [noise(1.5, 44_100, 0.25, 1).T], 44_100)
    run(monkeypatch, *arguments(tmp_path / "music", tmp_path / "out"))
    assert report_of(tmp_path / "out")["songs"] == 1


def test_without_pyav_no_file_is_rejected(monkeypatch, tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.m4a").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"needs PyAV .*hafm_jax\[separate\]"):
        run(monkeypatch, *arguments(tmp_path / "music", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------- kills, parts, processes


def start(tmp_path: Path, command: list, hold_after: int | None = None) -> subprocess.Popen:
    """The script in its own process, whose workers have the stand-in too. It may wait after some separations."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        f"sys.path.append({str(ROOT / 'tests')!r})\n"
        "from helpers import separator_stand_in\n"
        "sys.modules['hafm_jax.corpus.separators'] = separator_stand_in\n"
        "sys.modules['torch'] = None\n"  # seconds to import, only to count GPUs
    )
    path = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    hold = {} if hold_after is None else {"STAND_IN_HOLD": str(hold_after)}
    command, environment = [sys.executable, SCRIPT, *map(str, command)], {**os.environ, **hold, "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def many(root: Path, number: int = 12) -> Path:
    root.mkdir()
    for k in range(number):
        soundfile.write(root / f"{k}.wav", noise(1.1, 24_000, 0.01 if k % 4 == 3 else 0.3, k), 24_000)
    (root / "broken.wav").write_bytes(b"RIFF")
    return root


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 60.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_resumes_to_the_same_bytes(monkeypatch, tmp_path, workers):
    music = many(tmp_path / "music")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(tmp_path, arguments(music, killed, "--workers", workers), hold_after=7)  # at least 3 make a song
    wait_until(lambda: num_songs(killed) >= 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = num_songs(killed)
    assert 3 <= done < 9
    if Path("/proc/self/stat").exists():
        pids = logged(tmp_path, "process")
        assert len(pids) == 1 if workers == 1 else len(pids) > 1
        wait_until(lambda: not any(map(is_alive, pids)))  # workers do not outlive their parent

    (tmp_path / "separator.log").unlink()
    run(monkeypatch, *arguments(music, killed))
    assert len(logged(tmp_path, "separation")) <= 12 - done  # known rejects are not separated again
    run(monkeypatch, *arguments(music, whole))
    assert contents(killed) == contents(whole) and report_of(whole)["songs"] == 9
    assert report_of(whole)["rejected_by_reason"]["no singing"] == 3
    assert not list(killed.glob("*/.*"))


def test_parts_together_are_the_whole(monkeypatch, tmp_path, music, songs):
    together = tmp_path / "together"
    for number in (3, 1, 2):  # one machine's folder after the other's, put together
        out = tmp_path / str(number)
        run(monkeypatch, *arguments(music, out, "--part", f"{number}/3"))
        part = json.loads((out / f"report-{number}-of-3.json").read_text())
        assert part["to_do"] == 0 and 3 <= part["tracks"] <= 5  # a third of the tracks, a third of the copies
        shutil.copytree(out, together, dirs_exist_ok=True)
    before = logged(tmp_path, "separation")
    run(monkeypatch, *arguments(music, together))
    assert logged(tmp_path, "separation") == before
    assert contents(together) == contents(songs)


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_songs(monkeypatch, tmp_path, ray_cluster):
    """With a network that its workers can load, since they do not have the stand-in."""
    monkeypatch.delitem(sys.modules, "hafm_jax.corpus.separators")
    monkeypatch.setattr(stems, "RAY_BATCH", 2)
    write_onnx(tmp_path / "vocals.onnx", mask=np.full(BINS, 0.6))
    (tmp_path / "vocals.json").write_text(json.dumps({"n_fft": N_FFT}))
    monkeypatch.chdir(tmp_path)  # where they are not
    command = arguments(many(Path("music"), 4), Path("here"), "--weights", "vocals.onnx", "--vocal-gate-dbfs", -60)
    run(monkeypatch, *command)
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    run(monkeypatch, *command, "--ray", "--out", "there")
    assert contents(tmp_path / "there") == contents(tmp_path / "here") and report_of(tmp_path / "there")["songs"] == 4
    assert report_of(tmp_path / "there") == report_of(tmp_path / "here")


def test_parts_may_share_a_folder_and_change_their_number(monkeypatch, tmp_path, music, songs):
    out = tmp_path / "out"
    for part in ("1/2", "2/3"):
        run(monkeypatch, *arguments(music, out, "--part", part))
    run(monkeypatch, *arguments(music, out))
    assert contents(out) == contents(songs)
    assert len(logged(tmp_path, "separation")) == 5  # four songs and the faint one


def test_an_interrupted_run_prints_how_to_resume(tmp_path):
    music = many(tmp_path / "music")
    process = start(tmp_path, arguments(music, tmp_path / "out", "--workers", 2), hold_after=6)
    wait_until(lambda: num_songs(tmp_path / "out"))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # then the pool takes no more, and waits for what it has begun
    (tmp_path / "separator.go").touch()
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "the same command resumes" in shown and "Traceback" not in shown
    report = report_of(tmp_path / "out")
    assert 1 <= report["songs"] == num_songs(tmp_path / "out")  # also those that workers had begun
    assert report["to_do"] > 0
    assert report["songs"] + report["rejected"] + report["to_do"] == report["tracks"] == 13


def test_a_full_gpu_ends_the_run_with_advice_and_costs_no_track(monkeypatch, tmp_path, music, songs, capsys):
    def out_of_memory(*_):
        raise RuntimeError("CUDA out of memory.\nMore of it.")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(separator_stand_in.StandIn, "separate", out_of_memory)
        *_, line = scripts.errors(patch, capsys, "separate_stems", *arguments(music, out))
    assert "CUDA out of memory)" in line and "--workers" in line
    run(monkeypatch, *arguments(music, out))
    assert contents(out) == contents(songs)


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
    fewer = shutil.copytree(music, tmp_path / "fewer")
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
