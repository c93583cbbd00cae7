"""Shards of songs: killed, in parts, shared by processes, they are the same bytes; songs left out are reported."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import CACHE, ROOT, contents, random_record
from helpers.scripts import run
from helpers.tunes import write_stems

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import extraction, shard
from hafm_jax.dataset import layout, records
from hafm_jax.tokenizers.folder import load_tokenizers
from hafm_jax.tokenizers.semantic import load_semantic

SCRIPT = ROOT / "tokenize" / "extract_tokens.py"
RATE_HZ = 16_000
NUM_SONGS = 9
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax")}


def sound(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return 0.2 * np.sin(2 * np.pi * rng.uniform(100, 900) * time_s) + rng.normal(0, 0.01, time_s.size)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for i in range(NUM_SONGS):
        song = folder / ("train" if i < NUM_SONGS - 1 else "validation") / f"song {i}"
        write_stems(song, *(sound(0.5 + 0.3 * (i % 3), 10 * i + k) for k in (6, 12)), RATE_HZ)
        (song / "song.json").write_text(json.dumps({"licence": "CC BY 4.0" if i % 2 else None}))
    (folder / "train" / "song 4" / "vocals.wav").write_text("no audio")
    return folder


def arguments(songs, tokenizers, out) -> list:
    return ["--songs", songs, "--tokenizers", tokenizers, "--out", out, "--num-shards", 4, "--seed", 3]


def extract(songs, tokenizers, out, *more, wait=True, **environment):
    command = list(map(str, [sys.executable, SCRIPT, *arguments(songs, tokenizers, out), *more]))
    pipe, errors = subprocess.PIPE, subprocess.STDOUT
    process = subprocess.Popen(command, env=ENVIRONMENT | environment, stdout=pipe, stderr=errors, text=True)
    if not wait:
        return process
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    return output


def extract_here(songs, tokenizers, out, *more) -> str:
    """In this process; returns what is printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(printed):
        run(monkeypatch, "extract_tokens", *arguments(songs, tokenizers, out), "--workers", 1, *more)
    return printed.getvalue()


@pytest.fixture(scope="module")
def whole(songs, tokenizers, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "tokens"
    output = extract_here(songs, tokenizers, out)
    assert "left out train/song 4" in output and "train: 7 songs" in output
    return out


def test_only_vocals_of_the_training_split_are_augmented(whole, songs, tokenizers, tmp_path):
    extract_here(songs, tokenizers, tmp_path / "tokens", "--augment-vocals")
    semantic = load_semantic(tokenizers / "semantic")
    for split in ("train", "validation"):
        plain, augmented = (records.TokenRecords(out, split) for out in (whole, tmp_path / "tokens"))
        for k in range(len(plain)):
            assert plain[k]["id"] == augmented[k]["id"]
            for name in ("instrumental_semantic", "acoustic"):
                np.testing.assert_array_equal(plain[k][name], augmented[k][name])
            seed = shard.song_seed(3, split, plain[k]["id"])
            loaded = shard.load_song(songs / split / plain[k]["id"], 24_000, 0.01, seed, augmented=split == "train")
            np.testing.assert_array_equal(augmented[k]["vocal_semantic"], semantic.encode(loaded.vocal))


def test_the_contents_of_a_set_are_counted(whole):
    statistics, source = layout.read_tokens_json(whole)["made_by"]["statistics"], records.TokenRecords(whole, "train")
    assert statistics["train"]["songs"] == 7 and statistics["train"]["rejected_by_reason"] == {"damaged": 1}
    assert sorted(record["id"] for record in source) == [f"song {i}" for i in range(8) if i != 4]
    assert statistics["train"]["licences"] == {"CC BY 4.0": 4, "not stated": 3}
    for name, form in layout.FIELDS.items():
        values = np.concatenate([source[k][name].reshape(-1, form.codebooks) for k in range(len(source))])
        for row, of_codebook in zip(statistics["train"]["use"][name], values.T, strict=True):
            _, counts = np.unique(of_codebook, return_counts=True)
            share = counts / counts.sum()
            assert row["ids_in_use"] == len(counts)
            assert row["entropy_bits"] == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-4)
    page = (whole / "card.html").read_text()
    assert "CC BY 4.0" in page and page.count("<svg") == 2 and "vocal_semantic" in page


