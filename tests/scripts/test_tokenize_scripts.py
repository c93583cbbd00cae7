"""The offline scripts on three tiny songs of plain sines, with a small codec of random weights."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import TOKENIZE, contents
from helpers.scripts import errors, load_script, run
from helpers.tunes import RATE_HZ, read_stems, songs, tune, write_stems  # noqa: F401 (a fixture)

from hafm_jax.audio import files
from hafm_jax.common.errors import InputError
from hafm_jax.corpus import shard
from hafm_jax.dataset import layout, records
from hafm_jax.tokenizers import codecs, semantic


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, songs, tokenizers):
    """Centroids of these songs; the codec that all tests share."""
    folder = tmp_path_factory.mktemp("tokenizers")
    shutil.copytree(tokenizers / "codec", folder / "codec")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, "fit_kmeans", "--songs", songs, "--features", "chroma", "--clusters", 30, "--out", folder)
    return folder


def test_tokenize_is_not_a_package():
    """With an __init__.py it would shadow the standard library's tokenize; so would a script with such a name."""
    assert not (TOKENIZE / "__init__.py").exists()
    assert not {path.stem for path in TOKENIZE.glob("*.py")} & set(sys.stdlib_module_names)


# --------------------------------------------------------------------------------------------------------- fit_kmeans


def test_fit_writes_a_tokenizer_with_the_facts_of_the_fit(tokenizers, songs):
    tokenizer = semantic.load_semantic(tokenizers / "semantic")
    assert tokenizer.vocabulary == 30 and tokenizer.features_name == "chroma"
    fit = tokenizer.config["fit"]
    # 2.0 s and 1.51 s are 50 and 38 cells; a cell has two frames, a song two stems
    assert fit["songs"] == 2 and fit["frames"] == (50 + 38) * 2 * 2 and fit["seed"] == 0
    assert set(fit["versions"]) >= {"hafm_jax", "numpy", "scikit-learn"}
    for split, frames in {"train": 352, "validation": 25 * 2 * 2}.items():
        report = fit[split]
        assert report["both"]["frames"] == frames == report["vocals"]["frames"] + report["instrumental"]["frames"]
        for row in report.values():
            assert 2 <= row["perplexity"] <= row["clusters_in_use"] <= 30
    features = tokenizer.extractor(semantic.vocal_audio(tune(2.0, 1), RATE_HZ, 0.0, 0))
    distance = np.square(features - tokenizer.centroids[semantic.nearest_centroids(features, tokenizer.centroids)])
    assert distance.sum(1).mean() < 0.6 * np.square(features - features.mean(0)).sum(1).mean()


def test_fit_follows_its_seed(monkeypatch, tokenizers, songs, tmp_path):
    arguments = ["--songs", songs, "--features", "chroma", "--clusters", 30]
    run(monkeypatch, "fit_kmeans", *arguments, "--out", tmp_path / "same")
    assert contents(tmp_path / "same" / "semantic") == contents(tokenizers / "semantic")
    hours = 100 / (3600 * 50)
    run(monkeypatch, "fit_kmeans", *arguments, "--out", tmp_path / "other", "--seed", 1, "--hours", hours)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["semantic"]  # the frames are gone
    other = semantic.load_semantic(tmp_path / "other" / "semantic")
    assert other.config["fit"]["frames"] == 100
    assert other.centroids_sha256 != semantic.load_semantic(tokenizers / "semantic").centroids_sha256


def test_layer_nine_is_the_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", "x --features hubert --source a/b --songs c --out d".split())
    assert load_script("fit_kmeans").parse_arguments().layer == 9


@pytest.mark.parametrize("with_songs", [True, False])
def test_existing_centroids_are_taken_as_they_are(monkeypatch, songs, tmp_path, capsys, with_songs):
    centroids = np.random.default_rng(0).random((12, 20), np.float32)
    np.save(tmp_path / "km.npy", centroids)
    arguments = ["--features", "chroma", "--centroids", tmp_path / "km.npy", "--out", tmp_path / "out"]
    run(monkeypatch, "fit_kmeans", *arguments, *(["--songs", songs] if with_songs else []))
    tokenizer = semantic.load_semantic(tmp_path / "out" / "semantic")
    np.testing.assert_array_equal(tokenizer.centroids, centroids)
    fit = tokenizer.config["fit"]
    assert fit["file"] == "km.npy" and len(fit["file_sha256"]) == 64
    assert ("validation" in fit) == ("validation vocals" in capsys.readouterr().out) == with_songs

    np.save(tmp_path / "other.npy", np.zeros((12, 7), np.float32))
    arguments[3] = tmp_path / "other.npy"
    with pytest.raises(InputError, match="chroma gives 20 features a frame, the centroids have 7"):
        run(monkeypatch, "fit_kmeans", *arguments)


def test_fit_needs_songs_or_centroids(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="neither --songs nor --centroids"):
        run(monkeypatch, "fit_kmeans", "--features", "chroma", "--out", tmp_path)


