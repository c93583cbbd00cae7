"""tokenize/extract_tokens.py on three tiny songs of plain sines, with tokenizers of random weights."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from helpers import contents
from helpers.scripts import errors, run
from helpers.tunes import read_stems, songs, tune, write_stems  # noqa: F401 (a fixture)

from hafm_jax.audio import files
from hafm_jax.common.errors import InputError
from hafm_jax.corpus import shard
from hafm_jax.dataset import layout, records
from hafm_jax.tokenizers import chroma, codecs, semantic


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, songs, tokenizers):
    folder = tmp_path_factory.mktemp("tokens") / "set"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, "extract_tokens", "--songs", songs, "--tokenizers", tokenizers, "--out", folder, "--seed", 5)
    return folder


def test_extracted_tokens_are_those_of_the_parts(tokens, songs, tokenizers):
    train = records.TokenRecords(tokens, "train")
    assert [train[k]["id"] for k in range(len(train))] == ["a", "b"]
    tokenizer, codec = semantic.load_semantic(tokenizers / "semantic"), codecs.load_codec(tokenizers / "codec")
    for record in (train[0], train[1]):
        folder, seed = songs / "train" / record["id"], shard.song_seed(5, "train", record["id"])
        (vocal, rate_hz), (instrumental, _) = read_stems(folder)
        audio = files.pad_to_cells(files.resample(instrumental.mean(axis=0), rate_hz, 24_000), 24_000)
        expected = {
            "vocal_semantic": semantic.vocal_tokens(tokenizer, vocal, rate_hz, semantic.VOCAL_NOISE_SIGMA, seed),
            "instrumental_semantic": semantic.instrumental_tokens(tokenizer, instrumental, rate_hz),
            "acoustic": codec.encode(audio[None])[0],
        }
        for name, tokens_of_stem in expected.items():
            np.testing.assert_array_equal(record[name], tokens_of_stem)
    assert train[1]["acoustic"].shape == (3 * 38, 8)


def test_tokens_json_names_what_made_them(tokens, tokenizers):
    document = layout.read_tokens_json(tokens)
    made_by = document["made_by"]
    assert made_by["semantic"]["features"] == "chroma" and made_by["codec"]["codec"] == "spectral"
    centroids_sha256 = semantic.load_semantic(tokenizers / "semantic").centroids_sha256
    assert made_by["semantic"]["centroids_sha256"] == centroids_sha256
    assert len(made_by["codec"]["weights_sha256"]) == 64
    assert (made_by["vocal_noise_sigma"], made_by["seed"], made_by["skipped"]) == (semantic.VOCAL_NOISE_SIGMA, 5, {})
    assert document["splits"]["train"]["cells"] == 50 + 38 and document["splits"]["validation"]["songs"] == 1


def test_tokens_do_not_depend_on_workers_and_follow_the_seed(monkeypatch, tokens, songs, tokenizers, tmp_path):
    arguments = ["--songs", songs, "--tokenizers", tokenizers, "--splits", "train"]
    run(monkeypatch, "extract_tokens", *arguments, "--out", tmp_path / "same", "--seed", 5, "--workers", 1)
    expected = records.TokenRecords(tokens, "train").fingerprint
    assert records.TokenRecords(tmp_path / "same", "train").fingerprint == expected
    loud = ["--vocal-noise", 0.3]  # the usual noise hardly reaches the tokens of steady tones
    for seed in (5, 6):
        run(monkeypatch, "extract_tokens", *arguments, "--out", tmp_path / str(seed), "--seed", seed, *loud)
    first, other = (records.TokenRecords(tmp_path / str(seed), "train").fingerprint for seed in (5, 6))
    assert first != other


def test_songs_that_do_not_fit_are_left_out_with_the_reason(monkeypatch, songs, tokenizers, tmp_path, capsys):
    mixed = tmp_path / "songs"
    seconds = {"good": (0.4, 0.41), "uneven": (0.4, 0.5), "broken": (0.4, 0.4), "long": (0.6, 0.6), "longer": (9, 9)}
    seconds |= dict.fromkeys(["empty", "capitals", "twice"], (0.4, 0.4))
    for name, (vocal_s, instrumental_s) in seconds.items():
        write_stems(mixed / "test" / name, tune(vocal_s, 1), tune(instrumental_s, 2))
    (mixed / "test" / "broken" / "instrumental.wav").write_text("no audio")
    write_stems(mixed / "test" / "short", np.full(1, 0.5), np.full(1, 0.5), 44_100)  # a third of a sample at 16 kHz
    (mixed / "test" / "empty" / "instrumental.wav").write_bytes(b"")
    (mixed / "test" / "capitals" / "vocals.wav").rename(mixed / "test" / "capitals" / "Vocals.wav")
    shutil.copy(mixed / "test" / "good" / "vocals.wav", mixed / "test" / "twice" / "vocals.flac")
    (mixed / "test" / "notes.txt").write_text("not a song")
    write_stems(tmp_path / "elsewhere", tune(0.4, 3), tune(0.4, 4))
    (mixed / "test" / "a link").symlink_to(tmp_path / "elsewhere")
    (mixed / "validation" / "only").mkdir(parents=True)
    (mixed / "validation" / "only" / "vocals.wav").write_text("no audio")
    (mixed / "Train" / "a").mkdir(parents=True)
    (mixed / "Train" / "a" / "Vocals.wav").touch()
    (mixed / "report.json").write_text(json.dumps({"rejected_by_reason": {"damaged": 3, "silent": 1, "duplicate": 0}}))
    out = tmp_path / "tokens"
    arguments = ["--songs", mixed, "--tokenizers", tokenizers, "--max-seconds", 0.58, "--num-shards", 1]
    run(monkeypatch, "extract_tokens", *arguments, "--out", out)
    source = records.TokenRecords(out, "test")
    assert [source[k]["id"] for k in range(len(source))] == [
        "a link",
        "good",
        "long",
    ]  # what is less than a cell is forgiven
    assert source[1]["acoustic"].shape == (30, 8)  # 0.4 s and 0.41 s: the 10 cells that both have
    document = layout.read_tokens_json(out)
    made_by = document["made_by"]
    assert set(document["splits"]) == {"test"}  # the other one has no song
    reasons = {"uneven": "stems differ", "broken": "damaged", "longer": "too long", "short": "too short"}
    reasons |= {"empty": "empty", "capitals": "not a song", "twice": "not a song", "notes.txt": "not a song"}
    assert {name: detail.split(",")[0] for name, detail in made_by["skipped"].items()} == {
        **{f"test/{name}": reason for name, reason in reasons.items()},
        "validation/only": "not a song",
    }
    assert len(made_by["skipped"]) + document["splits"]["test"]["songs"] == len(os.listdir(mixed / "test")) + 1
    assert "it holds Vocals.wav, instrumental.wav; expected" in made_by["skipped"]["test/capitals"]
    assert "0.400 s" in made_by["skipped"]["test/uneven"] and "cannot be read" in made_by["skipped"]["test/broken"]
    counts = Counter(reasons.values())
    assert made_by["statistics"]["test"]["rejected_by_reason"] == counts and made_by["max_s"] == 0.58
    assert made_by["rejected_by_reason"] == {**counts, "damaged": 1 + 3, "not a song": 3 + 1, "silent": 1}
    printed = capsys.readouterr().out
    assert "Train holds no ID/vocals.wav or .flac, so it is not a split" in printed
    assert "8 left out" in printed and "validation: no song" in printed
    with pytest.raises(InputError, match=r"no song that can be used, only because: it holds vocals.wav; expected"):
        run(monkeypatch, "extract_tokens", *arguments, "--splits", "validation", "--out", tmp_path / "none")

    capsys.readouterr()
    run(monkeypatch, "extract_tokens", *arguments, "--out", out)
    assert "is complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, found",
    [
        (["--vocal-noise", 0], r"vocal_noise_sigma 0\.01, this run has 0"),
        (["--augment-vocals"], "vocals_augmented False, this run has True"),
        (["--seed", 6], "seed 5, this run has 6"),
        (["--max-seconds", 9], "max_s 1200.0, this run has 9"),
        (["--num-shards", 1], "songs, splits or shards with the sha256"),
        (["--splits", "validation"], "songs, splits or shards with the sha256"),
        (["--tokenizers", "OTHER"], "semantic.clusters 500, this run has 25 .and 1 more"),
    ],
)
def test_a_finished_token_set_is_not_replaced(monkeypatch, tokens, songs, tokenizers, tmp_path, change, found):
    if "OTHER" in change:
        change = ["--tokenizers", tmp_path]
        shutil.copytree(tokenizers / "codec", tmp_path / "codec")
        centroids = np.random.default_rng(1).random((25, chroma.DIMENSIONS), np.float32)
        semantic.save_semantic(tmp_path / "semantic", {"features": "chroma"}, centroids)
    before = contents(tokens)
    arguments = ["--songs", songs, "--tokenizers", tokenizers, "--out", tokens, "--seed", 5]
    with pytest.raises(InputError, match=rf"holds a finished token set of {found}.* another --out, or delete"):
        run(monkeypatch, "extract_tokens", *arguments, *change)
    assert contents(tokens) == before and not (tokens / ".shards").exists()


def test_shards_of_which_nothing_says_what_made_them_are_not_replaced(monkeypatch, tokens, songs, tokenizers, tmp_path):
    folder = shutil.copytree(tokens, tmp_path / "tokens")
    (folder / layout.TOKENS_FILE).unlink()
    before = contents(folder)
    with pytest.raises(InputError, match=r"holds shards of train, validation without tokens\.json; expected"):
        run(monkeypatch, "extract_tokens", "--songs", songs, "--tokenizers", tokenizers, "--out", folder)
    assert contents(folder) == before


def test_bad_input_ends_with_exit_code_two(monkeypatch, songs, tmp_path, capsys):
    arguments = ["--songs", songs, "--tokenizers", tmp_path, "--out", tmp_path / "tokens"]
    assert len(errors(monkeypatch, capsys, "extract_tokens", *arguments)) == 1
    assert not (tmp_path / "tokens").exists()