@pytest.mark.parametrize("song_s", [0.1, 1.0])
def test_songs_in_memory_are_bounded_in_seconds(monkeypatch, tmp_path, song_s):
    """Of short songs and of long ones: those read ahead, those tokenized together, and one more at each place."""
    held_s = peak_s = 0.0
    lock = threading.Lock()

    def change(seconds: float) -> None:
        nonlocal held_s, peak_s
        with lock:
            held_s += seconds
            peak_s = max(peak_s, held_s)

    def load_song(folder, *_):
        change(song_s)
        acoustic = np.zeros(round(24_000 * song_s), np.float32)
        weakref.finalize(acoustic, change, -song_s)
        return shard.LoadedSong(folder.name, np.zeros(round(16_000 * song_s)), None, acoustic, "")

    def tokenize(songs, *_):
        time.sleep(0.002)  # the readers are ahead of it
        return [random_record(1)] * len(songs)

    for name, value in {"load_song": load_song, "tokenize": tokenize, "AHEAD_S": 2.0, "AT_ONCE_S": 1.0}.items():
        monkeypatch.setattr(shard, name, value)
    monkeypatch.setattr(shard, "song_s", lambda folder, max_s: song_s)
    task = shard.ShardTask(tmp_path, tmp_path, tmp_path, "train", 0, 1, tuple(map(str, range(200))), 0, 0, 9, None, {})
    left_out = []
    codec = SimpleNamespace(sample_rate_hz=24_000)
    assert len(list(shard.make_records(task, None, codec, left_out))) == 200 and not left_out
    assert 2.0 <= peak_s <= 2.0 + 1.0 + 3 * song_s + 1e-6


@pytest.mark.slow
def test_a_killed_extraction_resumes_to_the_same_bytes(whole, songs, tokenizers, tmp_path):
    out = tmp_path / "tokens"
    process = extract(songs, tokenizers, out, "--workers", 1, wait=False)
    while not (done := list(out.glob(".shards/*-of-*.json"))):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "tokens.json").exists()
    before = {path: path.stat().st_mtime_ns for path in done}
    extract(songs, tokenizers, out, "--part", "2/4")  # what another machine might do meanwhile
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # not done twice
    extract(songs, tokenizers, out)
    assert contents(out) == contents(whole) and not (out / ".shards").exists()


@pytest.mark.slow
def test_processes_and_parts_make_the_same_bytes_as_one(whole, songs, tokenizers, tmp_path):
    out = tmp_path / "tokens"
    output = extract(songs, tokenizers, out, "--part", "1/2", "--workers", 2)
    assert "shards are not" in output and not (out / "tokens.json").exists()
    extract(songs, tokenizers, out, "--part", "2/2", "--workers", 2)
    assert contents(out) == contents(whole)
    assert "is complete" in extract(songs, tokenizers, out)


def test_a_shard_is_done_when_its_file_is_there_too(tmp_path, songs, tokenizers):
    facts = load_tokenizers(tokenizers, None).facts
    where = (songs, tokenizers, tmp_path / "tokens", "train", 0, 1, ("song 1",))
    task = shard.ShardTask(*where, noise_sigma=0, seed=0, max_s=9, dtype=None, facts=facts)
    extraction.start(task.out, {})
    done, data = extraction.extract_shard(task), task.shard.read_bytes()
    assert extraction.read_done(task) == done
    for damage in (lambda: task.shard.unlink(), lambda: task.shard.write_bytes(data[:-1])):
        damage()
        assert extraction.read_done(task) is None
        assert extraction.extract_shard(task) == done and task.shard.read_bytes() == data
    # Once all are done the shards move away, and a run that is killed there resumes with publishing.
    extraction.publish([task])
    assert not task.shard.exists() and extraction.read_done(task) == done
    assert len(extraction.publish([task])) == 1
    assert extraction.complete(songs, [task]).summaries[0].num_examples == 1
    assert extraction.complete(songs, [task]) is None  # as for the second of two that were last


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_bytes(whole, songs, tokenizers, tmp_path, ray_cluster):
    extract(songs, tokenizers, tmp_path / "tokens", "--ray", RAY_ADDRESS=ray_cluster)
    assert contents(tmp_path / "tokens") == contents(whole)


def test_an_unfinished_extraction_with_other_arguments_is_refused(songs, tokenizers, tmp_path):
    out = tmp_path / "tokens"
    extract_here(songs, tokenizers, out, "--part", "1/4")
    with pytest.raises(InputError, match=r"begun with vocal_noise_sigma 0\.01, this run has 0"):
        extract_here(songs, tokenizers, out, "--vocal-noise", 0)
