"""Separation that is killed, cut into parts, shared by processes or interrupted makes the same songs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT, scripts, separator_stand_in
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
from helpers.separators import BINS, N_FFT, write_onnx

from hafm_jax.corpus import stems

SCRIPT = ROOT / "tokenize" / "separate_stems.py"


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
