"""The wheel alone, as users have it: an empty environment, another folder, a home that cannot be written.

`make test-wheel` runs it; it needs a package registry, so it is not among the tests that `make test` collects.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from helpers import ROOT

FIVE_LINES = """
import hafm_jax
model = hafm_jax.load()
band = model("a.m4a", seed=1)
band.save("song.ogg")
print(band.sample_rate_hz, band.instrumental.dtype, len(band.instrumental))
"""
SHADOWED = """
import tokenize, importlib.util, hafm_jax.tokenize.fit_kmeans
assert importlib.util.find_spec("hafm_jax.configs.base")  # to import it takes the extra train
print(tokenize.__file__)
"""
SECONDS = 1


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the environment `venv`, in which the wheel is installed, and the voice as a.wav and a.m4a."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(lambda name: (ROOT / name).is_file(), listed.splitlines()):  # without what earlier builds left
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = partial(subprocess.run, check=True, env=environment)
    run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source"])
    (wheel,) = folder.glob("*.whl")
    run([sys.executable, "-m", "venv", folder / "venv"])
    pip[0] = folder / "venv" / "bin" / "python"
    run([*pip, "install", "--constraint", ROOT / "constraints.txt", wheel, "mypy"])
    voice, rate_hz = soundfile.read(ROOT / "examples" / "vocal.wav", frames=SECONDS * 24_000, dtype="float32")
    soundfile.write(folder / "a.wav", voice, rate_hz)
    with av.open(str(folder / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return folder


def run(place: Path, program: str, *arguments: str, code: int = 0) -> str:
    """What a program of the environment prints, in the folder. Its home is below a file, so that even root cannot
    write there."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(place / "a.wav" / "home")}
    command = [str(place / "venv" / "bin" / program), *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_every_help_is_printed(place):
    from hafm_jax import cli

    assert run(place, "hafm") == cli.help_text() + "\n" == run(place, "python", "-m", "hafm_jax", "--help")
    for name in cli.COMMANDS:
        assert run(place, "hafm", name, "--help").startswith(f"usage: hafm {name}")
    for name in cli.SCRIPTS:
        assert run(place, "hafm", "tokenize", name, "--help").startswith(f"usage: hafm tokenize {name}")


def test_a_recording_of_a_phone_becomes_a_mix(place):
    run(place, "hafm", "sample", "--vocal", "a.m4a", "--out", "b.mp3")
    assert soundfile.info(place / "b.mp3").duration == pytest.approx(SECONDS, abs=0.1)
    run(place, "hafm", "again", "b.mp3", "--out", "c.mp3")
    assert (place / "b.mp3").read_bytes() == (place / "c.mp3").read_bytes()


def test_five_lines_of_python(place):
    rate_hz, dtype, samples = run(place, "python", "-c", FIVE_LINES).split()
    assert (rate_hz, dtype) == ("24000", "float32") and int(samples) == pytest.approx(SECONDS * 24_000, rel=0.1)
    assert soundfile.info(place / "song.ogg").samplerate == 24_000


def test_a_type_checker_passes_on_them(place):
    (place / "five.py").write_text(FIVE_LINES + "reveal_type(band)\n")
    found = run(place, "mypy", "--strict", "--cache-dir", str(place / "mypy"), "five.py")
    assert "hafm_jax.band.Band" in found and "no issues found" in found


def test_configs_and_scripts_are_installed_and_shadow_nothing(place):
    assert Path(run(place, "python", "-c", SHADOWED).strip()).parent == Path(os.__file__).parent
    (wheel,) = place.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"hafm_jax"}
    run(place, "hafm", "tokenize", "synthesize-songs", "--out", "songs", "--num-songs", "1", "--seconds", "1")
    assert json.loads((place / "songs" / "train" / "song_000000" / "song.json").read_text())["tempo_bpm"] > 0
    error = run(place, "hafm", "train", "--data", "x", "--workdir", "y", code=2)
    assert 'pip install "hafm_jax[train]"' in error and error.count("\n") == 1


def test_the_doctor_is_content(place):
    found = run(place, "hafm", "doctor")
    assert "cannot be written" in found and 'pip install "hafm_jax[train]"' in found and "2 s of band in" in found
