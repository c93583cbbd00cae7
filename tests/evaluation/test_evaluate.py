"""The whole of an evaluation, on a tiny model and short synthetic songs."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
import safetensors.numpy
import soundfile
from helpers.html_pages import assert_well_formed
from helpers.small_vggish import small_vggish
from helpers.tunes import write_song

pytest.importorskip("librosa", reason="needs the extra hafm_jax[evaluate]")
pytest.importorskip("mir_eval", reason="needs the extra hafm_jax[evaluate]")

from hafm_jax import evaluate
from hafm_jax.accompany import Accompanist, SamplingOptions
from hafm_jax.audio.files import read_audio, write_audio
from hafm_jax.common import cache
from hafm_jax.common.errors import InputError
from hafm_jax.evaluation import clips, command, systems
from hafm_jax.evaluation import report as pages
from hafm_jax.evaluation.baselines import Library
from hafm_jax.evaluation.clips import CLIP_SAMPLES, read_band, read_clip
from hafm_jax.evaluation.distances import read_embeddings
from hafm_jax.evaluation.protocol import read_protocol
from hafm_jax.evaluation.systems import ABOUT, ORDER, Bands
from hafm_jax.metrics import coherence, mel
from hafm_jax.metrics.analysis import import_librosa
from hafm_jax.metrics.distance_intervals import drawn_frechet_distances
from hafm_jax.metrics.embeddings import load_embedding
from hafm_jax.metrics.frechet import frechet_distance
from hafm_jax.model import memory
from hafm_jax.model.sampling import Sampling
from hafm_jax.synthesis.song import song_seed, synthesize_song
from hafm_jax.tokenizers import codecs

SECONDS = 10
DRAWS = 20  # a tenth of the usual
PLAYED_CLIPS = 1
SYSTEMS = [*(name for name in ABOUT if name != "no_history_off"), "guidance_2"]  # the tiny model has none
MEL_STATISTICS = mel.mel_statistics
REFERENCE = 9  # songs, one more than the least; as many are the library


@pytest.fixture(scope="module", autouse=True)
def quick_codec():
    """Frames of random phases in place of the search for phases, most of the codec's work, which other tests run."""

    def invert(state, magnitudes, exists, size, hop):
        angles = np.random.default_rng(0).uniform(0, 2 * np.pi, magnitudes.shape)
        frames = np.fft.irfft(size / 8 * np.asarray(magnitudes) * np.exp(1j * angles), size)
        return state, frames[:, :hop].reshape(-1).astype(np.float32)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(codecs, "_invert", invert)
        yield


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    for split, count in (("test", 8), ("train", 2 * REFERENCE)):
        for i in range(count):
            write_song(root / split / f"{i:05}", synthesize_song(song_seed(split, i, 0), SECONDS))
    return root


@pytest.fixture(scope="module")
def separated(songs, tmp_path_factory):
    """The vocals of the songs as a separator leaves them: with some of the band."""
    root = tmp_path_factory.mktemp("separated")
    for folder in (songs / "test").iterdir():
        vocals, band = (read_audio(folder / f"{stem}.flac")[0][0] for stem in ("vocals", "instrumental"))
        (root / "test" / folder.name).mkdir(parents=True)
        write_audio(root / "test" / folder.name / "vocals.flac", 0.7 * vocals + 0.3 * band, 24_000)
    return root


def stand_in(accompanist, vocals, sample_rate_hz, cells, options, *, seeds):
    """In place of the three stages, which other tests run: the tokens of the vocal, shifted by the guidance scale."""
    tokens = accompanist.codec.encode(np.concatenate(vocals))[:, : 3 * cells]
    return np.roll(tokens, round(options.sampling["coarse"].guidance_scale), axis=1)


@pytest.fixture
def run(songs, separated, tiny_model, monkeypatch):
    """Evaluate into a folder; returns report.json. The page has no sounds."""
    monkeypatch.setattr(pages, "PLAYED_CLIPS", 0)
    return partial(evaluated, monkeypatch, songs, separated, tiny_model)