@pytest.mark.parametrize(
    "change, found",
    [
        (["--clusters", 501], "--clusters is 501"),
        (["--hours", 0], "--hours is 0"),
        (["--centroids", "absent.bin"], "absent.bin cannot be read"),
        (["--centroids", Path(semantic.__file__).parent.parent / "demo/codec/config.json"], "cannot be read"),
        (["--clusters", 400], "352 frames for 400 clusters"),
        (["--features", "hubert"], "--source"),
        (["--songs", "absent"], "make one with"),
        (["--vocal-noise", -1], "--vocal-noise"),
        (["--dtype", "float16"], "chroma features in float16"),
    ],
)
def test_fit_refuses_bad_arguments(monkeypatch, songs, tmp_path, change, found):
    with pytest.raises(InputError, match=found):
        run(monkeypatch, "fit_kmeans", "--songs", songs, "--features", "chroma", "--out", tmp_path, *change)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------- extract_tokens


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
    for name, (vocal_s, instrumental_s) in seconds.items():
        write_stems(mixed / "test" / name, tune(vocal_s, 1), tune(instrumental_s, 2))
    (mixed / "test" / "broken" / "instrumental.wav").write_text("no audio")
    write_stems(mixed / "test" / "short", np.full(1, 0.5), np.full(1, 0.5), 44_100)  # a third of a sample at 16 kHz
    (mixed / "validation" / "only").mkdir(parents=True)
    (mixed / "validation" / "only" / "vocals.wav").write_text("no audio")
    (mixed / "report.json").write_text(json.dumps({"rejected_by_reason": {"damaged": 3, "silent": 1, "duplicate": 0}}))
    out = tmp_path / "tokens"
    arguments = ["--songs", mixed, "--tokenizers", tokenizers, "--max-seconds", 0.58, "--num-shards", 1]
    run(monkeypatch, "extract_tokens", *arguments, "--out", out)
    source = records.TokenRecords(out, "test")
    assert [source[k]["id"] for k in range(len(source))] == ["good", "long"]  # what is less than a cell is forgiven
    assert source[0]["acoustic"].shape == (30, 8)  # 0.4 s and 0.41 s: the 10 cells that both have
    document = layout.read_tokens_json(out)
    made_by = document["made_by"]
    assert set(document["splits"]) == {"test"}  # the other one has no song
    reasons = {"uneven": "stems of two lengths", "broken": "damaged", "longer": "too long", "short": "too short"}
    assert {name: detail.split(",")[0] for name, detail in made_by["skipped"].items()} == {
        **{f"test/{name}": reason for name, reason in reasons.items()},
        "validation/only": "damaged",
    }
    assert "0.400 s" in made_by["skipped"]["test/uneven"] and "cannot be read" in made_by["skipped"]["test/broken"]
    counts = dict.fromkeys(reasons.values(), 1)
    assert made_by["statistics"]["test"]["rejected_by_reason"] == counts and made_by["max_s"] == 0.58
    assert made_by["rejected_by_reason"] == {**counts, "damaged": 1 + 1 + 3, "silent": 1}
    printed = capsys.readouterr().out
    assert "4 left out" in printed and "validation: no song" in printed
    with pytest.raises(InputError, match=r"no song that can be used, only because: .* cannot be read"):
        run(monkeypatch, "extract_tokens", *arguments, "--splits", "validation", "--out", tmp_path / "none")

    with pytest.raises(InputError, match="already holds test"):
        run(monkeypatch, "extract_tokens", "--songs", songs, "--tokenizers", tokenizers, "--out", out)


def test_bad_input_ends_with_exit_code_two(monkeypatch, songs, tmp_path, capsys):
    arguments = ["--songs", songs, "--tokenizers", tmp_path, "--out", tmp_path / "tokens"]
    assert len(errors(monkeypatch, capsys, "extract_tokens", *arguments)) == 1
    assert not (tmp_path / "tokens").exists()


def test_the_line_for_pickles_makes_npy(monkeypatch, tmp_path, capsys):
    """The line of --help, run by this Python on a file of joblib's."""
    import joblib
    from sklearn.cluster import MiniBatchKMeans

    with pytest.raises(SystemExit):
        run(monkeypatch, "fit_kmeans", "--help")
    (command,) = re.findall(r'python -c "(.*)"', capsys.readouterr().out)
    kmeans = MiniBatchKMeans(12, n_init=1, random_state=0).fit(np.random.default_rng(0).random((60, 20), np.float32))
    joblib.dump(kmeans, tmp_path / "km_500.bin")
    monkeypatch.chdir(tmp_path)
    exec(command)
    np.testing.assert_array_equal(semantic.read_centroids("km_500.npy"), kmeans.cluster_centers_)


def test_codec_training_refuses_bad_arguments(monkeypatch, songs, tmp_path):
    for option, value in (("--steps", 0), ("--batch-size", -1), ("--seconds", "nan"), ("--learning-rate", 0)):
        with pytest.raises(InputError, match=f"{option} is .*; expected a number above 0"):
            run(monkeypatch, "train_codec", "--songs", songs, "--out", tmp_path / "out", option, value)
    with pytest.raises(InputError, match="make one with"):
        run(monkeypatch, "train_codec", "--songs", tmp_path, "--out", tmp_path / "out")
    assert not list(tmp_path.iterdir())


SCRIPTS = {"fit_kmeans": "--songs", "train_codec": "--songs", "extract_tokens": "--songs", "separate_stems": "--music"}


@pytest.mark.parametrize(("name", "option"), SCRIPTS.items())
def test_help_is_complete(monkeypatch, capsys, name, option):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, name, "--help")
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(word in out for word in ("reads", "writes", "default", option, f"python tokenize/{name}.py"))
