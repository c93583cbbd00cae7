"""The command `hafm`: one name for all commands, quick to help, and plain about what is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers import ROOT

import hafm_jax
from hafm_jax import cli, doctor
from hafm_jax.common import shipped
from hafm_jax.common.errors import InputError, needs_extra

PARTS = {"listen": ["make", "analyse"], "sweep": ["plan", "run", "fit", "plot"]}
CALLS = [[name] for name in cli.COMMANDS if name != "tokenize"]
CALLS += [[name, part] for name, parts in PARTS.items() for part in parts] + [["tokenize", s] for s in cli.SCRIPTS]
# What is slow to import, or is in an extra.
HEAVY = "numpy scipy jax flax soundfile av soxr safetensors tqdm optax orbax grain ml_collections absl sklearn torch"
HEAVY += " tensorflow librosa mir_eval matplotlib jinja2 google_crc32c tensorboardX"
PROGRAM = """
import json, sys
from hafm_jax import cli
for call in json.loads(sys.argv[1]):
    try:
        cli.main([*call, "--help"])
    except SystemExit as ended:
        assert not ended.code
    print("=====")
print(json.dumps([name for name in sys.argv[2].split() if name in sys.modules]))
"""


def test_every_help_is_printed_without_any_library_that_is_slow_or_of_an_extra(tmp_path):
    """In one process outside the repository, as users have it."""
    calls = [[], ["tokenize"], *CALLS]
    command = [sys.executable, "-c", PROGRAM, json.dumps(calls), HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONPATH": ROOT})
    *texts, imported = done.stdout.split("=====\n")
    assert json.loads(imported) == []
    for call, text in zip(calls, texts, strict=True):
        assert text.startswith(" ".join(["usage: hafm", *call]))
        assert len(max(text.splitlines(), key=len)) <= 120


def test_the_overview_is_one_screen_and_names_every_command(capsys):
    cli.main([])
    overview = capsys.readouterr().out
    assert len(overview.splitlines()) <= 40
    cli.main(["tokenize", "--help"])
    overview += capsys.readouterr().out
    assert all(f"  {name} " in overview for name in (*cli.COMMANDS, *cli.SCRIPTS))
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert all(f"| `{' '.join(['hafm', *call])}` |" in page for call in CALLS if call[0] not in PARTS or len(call) == 1)
    assert {name.replace("-", "_") for name in cli.SCRIPTS} == {path.stem for path in (ROOT / "tokenize").glob("*.py")}
    cli.main(["--version"])
    assert capsys.readouterr().out == f"hafm_jax {hafm_jax.__version__}\n"


@pytest.mark.parametrize(("call", "known"), [(["play"], "expected one of sample"), (["tokenize", "x"], "fit-kmeans")])
def test_an_unknown_command_is_refused_with_the_known_ones(call, known):
    with pytest.raises(InputError, match=f"has no command '{call[-1]}'; .*{known}.*--help"):
        cli.main(call)


def test_a_missing_extra_is_named_and_a_mistake_of_ours_is_not_taken_for_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_collections", None)
    monkeypatch.delitem(sys.modules, "hafm_jax.training.settings", raising=False)
    with pytest.raises(InputError, match=r'training needs the extra train .*: pip install "hafm_jax\[train\]"'):
        cli.main(["train", "--data", "x", "--workdir", "y"])
    with pytest.raises(ModuleNotFoundError), needs_extra("train", "training"):
        import hafm_jax.nothing  # noqa: F401


def test_shipped_files_are_found_from_any_folder_but_the_users_own_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/base.py", "configs/protocols/synthetic.json", "hafm_jax/demo"):
        assert shipped.local_or_shipped(name).samefile(ROOT / name)
    for name in ("configs/none.py", "runs/base.py", "."):
        assert str(shipped.local_or_shipped(name)) == name
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.py").touch()
    assert str(shipped.local_or_shipped("configs/base.py")) == "configs/base.py"


def test_a_configuration_of_ones_own_builds_on_a_shipped_one(tmp_path, monkeypatch):
    from hafm_jax import train

    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p and p != str(ROOT)])
    (tmp_path / "mine.py").write_text(
        "from configs.demo import get_config as demo\nget_config = lambda: demo('fine')\n"
    )
    config = train.read_config("mine.py", ["--config.steps=7", "--config.tokenizers=hafm_jax/demo"])
    assert (config.stage, config.steps) == ("fine", 7) and config.tokenizers == str(ROOT / "hafm_jax" / "demo")
    assert train.read_config("configs/demo.py:coarse", []).stage == "coarse"


def test_the_doctor_names_what_is_there_and_how_to_get_the_rest(monkeypatch, capsys, tmp_path):
    requirements = ["numpy", 'pytest>=1; extra == "here"', 'nothing-of-that-name; extra == "gone"', 'x; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor, "_is_installed", lambda name: "nothing" not in name)
    monkeypatch.setattr(doctor, "accompany", lambda: "2 s of band")  # the chain itself is test_sample.py's
    doctor.main([])
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert found["python"] == sys.version.split()[0] and "jaxlib" in found["packages"] and "cpu" in found["device"]
    assert found["[here]"] == "installed" and "[dev]" not in found
    assert found["[gone]"] == 'pip install "hafm_jax[gone]" brings nothing-of-that-name'
    assert found["sound"] == "2 s of band"


def test_the_doctors_voice_gets_a_band(tiny_model, monkeypatch):
    monkeypatch.setattr(hafm_jax, "load", lambda: hafm_jax.Accompanist.load(tiny_model), raising=False)
    assert doctor.accompany().startswith("2 s of band in ")