def evaluated(monkeypatch, songs, separated, model, out, *more, generate=stand_in):
    monkeypatch.setattr(cache, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(Accompanist, "tokens_of_each", generate)
    monkeypatch.setattr("hafm_jax.evaluation.distances.NUM_DRAWS", DRAWS)
    fixed = ["--songs", songs, "--separated", separated, "--model", model, "--vocal-gate-dbfs", -40, "--workers", 1]
    evaluate.main([str(x) for x in (*fixed, "--guidance-scales", 2, "--out", out, *more)])
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def report(songs, separated, tiny_model, tmp_path_factory):
    """(folder, report.json)."""
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(pages, "PLAYED_CLIPS", PLAYED_CLIPS)
        return out, evaluated(monkeypatch, songs, separated, tiny_model, out)


@pytest.fixture
def copy(report, tmp_path):
    """Of the report, to be changed."""
    return shutil.copytree(report[0], tmp_path / "report")


def values(document, measure, *names):
    return [document["systems"][name]["measures"][measure]["value"] for name in names]


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


def test_anchors_have_their_known_scores(report):
    of = partial(values, report[1])
    assert of("coverage", "truth", "silence") == [1, 0]
    assert of("onset_f", "truth") == [1] and of("beat_f", "silence") == [0] and of("beat_f", "click")[0] > 0.9
    assert of("lag_ms", "truth")[0] < 1 and of("lag_strength", "truth")[0] > 0.999
    click, truth = of("chroma_chords", "click", "truth")
    assert click < truth - 0.3
    mel = report[1]["embeddings"]["mel"]["systems"]
    assert mel["truth"]["fad_stem"]["value"] < mel["silence"]["fad_stem"]["value"]


def test_bands_are_those_of_their_systems(report, songs):
    out, _ = report
    protocol = read_protocol(out / "protocol.json")
    for clip in protocol.clips:
        truth = read_band(out, "truth", clip.id)
        stored, _ = read_audio(songs / "test" / clip.song / "instrumental.flac")
        np.testing.assert_allclose(truth, stored[0, clip.start_s * 24_000 :][:240_000], atol=2**-15)
        tokens = np.load(out / "tokens" / "model" / f"{clip.id}.npz")["tokens"]
        assert tokens.shape == (750, 8)
    first, second = protocol.clips[:2]
    np.testing.assert_array_equal(read_band(out, "wrong_vocal", first.id), read_band(out, "model", second.id))
    assert not np.array_equal(read_band(out, "model", first.id), read_band(out, "no_guidance", first.id))


def test_the_model_is_what_sample_makes(report, songs, tiny_model, monkeypatch, tmp_path):
    monkeypatch.setattr(clips, "CLIP_S", 2)  # all three stages generate
    monkeypatch.setattr(systems, "CLIP_SAMPLES", 48_000)
    protocol = read_protocol(report[0] / "protocol.json")
    clip = protocol.clips[0]
    accompanist = Accompanist.load(str(tiny_model))
    bands = Bands(tmp_path, songs, replace(protocol, clips=(clip,)), accompanist, Library(()))
    vocal, rate_hz = read_audio(songs / "test" / clip.song / "vocals.flac", 2)
    for system, skip_fine in (("model", False), ("no_fine", True)):
        bands.make(system, clip)
        options = SamplingOptions(skip_fine=skip_fine)
        expected = accompanist((vocal, rate_hz), options, seed=protocol.seed_of(clip)).instrumental
        np.testing.assert_allclose(read_band(tmp_path, system, clip.id), np.clip(expected, -1, 1), atol=2**-15)


def test_no_more_clips_at_once_than_memory_has_room_for(report, songs, tiny_model, monkeypatch, tmp_path):
    protocol = read_protocol(report[0] / "protocol.json")
    accompanist = Accompanist.load(str(tiny_model))
    one = accompanist.needed_bytes(SamplingOptions(sampling=Sampling()), (1, CLIP_SAMPLES), 24_000)
    at_once = []

    def counted(accompanist, vocals, *rest, **options):
        at_once.append(len(vocals))
        return stand_in(accompanist, vocals, *rest, **options)

    monkeypatch.setattr(memory, "available_bytes", lambda: one)
    monkeypatch.setattr(Accompanist, "tokens_of_each", counted)
    Bands(tmp_path, songs, protocol, accompanist, Library(())).make("model", protocol.clips[0])
    assert at_once == [1]


def test_systems_are_left_out_by_name_and_unknown_names_refused(report, songs, tiny_model):
    protocol, accompanist = read_protocol(report[0] / "protocol.json"), Accompanist.load(str(tiny_model))
    made = partial(Bands, report[0], songs, protocol, accompanist, Library(()), guidance_scales=[5.0])
    assert made(only=["guidance_5", "truth"]).systems == ["truth", "guidance_5"]
    with pytest.raises(InputError, match="no system is called triangle; expected some of truth, codec8"):
        made(only=["truth", "triangle"])


def test_a_model_with_no_history_guidance_is_sampled_without_it_too(report, songs, tiny_model, monkeypatch, tmp_path):
    accompanist = Accompanist.load(str(tiny_model))
    own = {name: how._replace(no_history_scale=0.5) for name, how in accompanist.sampling.items()}
    asked = []

    def remember(accompanist, vocals, sample_rate_hz, cells, options, **_):
        asked.append(options.sampling)
        return np.zeros((1, 750, 8), np.int32)

    protocol = read_protocol(report[0] / "protocol.json")
    protocol = replace(protocol, clips=protocol.clips[:1])
    bands = Bands(tmp_path, songs, protocol, replace(accompanist, sampling=own), Library(()))
    monkeypatch.setattr(Accompanist, "tokens_of_each", remember)
    for system in ("model", "no_history_off", "no_guidance"):
        bands.make(system, protocol.clips[0])
    unguided = {name: how._replace(guidance_scale=1.0) for name, how in own.items()}
    assert asked == [own, accompanist.sampling, unguided]


def test_some_systems_alone_make_a_report(run, copy):
    assert "The model minus each other system" in (copy / "index.html").read_text()
    document = run(copy, "--systems", "truth", "random")
    assert list(document["systems"]) == ["truth", "random"]
    assert "The model minus each other system" not in (copy / "index.html").read_text()


def test_the_files_for_programs_agree_with_the_report(report):
    out, document = report
    with (out / "table.csv").open() as file:
        table = {(row["system"], row["embedding"], row["figure"]): row for row in csv.DictReader(file)}
    row = table["truth", "mel", "fad_mix"]
    assert float(row["value"]) == document["embeddings"]["mel"]["systems"]["truth"]["fad_mix"]["value"]
    assert row["fingerprint"] == document["embeddings"]["mel"]["fingerprint"]
    with (out / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "codec8"]
    assert {row["fingerprint"] for row in rows} == {document["protocol"]}
    mean = np.mean([float(row["chroma_chords"]) for row in rows])
    assert mean == pytest.approx(document["systems"]["codec8"]["measures"]["chroma_chords"]["value"])


def test_no_song_of_the_reference_is_in_the_library(report):
    out, document = report
    protocol = read_protocol(out / "protocol.json")
    assert document["library_songs"] == len(protocol.library) == document["reference_clips"] == REFERENCE
    heard = {path.stem for path in (out / "library").iterdir()}
    assert heard == set(protocol.library) and not heard & {clip.song for clip in protocol.reference}


def test_the_order_is_measured_by_differences_on_the_same_clips(report):
    out, document = report
    pairs = [pair for pair in ORDER if {*pair} <= {*SYSTEMS}]
    assert list(document["order"]) == [f"{worse} - {better}" for better, worse in pairs]
    found, of_systems = document["order"]["codec8 - truth"]["onset_f"], values(document, "onset_f", "codec8", "truth")
    assert found["value"] == pytest.approx(np.subtract(*of_systems)) and found["low"] <= found["value"] <= found["high"]

    distances = document["embeddings"]["mel"]
    of_systems = [distances["systems"][name]["fad_mix"] for name in ("random", "codec4")]
    value = of_systems[0]["value"] - of_systems[1]["value"]
    reference, *sets = (
        list(read_embeddings(out / "embeddings" / "mel" / f"{name}.npz")["mix"].values())
        for name in ("reference", "random", "codec4")
    )
    drawn = np.subtract(*(drawn_frechet_distances(reference, some, DRAWS) for some in sets))
    low, high = value + drawn.mean() - np.quantile(drawn, [0.975, 0.025])
    assert distances["order"]["random - codec4"]["fad_mix"] == pytest.approx({"value": value, "low": low, "high": high})
    assert high - low < sum(f["high"] - f["low"] for f in of_systems)  # what is drawn alike is told apart better


def test_the_separated_vocals_have_their_row_and_their_gap(report):
    out, document = report
    clip = read_protocol(out / "protocol.json").clips[0]
    bands = [read_band(out, system, clip.id) for system in ("model", "model_separated")]
    assert np.abs(bands[0] - bands[1]).max() > 1e-3
    gap = document["order"]["model_separated - model"]["chroma_chords"]["value"]
    assert gap == pytest.approx(np.subtract(*values(document, "chroma_chords", "model_separated", "model")))


def test_the_report_names_its_time_and_machine(report):
    _, document = report
    assert document["seconds"] > 0 and document["cpu_seconds"] > 0 and not document["resumed"]
    assert document["machine"]["cores"] == os.cpu_count() and document["machine"]["cpu"]
    assert document["machine"]["versions"]["jax"] == jax.__version__ and document["machine"]["versions"]["librosa"]


def test_the_page_needs_nothing_else_and_has_its_plots(report):
    out, document = report
    page = (out / "index.html").read_text()
    assert_well_formed(page)
    assert "src='http" not in page and "<link" not in page and document["protocol"] in page
    assert page.count("<audio") == page.count("<img") == PLAYED_CLIPS * (1 + len(SYSTEMS))
    assert page.count("<svg") == 3  # distances, lags, guidance


def test_fewer_songs_than_distances_need_still_make_a_report(run, copy):
    for name in ("run.json", "protocol.json"):
        (copy / name).unlink()
    document = run(copy, "--clips", 4, "--systems", "truth", "model", "no_guidance", "guidance_2")
    assert document["embeddings"]["mel"]["systems"] == {} and document["systems"]["truth"]["clips"] == 4
    page = (copy / "index.html").read_text()
    assert "the minimum for a distance" in page and page.count("<svg") == 2


def test_the_same_command_makes_what_is_missing(report, run, copy, songs):
    protocol = read_protocol(copy / "protocol.json")
    first, second = protocol.clips[:2]
    for name in (f"clips/model/{first.id}.flac", f"measures/{second.id}.json", "embeddings/mel/random.npz"):
        (copy / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in copy.rglob("*.flac")}
    again = run(copy)
    assert all(path.stat().st_mtime_ns == changed_ns for path, changed_ns in kept.items())
    assert again["systems"] == report[1]["systems"] and again["embeddings"] == report[1]["embeddings"]
    assert again["resumed"]
    with pytest.raises(InputError, match="was begun with num_clips None, this run has 1"):
        run(copy, "--clips", 1)
    with pytest.raises(InputError, match=r"was begun with separated '.*separated.*', this run has '.*songs"):
        run(copy, "--separated", songs)


def test_clips_that_fail_are_named_whatever_they_raise_and_the_rest_continues(
    report, run, copy, songs, monkeypatch, tmp_path
):
    protocol = read_protocol(copy / "protocol.json")
    victim, other = protocol.clips[:2]
    lost = [f"clips/model/{victim.id}.flac", f"tokens/model/{victim.id}.npz", f"measures/{victim.id}.json"]
    lost += [f"clips/model/{other.id}.flac", f"tokens/model/{other.id}.npz"]
    for name in (*lost, "embeddings/mel/click.npz", "embeddings/mel/reference.npz", "run.json"):
        (copy / name).unlink()  # run.json: of the songs that were whole
    bad_vocal, bad_band = (read_band(copy, name, victim.id) for name in ("vocal", "click"))

    def generate(accompanist, vocals, *rest, **options):
        if any(np.array_equal(vocal[0], bad_vocal) for vocal in vocals):
            raise RuntimeError("out of memory")
        return stand_in(accompanist, vocals, *rest, **options)

    def measure(vocal, band, truth):
        if not band.any():
            raise import_librosa().ParameterError("no sound")
        return coherence.measure(vocal, band, truth)

    def statistics(audio):
        return np.full((10, 70), np.nan) if np.array_equal(audio, bad_band) else MEL_STATISTICS(audio)

    monkeypatch.setattr("hafm_jax.evaluation.measures.measure", measure)
    monkeypatch.setattr(mel, "mel_statistics", statistics)
    broken = shutil.copytree(songs, tmp_path / "songs")
    short = protocol.reference[0]
    soundfile.write(broken / "train" / short.song / "instrumental.flac", np.zeros(1000), 24_000)
    with pytest.raises(InputError, match="the reference is of 7 songs"):  # the short one's and whom it would mismatch
        run(copy, "--songs", broken)

    (copy / "run.json").unlink()
    document = run(copy, generate=generate)
    assert document["failures"] == {
        "model": {victim.id: "RuntimeError: out of memory"},
        "silence": {victim.id: "ParameterError: no sound"},
        "click": {victim.id: "ValueError: its embedding holds NaN or infinity"},
    }
    distances, whole = (found["embeddings"]["mel"]["systems"] for found in (document, report[1]))
    assert "click" not in distances and "model" not in distances  # seven songs are too few
    assert distances.items() <= whole.items()
    assert "out of memory" in (copy / "index.html").read_text()
    np.testing.assert_array_equal(read_band(copy, "model", other.id), read_band(report[0], "model", other.id))


def test_weights_that_are_named_give_distances_of_their_own(report, run, copy, songs, monkeypatch, tmp_path):
    monkeypatch.setattr(Bands, "systems", property(lambda bands: ["truth", "codec8", "silence"]))
    tensors = small_vggish(monkeypatch)
    named = []
    for factor in (1, 2):  # two of one kind
        path = tmp_path / f"{factor}.safetensors"
        safetensors.numpy.save_file({name: factor * tensor for name, tensor in tensors.items()}, path)
        named.append(f"vggish={path}#{hashlib.sha256(path.read_bytes()).hexdigest()}")
    with pytest.raises(InputError, match="has the SHA-256"):
        run(copy, "--embedding", f"{named[0].partition('#')[0]}#{64 * '0'}")

    embeddings = run(copy, "--embedding", "mel", *named)["embeddings"]
    sums = [text.partition("#")[2] for text in named]
    assert list(embeddings) == ["mel", *(f"vggish-{found[:12]}" for found in sums)]
    assert [e["weights_sha256"] for e in embeddings.values()] == [None, *sums]
    assert len({e["fingerprint"] for e in embeddings.values()}) == 3
    assert embeddings["mel"]["systems"]["codec8"] == report[1]["embeddings"]["mel"]["systems"]["codec8"]
    clips = read_protocol(copy / "protocol.json")
    embed = load_embedding("vggish", str(tmp_path / "1.safetensors"))
    reference = [read_clip(songs, "train", clip, "instrumental") for clip in clips.reference]
    own = [read_band(copy, "codec8", clip.id) for clip in clips.clips]
    expected = frechet_distance(*(np.concatenate([embed(x, 24_000) for x in bands]) for bands in (reference, own)))
    found = embeddings[f"vggish-{sums[0][:12]}"]["systems"]["codec8"]["fad_stem"]["value"]
    assert found == pytest.approx(expected) and found > 0


def test_another_evaluations_protocol_is_used(report, songs, tmp_path):
    given = report[0] / "protocol.json"
    arguments = f"--songs {songs} --out {tmp_path} --protocol {given} --clips 1".split()
    protocol = command.choose_protocol(evaluate.parse_arguments(arguments))
    assert protocol.clips == read_protocol(given).clips[:1]
    assert protocol.fingerprint() != read_protocol(given).fingerprint()


@pytest.mark.parametrize(
    "more, found",
    [
        (["--embedding", "vggish"], "vggish needs weights"),
        (["--embedding", "taste"], "no embedding is called 'taste'"),
        (["--clips", "0"], "--clips is 0"),
        (["--vocal-gate-dbfs", "nan"], "not a number"),
        (["--guidance-scales", "-1"], "numbers from 0 to 100"),
        (["--protocol", "nowhere.json"], "nowhere.json cannot be read .No such file"),
        (["--split", "train"], "both evaluated and the reference"),
        (["--split", "nothing"], "holds no ID/vocals"),
    ],
)
def test_bad_input_is_refused(more, found, run, tmp_path):
    with pytest.raises(InputError, match=found):
        run(tmp_path / "out", *more)


def test_a_refused_start_leaves_nothing_that_refuses_the_next(run, songs, tmp_path):
    """Too few songs are found before any is read; a system that does not exist, after the reference was embedded."""
    small = tmp_path / "small"
    (small / "test").parent.mkdir()
    (small / "test").symlink_to(songs / "test")
    for folder in sorted((songs / "train").iterdir())[:15]:
        (small / "train").mkdir(exist_ok=True)
        (small / "train" / folder.name).symlink_to(folder)
    with pytest.raises(InputError, match="train holds 15 songs"):
        run(tmp_path / "out", "--songs", small)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no system is called taste"):
        run(tmp_path / "out", "--systems", "taste")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["a=b", "a#b", "=", "a=b#" + "c" * 63])
def test_names_of_weights_may_have_any_letters(name, monkeypatch):
    asked = []
    monkeypatch.setattr(command, "load_embedding", lambda *arguments: asked.append(arguments) or load_embedding("mel"))
    command.load_embeddings([f"vggish={name}", f"vggish={name}#{'0aF' * 21}1", "mel"])
    assert asked == [("vggish", name, None), ("vggish", name, f"{'0aF' * 21}1"), ("mel", None, None)]


def test_damaged_measures_and_embeddings_are_made_again(report, run, copy):
    """From the same bands: the figures are the same."""
    clip = read_protocol(copy / "protocol.json").clips[0]
    measures, embeddings = copy / f"measures/{clip.id}.json", copy / "embeddings/mel/random.npz"
    measures.write_text(measures.read_text().replace("0.", "0.9", 1))
    data = bytearray(embeddings.read_bytes())
    data[len(data) // 2] ^= 1
    embeddings.write_bytes(data)
    again = run(copy)
    assert again["systems"] == report[1]["systems"] and again["embeddings"] == report[1]["embeddings"]
