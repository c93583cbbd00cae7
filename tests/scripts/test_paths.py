"""Folders and files among the options of every command: addresses, places that cannot be written, inputs as outputs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from helpers import TOKENIZE
from helpers.full_disk import files_of_at_most
from helpers.scripts import load_script

from hafm_jax import evaluate, export, listen, sample, sweep, train
from hafm_jax.common.errors import InputError
from hafm_jax.synthesis.song_set import SongTask, make_song

MODULES = {"sample": [], "export": [], "train": [], "evaluate": [], "listen": ["make", "analyse"]}
MODULES |= {"sweep": ["plan", "run", "fit", "plot"]} | {path.stem: [] for path in TOKENIZE.glob("*.py")}
PACKAGE = {module.__name__.partition(".")[2]: module for module in (evaluate, export, listen, sample, sweep, train)}
# --model, --weights and --source may be Hub ids too, and have messages of their own.
TAKES_A_PATH = re.compile(
    "--(songs|tokenizers|out|vocal|workdir|data|report|kit|answers|protocol|separated|music|metadata|centroids)"
)


def main_of(command: str):
    return (PACKAGE.get(command) or load_script(command)).main


def run(monkeypatch, command: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
    main_of(command)()


def options(command: str, monkeypatch, capsys) -> list[tuple[str, ...]]:
    """The options of a command that take a path, by its own help: (subcommand, if any, and option)."""
    found = []
    for sub in MODULES[command] or [None]:
        prefix = [sub] if sub else []
        with pytest.raises(SystemExit):
            run(monkeypatch, command, *prefix, "--help")
        names = dict.fromkeys(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.M))
        found += [(*prefix, name) for name in names if TAKES_A_PATH.fullmatch(name)]
    return found


@pytest.mark.parametrize("command", MODULES)
def test_no_option_takes_an_address_for_a_path(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = options(command, monkeypatch, capsys)
    assert found
    for arguments in found:
        for address in ("gs://bucket/folder", "s3://b/f", "hdfs://host:1/f", "https://example.org/f.wav"):
            with pytest.raises(InputError, match=f"{address} is an address; expected a file or folder of this machine"):
                run(monkeypatch, command, *arguments, address)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["start_from", "tokenizers"])
def test_no_field_of_a_training_takes_an_address(field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = f"--config={TOKENIZE.parent / 'configs' / 'base.py'}"
    with pytest.raises(InputError, match="gs://b/m is an address"):
        run(monkeypatch, "train", config, "--data=d", "--workdir=w", f"--config.{field}=gs://b/m")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("songs") / "songs"
    for split in ("train", "validation"):
        make_song(SongTask(out, split, 0, 0, 1.0))
    return out


def requests(songs: Path, tokenizers: Path, out: Path) -> dict[str, list]:
    """A command and its arguments, to write to `out`."""
    base = TOKENIZE.parent / "configs" / "base.py"
    return {
        "synthesize_songs": ["--out", out, "--num-songs", 1, "--seconds", 1, "--workers", 1],
        "separate_stems": [
            "--music",
            songs,
            "--layout",
            "folder",
            "--separator",
            "mdx",
            "--weights",
            "w",
            "--out",
            out,
        ],
        "fit_kmeans": ["--songs", songs, "--features", "chroma", "--clusters", 5, "--out", out],
        "train_codec": ["--songs", songs, "--steps", 1, "--out", out],
        "extract_tokens": ["--songs", songs, "--tokenizers", tokenizers, "--workers", 1, "--out", out],
        "evaluate": ["--songs", songs, "--split", "train", "--out", out],
        "export": ["--workdir", songs / "a", songs / "b", songs / "c", "--tokenizers", tokenizers, "--out", out],
        "train": [f"--config={base}", "--data", songs, "--workdir", out],
        "listen": ["make", "--report", songs, "--systems", "a", "b", "--out", out],
    }


@pytest.mark.parametrize("command", requests(*[Path("x")] * 3))
def test_a_place_that_cannot_be_written_is_told_before_the_work(command, songs, tokenizers, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "below", tmp_path / ("x" * 300), tmp_path / "full"):
        with files_of_at_most(0 if out.name == "full" else 10**9), pytest.raises(InputError) as refused:
            run(monkeypatch, command, *requests(songs, tokenizers, out)[command])
        assert re.search(r"^cannot .*(Not a directory|File name too long|File too large)", str(refused.value))
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "file"]


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("fit_kmeans", "train"),
        ("train_codec", "train/here"),
        ("extract_tokens", "train/song_000000/tokens"),
        ("evaluate", "train"),
        ("separate_stems", "."),
        ("separate_stems", "new"),
        ("synthesize_songs", "."),  # songs of someone else
    ],
)
def test_songs_are_not_written_among(command, out, songs, tokenizers, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(songs)
    before = sorted(songs.rglob("*"))
    monkeypatch.chdir(songs)
    for place in (songs / out, tmp_path / "link" / out, Path(out)):
        with pytest.raises(InputError, match=r"which is read; expected another place|not of an earlier run"):
            run(monkeypatch, command, *requests(songs, tokenizers, place)[command])
    assert sorted(songs.rglob("*")) == before


@pytest.mark.parametrize("command", ["fit_kmeans", "train_codec"])
def test_the_tokenizers_of_a_model_are_not_replaced(command, songs, tokenizers, tiny_model, monkeypatch):
    before = {path: path.read_bytes() for path in tiny_model.rglob("*") if path.is_file()}
    for out in (tiny_model, tiny_model / "codec"):
        with pytest.raises(InputError, match=r"has a config\.json, so it is a model or a tokenizer itself"):
            run(monkeypatch, command, *requests(songs, tokenizers, out)[command])
    assert {path: path.read_bytes() for path in tiny_model.rglob("*") if path.is_file()} == before


def test_a_folder_that_would_be_removed_is_the_codecs_own(songs, tokenizers, tmp_path, monkeypatch):
    (tmp_path / "codec_training").mkdir()
    (tmp_path / "codec_training" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"has thesis\.tex, but no run\.json"):
        run(monkeypatch, "train_codec", *requests(songs, tokenizers, tmp_path)["train_codec"])


def test_a_report_replaces_neither_its_protocol_nor_pages_of_others(songs, tmp_path, monkeypatch):
    (tmp_path / "protocol.json").write_text("{}")
    arguments = ["--songs", songs, "--split", "train", "--out", tmp_path]
    with pytest.raises(InputError, match=r"protocol\.json is --protocol"):
        run(monkeypatch, "evaluate", *arguments, "--protocol", tmp_path / "protocol.json")
    (tmp_path / "index.html").touch()
    with pytest.raises(InputError, match=r"has index\.html, but no run\.json"):
        run(monkeypatch, "evaluate", *arguments)
    assert sorted(os.listdir(tmp_path)) == ["index.html", "protocol.json"]


def test_results_replace_neither_answers_nor_the_page_for_listeners(tmp_path, monkeypatch):
    kit = tmp_path / "kit"
    (kit / "page").mkdir(parents=True)
    (kit / "results.json").touch()
    for more in (["--out", kit / "page"], ["--out", kit]):
        with pytest.raises(InputError, match=r"(is|is in) --(kit|answers) .*, which is read"):
            run(monkeypatch, "listen", "analyse", "--kit", kit, "--answers", kit / "results.json", *more)


def test_a_workdir_is_not_what_it_starts_from(tmp_path, tiny_model, monkeypatch):
    config = f"--config={TOKENIZE.parent / 'configs' / 'base.py'}"
    (tmp_path / "link").symlink_to(tiny_model)
    before = sorted(tiny_model.rglob("*"))
    for workdir, field in (
        (tiny_model, "start_from"),
        (tmp_path / "link", "start_from"),
        (tiny_model / "codec", "tokenizers"),
    ):
        with pytest.raises(InputError, match=rf"--config\.{field} .*, which is read; .* another --workdir"):
            run(monkeypatch, "train", config, "--data=d", "--workdir", workdir, f"--config.{field}={tiny_model}")
    assert sorted(tiny_model.rglob("*")) == before


@pytest.mark.parametrize("bad", ["inf", "nan", "-inf"])
@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("synthesize_songs", ["seconds"]),
        ("separate_stems", ["min-seconds", "max-seconds", "ray-gpus", "validation-share", "test-share"]),
        ("fit_kmeans", ["hours", "vocal-noise"]),
        ("train_codec", ["seconds", "learning-rate"]),
        ("extract_tokens", ["vocal-noise", "max-seconds", "ray-gpus"]),
        ("evaluate", ["guidance-scales"]),
    ],
)
def test_infinities_and_nan_are_refused(command, names, bad, songs, tokenizers, tmp_path, monkeypatch):
    for name in names:
        arguments = requests(songs, tokenizers, tmp_path / "out")[command]
        with pytest.raises(InputError, match=rf"--{name}.* expected (a )?number|expected 0 <|not a number|above 0|expected a frame"):
            run(monkeypatch, command, *arguments, f"--{name}={bad}")
    assert not list(tmp_path.iterdir())


def test_a_configuration_for_something_else_is_named(tmp_path, monkeypatch):
    configs = TOKENIZE.parent / "configs"
    (tmp_path / "text.py").write_text("la la la")
    (tmp_path / "name.py").write_text("x = null")
    (tmp_path / "empty.py").touch()
    for config, message in (
        (configs / "scaling.py", "scaling.py has no .*, so it is not a training configuration"),
        (tmp_path / "empty.py", "empty.py has no get_config, so it is not a training configuration"),
        (tmp_path / "text.py", "text.py is not a file of Python that runs here"),
        (tmp_path / "name.py", "name.py is not a file of Python that runs here"),
    ):
        sys.modules.pop("config_config", None)  # the last one, which loading begins with
        with pytest.raises(InputError, match=message):
            run(monkeypatch, "train", "--config", config, "--data=d", "--workdir", tmp_path / "w")
    with pytest.raises(InputError, match="nothing is named 'ema'; expected a field"):
        run(monkeypatch, "train", "--config", configs / "base.py", "--config.ema=1", "--data=d", "--workdir=w")
