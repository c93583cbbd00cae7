"""The command as a user runs it: files in, files out; bad input ends in one line and exit code 2."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest
import soundfile

from hafm_jax import accompany, sample
from hafm_jax.accompany import Accompanist, SamplingOptions
from hafm_jax.audio.vocals import Vocal
from hafm_jax.band import Band
from hafm_jax.common.errors import InputError
from hafm_jax.model import memory
from hafm_jax.model.sampling import Sampling


def write(path, seconds=1.0, rate_hz=24_000, channels=1):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    soundfile.write(path, np.tile(0.3 * np.sin(2 * np.pi * 220 * t)[:, None], channels), rate_hz)
    return path


@pytest.fixture
def run(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(accompany, "use_compilation_cache", lambda: None)  # leave the user's cache alone

    def command(*arguments, model=tiny_model, out="mix.wav"):
        out = tmp_path / out
        how = ["--model", str(model), "--out", str(out), "--guidance-scale", "1", "--force"]
        sample.main([*map(str, arguments), *how])
        return out

    return command


@pytest.mark.parametrize(
    ("rate_hz", "channels", "suffix"), [(44_100, 2, "wav"), (16_000, 1, "flac"), (22_050, 1, "ogg")]
)
def test_writes_a_mix_and_its_band(run, tmp_path, capsys, rate_hz, channels, suffix):
    out = run("--vocal", write(tmp_path / f"in.{suffix}", 1.013, rate_hz, channels))
    mix, mix_rate = soundfile.read(out, always_2d=True)
    band, band_rate = soundfile.read(tmp_path / "mix_instrumental.wav", always_2d=True)
    assert mix_rate == band_rate == rate_hz
    assert len(mix) == len(band) == round(1.013 * rate_hz)
    assert mix.shape[1] == channels
    assert 0.01 < np.abs(mix).max() < 1.0
    assert "real-time factor" in capsys.readouterr().out
    # Nothing half-written.
    assert {p.name for p in tmp_path.iterdir()} == {f"in.{suffix}", "mix.wav", "mix_instrumental.wav", "mix.json"}


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(run, tmp_path):
    vocal = write(tmp_path / "in.wav")
    files = [run("--vocal", vocal, "--seed", s, out=f"{i}.wav").read_bytes() for i, s in enumerate((7, 7, 8))]
    assert files[0] == files[1] != files[2]


def test_several_samples_are_numbered(run, tmp_path):
    run("--vocal", write(tmp_path / "in.wav"), "--num-samples", 2, "--skip-fine", "--seconds", 0.5)
    assert {p.name for p in tmp_path.iterdir()} == {
        "in.wav", *(f"mix_{i}{end}" for i in (1, 2) for end in (".wav", "_instrumental.wav", ".json"))
    }  # fmt: skip
    assert (tmp_path / "mix_1.wav").read_bytes() != (tmp_path / "mix_2.wav").read_bytes()
    assert soundfile.info(tmp_path / "mix_1.wav").frames == 12_000


class Begun(Exception):
    pass


@pytest.fixture
def seen(monkeypatch) -> list:
    """The sampling of each run, which ends in Begun where its work would begin."""
    samplings = []

    def begin(accompanist, cells, options, **_):
        samplings.append(options.sampling)
        raise Begun

    monkeypatch.setattr(Accompanist, "compile", begin)
    return samplings


def test_sampling_is_set_for_each_stage_and_otherwise_the_models(run, seen, tiny_model, tmp_path):
    own = Accompanist.load(str(tiny_model)).sampling
    vocal = write(tmp_path / "in.wav")
    for asked in (["--temperature", "0.5"], ["--temperature", "semantic=0", "fine=0.7", "--top-k", "9", "coarse=3"]):
        with pytest.raises(Begun):
            run("--vocal", vocal, *asked)
    unguided = {name: how._replace(guidance_scale=1.0) for name, how in own.items()}  # `run` sets that
    assert seen[0] == {name: how._replace(temperature=0.5) for name, how in unguided.items()}
    assert seen[1] == {
        "semantic": unguided["semantic"]._replace(temperature=0.0, top_k=9),
        "coarse": unguided["coarse"]._replace(top_k=3),
        "fine": unguided["fine"]._replace(temperature=0.7, top_k=9),
    }


@pytest.mark.usefixtures("seen")
def test_memory_is_stated_and_checked_before_the_work(run, tiny_model, tmp_path, monkeypatch, capsys):
    vocal = write(tmp_path / "in.wav", 30.0, 44_100, 2)
    accompanist, sampling = Accompanist.load(str(tiny_model)), Sampling(guidance_scale=1.0)
    one, two = (accompanist.needed_bytes(SamplingOptions(n, sampling), (2, 30 * 44_100), 44_100) for n in (1, 2))
    with pytest.raises(Begun):
        run("--vocal", vocal, "--num-samples", 2)
    stated, audio = map(float, re.search(r"at most (\S+) GB .* (\S+) GB for audio", capsys.readouterr().out).groups())
    assert stated == round(two / 1e9, 2) and 0.03 < audio < stated
    monkeypatch.setattr(memory, "available_bytes", lambda: one)
    with pytest.raises(InputError, match=r"2 samples at once need .* 1 would fit"):
        run("--vocal", vocal, "--num-samples", 2)
    with pytest.raises(Begun):
        run("--vocal", vocal)


@pytest.mark.parametrize(("rate_hz", "channels"), [(24_000, 1), (44_100, 2), (48_000, 1)])
def test_audio_needs_the_memory_that_is_stated_for_it(tmp_path, rate_hz, channels):
    """Measured by numpy's own account, of the mixes: where audio needs most."""

    def work(seconds: float) -> int:
        tracemalloc.start()
        vocal = Vocal(np.full((channels, seconds * rate_hz), 0.1, np.float32), rate_hz)
        vocal.audio[:, ::9] = 0.5  # on an offset, which takes a copy
        settings = {"seed": 0, "take": 1, "versions": {"hafm_jax": "0"}}
        bands = [Band(np.full(seconds * 24_000, 0.1, np.float32), {}, vocal, settings) for _ in range(2)]
        for band in bands:
            band.save(tmp_path / "mix.wav", force=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    work(1)  # imports
    growth = work(40) - work(10)
    stated = [memory.audio_bytes((channels, seconds * rate_hz), rate_hz, 2) for seconds in (10, 40)]
    assert 0.6 * (stated[1] - stated[0]) < growth < stated[1] - stated[0], (growth, stated)


def test_zero_is_a_value_not_a_default(monkeypatch):
    arguments = sample.parser().parse_args(["--vocal", "x.wav", "--temperature", "0", "--top-k", "0", "--seed", "0"])
    assert (arguments.temperature, arguments.top_k, arguments.seed) == ([(None, 0.0)], [(None, 0)], 0)


def test_a_silent_voice_is_a_warning(run, tmp_path, capsys):
    soundfile.write(tmp_path / "in.wav", np.zeros(24_000), 24_000)
    out = run("--vocal", tmp_path / "in.wav")
    assert "silent" in capsys.readouterr().err
    assert np.isfinite(soundfile.read(out)[0]).all()


@pytest.fixture
def noise_band(monkeypatch) -> None:
    """Accompanists that play noise."""

    def play(model, vocal, number, options, seed, rate_in_tune_hz, **__):
        noise = np.random.default_rng(0).normal(0, 0.1, round(vocal.audio.shape[1] * 24_000 / vocal.rate_hz))
        return [Band(noise.astype(np.float32), {}, vocal, model._settings(vocal, options, seed, 1, rate_in_tune_hz))]

    monkeypatch.setattr(Accompanist, "takes", play)


@pytest.mark.usefixtures("noise_band")
@pytest.mark.parametrize(
    ("level", "offset", "said"),
    [
        (0.1, 0, None),
        (1e-3, 0, "the voice is at -63.0 LUFS: raised by 33.0 dB in the mix"),
        (2000.0, 0, r"the voice is at 63.0 LUFS: lowered by 7\d.\d dB in the mix"),
        (0.1, 0.2, "the voice is at -23.0 LUFS: freed of a DC offset of 0.2 in the mix"),
    ],
)
def test_what_was_done_to_the_voice_is_said(run, tmp_path, capsys, level, offset, said):
    tone = level * np.sin(2 * np.pi * 997 * np.arange(72_000) / 24_000) + offset  # the standard's: -3.0 LUFS at 1
    soundfile.write(tmp_path / "in.wav", tone, 24_000, subtype="FLOAT")
    mix, _ = soundfile.read(run("--vocal", tmp_path / "in.wav"))
    assert 0.02 < np.abs(mix).max() < 0.9
    lines = [line for line in capsys.readouterr().out.splitlines() if "the voice is at" in line]
    assert len(lines) == (said is not None) and all(re.fullmatch(said, line) for line in lines)


@pytest.mark.usefixtures("noise_band")
def test_another_tuning_is_said(run, tmp_path, capsys):
    midi = np.repeat([57, 60, 62, 65, 57, 69, 64], 24_000)
    tone = 0.2 * np.sin(2 * np.pi * np.cumsum(432 * 2 ** ((midi - 69) / 12)) / 24_000)
    soundfile.write(tmp_path / "in.wav", tone, 24_000)
    run("--vocal", tmp_path / "in.wav")
    assert "the voice is tuned to A = 432 Hz, -32 cents: its band is tuned to it\n" in capsys.readouterr().out


def test_bad_vocals_end_in_one_clear_sentence_and_leave_nothing(run, tmp_path):
    (tmp_path / "text.wav").write_text("la la la")
    (tmp_path / "nothing.wav").write_bytes(b"")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 24_000)
    soundfile.write(tmp_path / "short.wav", np.ones(900), 24_000)
    soundfile.write(tmp_path / "nan.wav", np.full(24_000, np.nan), 24_000, subtype="FLOAT")
    before = set(tmp_path.iterdir())
    messages = {"missing": "does not exist", "short": "40 ms", "nan": "NaN"}
    for name in ("missing", "text", "nothing", "empty", "short", "nan"):
        with pytest.raises(InputError, match=messages.get(name, name)) as raised:
            run("--vocal", tmp_path / f"{name}.wav")
        assert "\n" not in str(raised.value) and f"{name}.wav" in str(raised.value)
        assert set(tmp_path.iterdir()) == before


