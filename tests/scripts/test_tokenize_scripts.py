"""The offline scripts on three tiny songs of plain sines, with a small codec of random weights."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import TOKENIZE, contents, edit_json
from helpers.scripts import load_script, run
from helpers.tunes import RATE_HZ, read_stems, songs, tune, write_stems  # noqa: F401 (a fixture)

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import codec_training, codecs, semantic
from hafm_jax.training import checkpoint


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


def test_a_tokenizer_that_is_there_is_not_replaced(monkeypatch, tokenizers, songs, tmp_path, capsys):
    folder = shutil.copytree(tokenizers, tmp_path / "tokenizers")
    before = contents(folder / "semantic"), contents(folder / "codec")
    arguments = ["--songs", songs, "--features", "chroma", "--out", folder, "--clusters"]
    run(monkeypatch, "fit_kmeans", *arguments, 30)
    assert "is there, made by the same arguments" in capsys.readouterr().out
    with pytest.raises(
        InputError, match=r"made with clusters 30, this run has 20; expected .* another --out, or delete"
    ):
        run(monkeypatch, "fit_kmeans", *arguments, 20)
    fewer = shutil.copytree(songs, tmp_path / "fewer")
    shutil.rmtree(fewer / "train" / "a")
    with pytest.raises(InputError, match="made with songs_sha256"):
        run(monkeypatch, "fit_kmeans", *arguments, 30, "--songs", fewer)
    with pytest.raises(InputError, match="codec holds a tokenizer, and no word of the arguments that made it"):
        run(monkeypatch, "train_codec", "--songs", songs, "--out", folder)
    assert (contents(folder / "semantic"), contents(folder / "codec")) == before
    edit_json(folder / "semantic" / "config.json", made_with=None)  # as of an earlier version
    with pytest.raises(InputError, match="semantic holds a tokenizer, and no word"):
        run(monkeypatch, "fit_kmeans", *arguments, 30)


def test_a_codec_that_is_there_is_not_trained_again(monkeypatch, songs, tmp_path, capsys):
    """The rest of the script, training itself aside."""
    script = load_script("train_codec")

    def train(clips, config, recipe, workdir, checkpoints):
        (workdir / "metrics.jsonl").write_text("{}\n")
        return None, {}

    monkeypatch.setattr(codec_training, "train", train)
    monkeypatch.setattr(checkpoint, "Checkpoints", lambda *_, **__: io.BytesIO())  # which can be closed
    monkeypatch.setattr(codec_training, "evaluate", lambda codec, clips: {})
    monkeypatch.setattr(codecs, "load_codec", lambda directory: None)
    saved = []

    def save(directory, config, params, **facts):
        saved.append(facts)
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(json.dumps(facts))

    monkeypatch.setattr(codecs, "save_spectral", save)
    arguments = ["train_codec.py", "--songs", str(songs), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--steps", "20"])
    script.main()
    assert len(saved) == 2 and saved[1]["made_with"]["steps"] == 20
    script.main()
    assert len(saved) == 2 and "is there, made by the same arguments" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments, "--steps", "21"])
    with pytest.raises(InputError, match="made with steps 20, this run has 21"):
        script.main()
    (tmp_path / "codec_training").mkdir()  # of a run that was stopped: it resumes, and its own check is of its folder
    script.main()
    assert len(saved) == 4


def test_layer_nine_is_the_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", "x --features hubert --source a/b --songs c --out d".split())
    assert load_script("fit_kmeans").parse_arguments(None).layer == 9


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
    arguments[3], arguments[5] = tmp_path / "other.npy", tmp_path / "other"
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


# -------------------------------------------------------------------------------------------- centroids, codec, --help


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
    assert all(
        word in out for word in ("reads", "writes", "default", option, f"hafm tokenize {name.replace('_', '-')}")
    )
