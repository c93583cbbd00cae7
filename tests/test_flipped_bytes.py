"""Every kind of small file that the package reads, with a flipped bit, cut, or with other values in it.

A damaged file is refused in one line, or what is read of it is what was written. Where another valid value cannot be
told from what a person may write, the kind's `harmless` says which. Those of checkpoints are in
tests/training/test_checkpoint.py, of sounds in tests/audio.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict, astuple, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
from helpers import write_token_set
from helpers.made_runs import make_run, make_sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.scaling import get_config
from hafm_jax.audio.music import read_song
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import sealed, unsealed, write_json
from hafm_jax.common.resume import check_same_run
from hafm_jax.common.safetensors_io import read_arrays
from hafm_jax.dataset.layout import index_name, read_tokens_json, shards
from hafm_jax.dataset.records import TokenRecords, read_index
from hafm_jax.dataset.verify import verify_tokens
from hafm_jax.evaluation import baselines, distances, measures
from hafm_jax.evaluation.clips import Clip
from hafm_jax.evaluation.protocol import Protocol, Rule, read_protocol, write_protocol
from hafm_jax.listening.answers import read_answers, read_key
from hafm_jax.metrics.embeddings import Embedding
from hafm_jax.model.pretrained import load_model
from hafm_jax.scaling import queue
from hafm_jax.scaling.fit import fit_sweep, read_fit, write_fit
from hafm_jax.scaling.plan import Plan
from hafm_jax.scaling.runs import Run, read_runs, write_runs
from hafm_jax.tokenizers.codecs import load_codec
from hafm_jax.tokenizers.semantic import load_semantic

FLIPS, CUTS = 12, 4  # of each kind


class Made(NamedTuple):
    """A file, what reads it, and whether another result than the first is one that the file may well have."""

    path: Path
    read: Callable[[], Any]
    harmless: Callable[[Any, Any], bool] = lambda before, after: False


def plain(x: Any) -> Any:
    """Whatever is read, as what `==` compares."""
    if is_dataclass(x):
        return plain(astuple(x) if not hasattr(x, "config") else vars(x))
    if isinstance(x, dict):
        return {name: plain(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    if hasattr(x, "dtype"):
        return str(x.dtype), x.shape, np.asarray(x).tobytes()
    return x


# ------------------------------------------------------------------------------------------------------------- models


def stage_of(folder: Path) -> Any:
    stage = load_model(str(folder), ["semantic"]).stages["semantic"]
    return stage.config, stage.params, stage.facts, stage.sampling


def model_file(name: str, read: Callable[[Path], Any]) -> Callable[..., Made]:
    def make(tmp_path: Path, request: Any) -> Made:
        folder = shutil.copytree(request.getfixturevalue("tiny_model"), tmp_path / "model")
        return Made(folder / name, lambda: read(folder))

    return make


def codec_of(folder: Path) -> Any:
    codec = load_codec(folder / "codec")
    return codec.config, codec.params


def semantic_of(folder: Path) -> Any:
    tokenizer = load_semantic(folder / "semantic")
    return tokenizer.config, tokenizer.centroids


def embedding_weights(tmp_path: Path, request: Any) -> Made:
    arrays = {"a": np.arange(600, dtype=np.float32), "b": np.ones((3, 4), np.float32)}
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(arrays, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()  # as after #: without it, numbers cannot be told from others
    return Made(path, lambda: read_arrays(path, {name: array.shape for name, array in arrays.items()}, digest))


# --------------------------------------------------------------------------------------------------------- token sets


def tokens_file(name: str, read: Callable[[Path], Any]) -> Callable[..., Made]:
    def make(tmp_path: Path, request: Any) -> Made:
        folder = write_token_set(tmp_path / "tokens")
        return Made(folder / name, lambda: read(folder))

    return make


def records_of(folder: Path) -> Any:
    return [list(TokenRecords(folder, split)) for split in ("train", "validation")]


# ------------------------------------------------------------------------------------------------------------- sweeps


def make_plan(tmp_path: Path) -> Plan:
    config = get_config()
    config.stages = {"semantic": {"window_cells": 4, "budgets_flops": (), "tokens": (4_000, 8_000)}}
    config.sizes, config.rates.sizes, config.held_out.sizes = ("16x1x1",), (), ()
    config.update(evaluations=4, validation_windows=16)
    plan = Plan(config, ["tokens"])
    plan.write(tmp_path)
    return plan


def plan_file(tmp_path: Path, request: Any) -> Made:
    make_plan(tmp_path)

    def read() -> Any:
        plan = Plan.read(tmp_path)
        return plan.config.to_dict(), plan.data

    return Made(tmp_path / "plan.json", read)


def a_run(tmp_path: Path) -> tuple[Plan, Path]:
    plan = make_plan(tmp_path)
    run = plan.runs()[0]
    folder = queue.run_directory(tmp_path, run)
    folder.mkdir(parents=True)
    machine = {"versions": {"jax": "0.10.2"}, "devices": ["cpu"], "device_count": 1, "cores": 2}
    write_json(folder / "config.json", {"config": plan.training(run).to_dict()} | machine)
    steps = plan.training(run).steps
    records = [{"step": n, "validation_loss": 5.25, "validation_loss_per_codebook": [5.25]} for n in (1, steps)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_json(folder / "result.json", sealed(queue._result("finished", run, steps, folder)))
    return plan, folder


def result_file(tmp_path: Path, request: Any) -> Made:
    plan, folder = a_run(tmp_path)
    return Made(folder / "result.json", lambda: queue.collect(tmp_path, plan))


def run_config(tmp_path: Path, request: Any) -> Made:
    plan, folder = a_run(tmp_path)

    def read() -> Any:
        queue.check_same_runs(tmp_path, plan)
        return queue.machines(tmp_path, plan)

    # Names and numbers of machines and versions are shown and decide nothing; and those fields of the configuration
    # that say how the work is laid out may change.
    return Made(
        folder / "config.json", read, lambda before, after: [m.keys() for m in before] == [m.keys() for m in after]
    )


def without_curves(runs: list[Run]) -> list[Run]:
    return [replace(run, curve=[]) for run in runs]


def metrics_file(tmp_path: Path, request: Any) -> Made:
    plan, folder = a_run(tmp_path)
    (folder / "result.json").unlink()
    path = folder / "metrics.jsonl"
    # A figure of the log of a run that has not ended: it is shown as a point of the curve and enters no law.
    return Made(
        path,
        lambda: queue.collect(tmp_path, plan),
        lambda before, after: without_curves(before) == without_curves(after),
    )


def runs_file(tmp_path: Path, request: Any) -> Made:
    path = tmp_path / "runs.jsonl"
    write_runs(path, [make_run(index) for index in range(3)])
    # A list that was cut between two lines is a shorter one; `sweep fit` writes it again.
    return Made(path, lambda: read_runs(path), lambda before, after: after == before[: len(after)])


def fit_file(tmp_path: Path, request: Any) -> Made:
    write_fit(tmp_path, fit_sweep(make_sweep(noise=0.01, stages=("semantic",))))
    return Made(tmp_path / "fit.json", lambda: read_fit(tmp_path))


# -------------------------------------------------------------------------------------------- evaluation and listening


def protocol_file(tmp_path: Path, request: Any) -> Made:
    path, clips = tmp_path / "protocol.json", tuple(Clip(f"song{i}", 10 * i) for i in range(4))
    write_protocol(path, Protocol(Rule(), clips[:2], clips[2:], ("other",)))
    return Made(path, lambda: read_protocol(path))


def made_again(before: Any, after: Any) -> bool:
    """Of a cache: nothing is read, and it is made again."""
    return not after


def measures_file(tmp_path: Path, request: Any) -> Made:
    path = tmp_path / "measures.json"
    write_json(path, sealed({"model": {"beat_f": 0.25, "lag_ms": float("nan")}, "random": {"beat_f": 0.125}}))
    return Made(path, lambda: repr(measures._read_measures(path)), lambda before, after: after == "{}")


def library_file(tmp_path: Path, request: Any) -> Made:
    path = tmp_path / "song.json"
    write_json(path, sealed({"source": {"version": 1}, "seconds": 30.5, "tempo_bpm": 120.25, "beats_s": [0.5, 1.0]}))
    return Made(path, lambda: baselines._read_cached(path), made_again)


def embeddings_file(tmp_path: Path, request: Any) -> Made:
    path, clips = tmp_path / "embeddings.npz", [Clip(f"song{i}", 0) for i in range(3)]
    embedding = Embedding("mean", None, 24_000, 1, lambda audio: audio.reshape(-1, 4))
    distances.embed(path, embedding, clips, lambda clip: {"stem": np.arange(400.0, dtype=np.float32)})
    return Made(path, lambda: distances._embedded_clips(path) and distances.read_embeddings(path), made_again)


def request_file(tmp_path: Path, request: Any) -> Made:
    run = {"format_version": 2, "songs": "/data/songs", "seed": 0, "clips": None, "gate": -25.5}
    check_same_run(tmp_path, run)
    return Made(tmp_path / "run.json", lambda: check_same_run(tmp_path, run))


def song_file(tmp_path: Path, request: Any) -> Made:
    write_json(tmp_path / "song.json", {"key": "C major", "tempo_bpm": 120.0, "beats_s": [0.5, 1.0], "licence": "CC0"})
    # Facts about a song, which people write too: another key is a key.
    return Made(tmp_path / "song.json", lambda: read_song(tmp_path), lambda before, after: isinstance(after, dict))


def make_key() -> dict[str, Any]:
    pairs = [{"pair": n, "clip": f"c{n}", "a": "model", "b": "truth", "check": False} for n in (1, 2, 3)]
    return {"format_version": 1, "kit": "abc", "question": "Which?", "systems": ["model", "truth"], "pairs": pairs}


def key_file(tmp_path: Path, request: Any) -> Made:
    write_json(tmp_path / "key.json", sealed(make_key()))
    return Made(tmp_path / "key.json", lambda: read_key(tmp_path))


def answers_file(tmp_path: Path, request: Any) -> Made:
    key, path = make_key(), tmp_path / "answers.json"
    rows = [
        {"pair": n, "choice": choice, "seconds": 30.25, "answered": f"2026-01-01T00:00:0{n}.000Z"}
        for n, choice in ((2, "a"), (3, "none"), (1, "b"))
    ]
    write_json(path, {"format_version": 1, "kit": "abc", "listener": "ada", "first": 1, "answers": rows})
    # A browser wrote it, without a checksum: another name of the listener, and other seconds and times, are possible.
    return Made(
        path,
        lambda: read_answers(path, key),
        lambda before, after: [(a.pair, a.choice) for a in before] == [(a.pair, a.choice) for a in after],
    )


KINDS: dict[str, Callable[[Path, Any], Made]] = {
    "model config": model_file("config.json", stage_of),
    "stage weights": model_file("semantic.safetensors", stage_of),
    "codec config": model_file("codec/config.json", codec_of),
    "codec weights": model_file("codec/codec.safetensors", codec_of),
    "semantic config": model_file("semantic/config.json", semantic_of),
    "centroids": model_file("semantic/centroids.safetensors", semantic_of),
    "embedding weights": embedding_weights,
    "shard": tokens_file("hafm_tokens-train.tfrecord-00000-of-00001", records_of),
    "list of records": tokens_file(
        index_name("train"), lambda folder: read_index(folder, "train", shards(folder, "train"))
    ),
    "tokens.json": tokens_file("tokens.json", read_tokens_json),
    "features.json": tokens_file("features.json", lambda folder: [asdict(s) for s in verify_tokens(folder)]),
    "dataset_info.json": tokens_file("dataset_info.json", lambda folder: [asdict(s) for s in verify_tokens(folder)]),
    "plan.json": plan_file,
    "runs.jsonl": runs_file,
    "result.json": result_file,
    "config.json of a run": run_config,
    "metrics.jsonl of a run": metrics_file,
    "fit.json": fit_file,
    "protocol": protocol_file,
    "measures": measures_file,
    "analysis of a song": library_file,
    "embeddings": embeddings_file,
    "run.json": request_file,
    "song.json": song_file,
    "key.json": key_file,
    "answers": answers_file,
}
# Those whose whole content is a JSON object with names that a loader looks for.
DOCUMENTS = [
    kind for kind in KINDS
    if kind not in ("stage weights", "codec weights", "centroids", "embedding weights", "shard", "embeddings",
                    "runs.jsonl", "metrics.jsonl of a run", "features.json", "dataset_info.json")
]  # fmt: skip


def outcome(made: Made, before: Any) -> str:
    """How reading ends: refused, same, harmless, or wrong."""
    try:
        after = plain(found := made.read())
    except InputError as error:
        assert len(str(error).splitlines()[0]) < 2000
        return "refused"
    return "same" if after == plain(before) else "harmless" if made.harmless(before, found) else "wrong"


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_or_a_cut_is_refused_or_changes_nothing(kind, tmp_path, request, record_property):
    made = KINDS[kind](tmp_path, request)
    before = made.read()
    assert outcome(made, before) == "same"
    data = made.path.read_bytes()
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    # A third of the flips in the first 200 bytes: of a large file, these are the header.
    flips = [
        *rng.integers(8 * min(len(data), 200), size=FLIPS // 3),
        *rng.integers(8 * len(data), size=FLIPS - FLIPS // 3),
    ]
    damaged = {}
    for bit in flips:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged[f"bit {bit % 8} of byte {bit // 8}"] = bytes(flipped)
    damaged |= {f"cut at {end}": data[:end] for end in [0, *rng.integers(len(data), size=CUTS - 1)]}
    outcomes = {}
    for name, content in damaged.items():
        made.path.write_bytes(content)
        os.utime(made.path, ns=(1, 1))
        outcomes[name] = outcome(made, before)
    assert [name for name, found in outcomes.items() if found == "wrong"] == []
    counts = {found: list(outcomes.values()).count(found) for found in ("refused", "same", "harmless")}
    record_property("outcomes", counts)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """The document with one value in it replaced, or left out, or with another document in its place."""
    if isinstance(document, dict | list) and document and draw(st.integers(0, 9)):
        keys = list(document) if isinstance(document, dict) else range(len(document))
        key = draw(st.sampled_from(keys))
        rest = document.copy()
        if draw(st.integers(0, 4)):
            rest[key] = draw(changed(document[key]))
        else:
            del rest[key]
        return rest
    return draw(JSON)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_any_document_is_read_or_refused(kind, tmp_path, request):
    """Without the checksum, as an author of another program, or of malice, writes it."""
    made = KINDS[kind](tmp_path, request)
    document = unsealed(json.loads(made.path.read_text()))

    @settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(changed(document))
    def read(other):
        made.path.write_text(json.dumps(other))
        try:
            made.read()
        except InputError as error:
            assert str(made.path.parent) in str(error)

    read()