def test_bad_outputs_and_models_are_found_before_the_work(run, tmp_path):
    vocal = write(tmp_path / "in.wav")
    for out in ("no/such/folder/mix.wav", "mix.xyz", "."):
        with pytest.raises(InputError, match="cannot write"):
            run("--vocal", vocal, out=out)
    with pytest.raises(InputError, match="no model directory"):
        run("--vocal", vocal, model=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"config\.json cannot be read .No such file"):
        run("--vocal", vocal, model=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["in.wav"]


ABSURD = "--temperature=-1 --temperature=nan --top-k=-3 --top-p=0 --top-p=2 --guidance-scale=-1 --guidance-scale=inf "
ABSURD += "--seconds=0 --seconds=inf --seconds=nan --seconds=1e309 --num-samples=0 --num-samples=many --seed=-1"
OF_STAGES = ["rough=2", "semantic=warm", "=1", "semantic="]  # unknown stages, and no numbers


@pytest.mark.parametrize("option", [*ABSURD.split(), *(f"--temperature={text}" for text in OF_STAGES)])
def test_absurd_options_are_refused(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        sample.parser().parse_args(["--vocal", "x.wav", option])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "expected" in error.splitlines()[-1]
    assert option.partition("=")[2] not in OF_STAGES or re.search("expected (one of|a number)", error)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_its_progress_and_leaves_nothing(tiny_model, tmp_path, number):
    write(tmp_path / "in.wav", 60.0)
    command = [sys.executable, "-m", "hafm_jax.sample", "--vocal", "in.wav", "--model", str(tiny_model)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, env=environment, preexec_fn=heed)
    printed = b""
    while b"coarse:" not in printed:  # the progress bar: the second stage has begun
        more = process.stderr.read1()
        assert more, printed
        printed += more
    process.send_signal(number)
    printed = process.stderr.read().decode()
    assert process.wait() == 128 + number
    assert re.search(r"interrupted: (coarse|fine): \d+ % done, nothing written\n$", printed), printed
    assert "Traceback" not in printed
    assert [p.name for p in tmp_path.iterdir()] == ["in.wav"]


def test_an_interrupt_while_loading_reports_that_nothing_is_written(run, tmp_path, monkeypatch):
    def interrupted(source):
        raise KeyboardInterrupt

    monkeypatch.setattr(Accompanist, "load", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^loading, nothing written$"):
        run("--vocal", write(tmp_path / "in.wav"))
    assert [p.name for p in tmp_path.iterdir()] == ["in.wav"]


def test_an_interrupt_while_writing_names_the_complete_files(run, tmp_path, monkeypatch):
    vocal = write(tmp_path / "in.wav")
    real, calls = soundfile.SoundFile.write, []  # called once for so little

    def interrupted_in_the_third(file, audio):
        calls.append(file)
        if len(calls) == 3:
            real(file, audio[: len(audio) // 2])
            raise KeyboardInterrupt
        real(file, audio)

    monkeypatch.setattr(soundfile.SoundFile, "write", interrupted_in_the_third)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run("--vocal", vocal, "--num-samples", 2, "--skip-fine", "--seconds", 0.5)
    files = {name: tmp_path / name for name in ("mix_1.wav", "mix_1_instrumental.wav", "mix_1.json")}
    missing = ", ".join(str(tmp_path / f"mix_2{end}") for end in (".wav", "_instrumental.wav", ".json"))
    whole = ", ".join(map(str, files.values()))
    assert str(interrupt.value) == f"coarse: 100 % done, written: {whole}; not written: {missing}"
    assert {p.name for p in tmp_path.iterdir()} == {"in.wav", *files}
    assert {soundfile.info(path).frames for name, path in files.items() if name != "mix_1.json"} == {12_000}


def test_the_process_exits_with_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "hafm_jax.sample", "--vocal", "missing.wav"]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: missing.wav does not exist")
    assert list(tmp_path.iterdir()) == []
