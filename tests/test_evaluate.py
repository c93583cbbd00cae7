"""The whole of an evaluation, on a tiny model and short synthetic songs."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile

pytest.importorskip("librosa", reason="needs the extra hafm_jax[evaluate]")
pytest.importorskip("mir_eval", reason="needs the extra hafm_jax[evaluate]")

from hafm_jax import compiled, evaluate, memory
from hafm_jax.accompany import Accompanist
from hafm_jax.audio.files import read_audio, write_audio
from hafm_jax.audio.synthesis import song_seed, synthesize_song
from hafm_jax.errors import InputError
from hafm_jax.evaluation.baselines import Library
from hafm_jax.evaluation.clips import CLIP_SAMPLES, read_band
from hafm_jax.evaluation.protocol import read_protocol
from hafm_jax.evaluation.systems import ABOUT, Bands
from hafm_jax.sampling import Sampling

SECONDS = {"test": 10, "train": 10}
SYSTEMS = [*(name for name in ABOUT if name != "model_separated"), "guidance_2"]


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    for split, count in (("test", 8), ("train", 8)):
        for i in range(count):
            song = synthesize_song(song_seed(split, i, 0), SECONDS[split])
            folder = root / split / f"{i:05}"
            folder.mkdir(parents=True)
            write_audio(folder / "vocals.flac", song.vocals, 24_000)
            write_audio(folder / "instrumental.flac", song.instrumental, 24_000)
            (folder / "song.json").write_text(json.dumps(song.info))
    return root


def stand_in(accompanist, vocals, sample_rate_hz, cells, *, seeds, sampling):
    """In place of the three stages, which other tests run: the vocal's own tokens, the later the more guidance."""
    tokens = accompanist.codec.encode(np.concatenate(vocals))[:, : 3 * cells]
    return np.roll(tokens, round(sampling.guidance_scale), axis=1)


def run(monkeypatch, songs, model, out, *more):
    monkeypatch.setattr(compiled, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(Accompanist, "tokens_of_each", stand_in)
    arguments = ["--songs", songs, "--model", model, "--out", out, "--vocal-gate-dbfs", -40, "--workers", 1, *more]
    evaluate.main([str(x) for x in arguments])
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def report(songs, tiny_model, tmp_path_factory):
    """(folder, report.json)."""
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return out, run(monkeypatch, songs, tiny_model, out, "--guidance-scales", 2)


def test_every_system_has_its_figures(report):
    _, document = report
    assert list(document["systems"]) == SYSTEMS and document["clips"] == 8 and not document["failures"]
    for name in SYSTEMS:
        of_system = document["systems"][name]
        assert of_system["clips"] == 8 and of_system["about"]
        distances = document["embeddings"]["mel"]["systems"][name]
        for figure in (*of_system["measures"].values(), *distances.values()):
            if figure["value"] is not None and "low" in figure:
                assert figure["low"] <= figure["high"]
        assert all(value is None or np.isfinite(value) for f in distances.values() for value in f.values())


def test_anchors_stand_where_they_must(report):
    measures = {name: system["measures"] for name, system in report[1]["systems"].items()}
    assert measures["truth"]["coverage"]["value"] == measures["truth"]["onset_f"]["value"] == 1
    assert measures["truth"]["lag_ms"]["value"] < 1 and measures["truth"]["lag_strength"]["value"] > 0.999
    assert measures["silence"]["coverage"]["value"] == measures["silence"]["beat_f"]["value"] == 0
    assert measures["click"]["beat_f"]["value"] > 0.9
    assert measures["click"]["chroma_chords"]["value"] < measures["truth"]["chroma_chords"]["value"] - 0.3
    mel = report[1]["embeddings"]["mel"]["systems"]
    assert mel["truth"]["fad_stem"]["value"] < mel["silence"]["fad_stem"]["value"]


def test_bands_are_what_their_names_say(report, songs):
    out, _ = report
    protocol = read_protocol(out / "protocol.json")
    for clip in protocol.clips:
        truth = read_band(out, "truth", clip.id)
        stored, _ = read_audio(songs / "test" / clip.song / "instrumental.flac")
        np.testing.assert_allclose(truth, stored[0, clip.start_s * 24_000 :][:240_000], atol=2**-15)
        tokens = np.load(out / "tokens" / "guidance_3" / f"{clip.id}.npy")
        assert tokens.shape == (750, 8)
    first, second = protocol.clips[:2]
    np.testing.assert_array_equal(read_band(out, "wrong_vocal", first.id), read_band(out, "model", second.id))
    assert not np.array_equal(read_band(out, "model", first.id), read_band(out, "no_guidance", first.id))


def test_the_model_is_what_sample_makes(report, songs, tiny_model, tmp_path):
    protocol = read_protocol(report[0] / "protocol.json")
    clip = protocol.clips[0]
    accompanist = Accompanist.load(str(tiny_model))
    bands = Bands(tmp_path, songs, replace(protocol, clips=(clip,)), accompanist, Library(()))
    vocal, rate_hz = read_audio(songs / "test" / clip.song / "vocals.flac")
    for system, skip_fine in (("model", False), ("no_fine", True)):
        bands.make(system, clip)
        (expected,) = accompanist(vocal, rate_hz, seed=protocol.seed_of(clip), skip_fine=skip_fine)
        np.testing.assert_allclose(read_band(tmp_path, system, clip.id), np.clip(expected, -1, 1), atol=2**-15)


def test_no_more_clips_at_once_than_memory_has_room_for(report, songs, tiny_model, monkeypatch, tmp_path):
    protocol = read_protocol(report[0] / "protocol.json")
    accompanist = Accompanist.load(str(tiny_model))
    three = accompanist.needed_bytes(3, Sampling(), False, (1, CLIP_SAMPLES), 24_000)
    at_once = []

    def counted(accompanist, vocals, *rest, **options):
        at_once.append(len(vocals))
        return stand_in(accompanist, vocals, *rest, **options)

    monkeypatch.setattr(memory, "available_bytes", lambda: three)
    monkeypatch.setattr(Accompanist, "tokens_of_each", counted)
    Bands(tmp_path, songs, protocol, accompanist, Library(())).make("model", protocol.clips[0])
    assert at_once == [3]


def test_the_files_for_programs_agree_with_the_report(report):
    out, document = report
    with (out / "table.csv").open() as file:
        table = {(row["system"], row["embedding"], row["figure"]): row for row in csv.DictReader(file)}
    row = table["truth", "mel", "fad_mix"]
    assert float(row["value"]) == document["embeddings"]["mel"]["systems"]["truth"]["fad_mix"]["value"]
    assert row["fingerprint"] == document["embeddings"]["mel"]["fingerprint"]
    with (out / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "codec8"]
    mean = np.mean([float(row["chroma_chords"]) for row in rows])
    assert mean == pytest.approx(document["systems"]["codec8"]["measures"]["chroma_chords"]["value"])


def test_the_page_needs_nothing_else(report):
    page = (report[0] / "index.html").read_text()
    assert "src='http" not in page and "<link" not in page
    assert page.count("<audio") == 3 * (1 + len(SYSTEMS))
    assert report[1]["protocol"] in page and "guidance scale" in page


def test_the_same_command_goes_on_with_what_is_missing(report, songs, tiny_model, monkeypatch, tmp_path):
    out = tmp_path / "report"
    shutil.copytree(report[0], out)
    protocol = read_protocol(out / "protocol.json")
    lost = [out / "clips" / "model" / f"{protocol.clips[0].id}.flac", out / "measures" / f"{protocol.clips[1].id}.json"]
    for path in lost:
        path.unlink()
    (out / "embeddings" / "mel" / "random.npz").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (out / "clips").rglob("*.flac")}
    again = run(monkeypatch, songs, tiny_model, out, "--guidance-scales", 2)
    assert all(path.stat().st_mtime_ns == changed_ns for path, changed_ns in kept.items())
    assert again["systems"] == report[1]["systems"] and again["embeddings"] == report[1]["embeddings"]
    with pytest.raises(InputError, match="was begun with num_clips None, this run has 1"):
        run(monkeypatch, songs, tiny_model, out, "--clips", 1)


def test_a_clip_that_fails_is_named_and_the_rest_goes_on(report, songs, tiny_model, monkeypatch, tmp_path, capsys):
    broken = tmp_path / "songs"
    shutil.copytree(songs, broken)
    protocol = read_protocol(report[0] / "protocol.json")
    victim = protocol.clips[1]
    soundfile.write(broken / "test" / victim.song / "instrumental.flac", np.zeros(1000), 24_000)
    out = tmp_path / "report"
    shutil.copytree(report[0], out, ignore=shutil.ignore_patterns("truth*", "codec*"))
    (out / "measures" / f"{victim.id}.json").unlink()
    document = run(monkeypatch, broken, tiny_model, out, "--guidance-scales", 2)
    assert "ends before" in document["failures"]["truth"][victim.id]
    assert document["systems"]["truth"]["clips"] == 7
    assert "truth" not in document["embeddings"]["mel"]["systems"]  # seven songs are too few
    assert victim.id in (out / "index.html").read_text()


def test_another_evaluations_protocol_is_used(report, songs, tiny_model, monkeypatch, tmp_path):
    given = report[0] / "protocol.json"
    arguments = evaluate.parse_arguments(
        ["--songs", str(songs), "--out", str(tmp_path), "--protocol", str(given), "--clips", "1"]
    )
    protocol = evaluate.choose_protocol(arguments)
    assert protocol.clips == read_protocol(given).clips[:1]
    assert protocol.fingerprint() != read_protocol(given).fingerprint()


@pytest.mark.parametrize(
    "more, found",
    [
        (["--embedding", "vggish"], "vggish needs weights"),
        (["--embedding", "taste"], "no embedding is called 'taste'"),
        (["--clips", "0"], "--clips is 0"),
        (["--vocal-gate-dbfs", "nan"], "no number"),
        (["--guidance-scales", "-1"], "numbers from 0 to 100"),
        (["--protocol", "nowhere.json"], "does not exist"),
        (["--split", "train"], "both evaluated and the reference"),
        (["--split", "nothing"], "holds no ID/vocals"),
    ],
)
def test_bad_input_is_said(more, found, songs, tiny_model, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=found):
        run(monkeypatch, songs, tiny_model, tmp_path / "out", *more)
