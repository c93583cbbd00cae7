"""The whole offline side on small networks of the real classes: mixtures -> stems -> k-means -> shards -> a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import CACHE, ROOT
from helpers.scripts import run as run_here
from helpers.separators import demucs, demucs_file  # noqa: F401 (fixtures)
from helpers.torch_models import encodec_folder, hubert_folder, torch  # noqa: F401 (fixtures)

from hafm_jax.audio.files import write_audio
from hafm_jax.common.errors import InputError
from hafm_jax.corpus import extraction
from hafm_jax.corpus.shard import ShardTask
from hafm_jax.dataset import layout, loader, records
from hafm_jax.streams import STAGES
from hafm_jax.tokenizers.folder import TORCH_THREADS, load_tokenizers
from hafm_jax.tokenizers.hubert import HubertFeatures
from hafm_jax.tokenizers.semantic import save_semantic

RATE_HZ = 44_100
SECONDS = 2.0
NUM_TRACKS = 8


def run(script: str, *arguments: object) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax"),
        "OMP_NUM_THREADS": "1",  # where tests share the cores, threads spend their time waiting for each other
    }
    command = [sys.executable, ROOT / "tokenize" / f"{script}.py", *arguments]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    for i in range(NUM_TRACKS):
        noise = 0.2 * np.random.default_rng(i).standard_normal((2, int(SECONDS * RATE_HZ)))
        write_audio(folder / f"track {i}.wav", noise, RATE_HZ)
    (folder / "broken.mp3").write_text("no audio")
    return folder


def write_codec(tokenizers: Path, source: Path) -> None:
    (tokenizers / "codec").mkdir()
    codec = {"format_version": 1, "codec": "encodec", "source": str(source)}
    (tokenizers / "codec" / "config.json").write_text(json.dumps(codec))


@pytest.mark.slow
def test_a_folder_of_mixtures_becomes_a_batch(music, demucs_file, hubert_folder, encodec_folder, tmp_path, monkeypatch):
    songs, tokenizers, tokens = tmp_path / "songs", tmp_path / "tokenizers", tmp_path / "tokens"
    gate = ("--vocal-gate-dbfs=-200", "--min-seconds", 1, "--validation-share", 0.3, "--test-share", 0)
    separator = ("--separator", "demucs", "--weights", demucs_file)
    output = run("separate_stems", "--music", music, "--layout", "folder", *separator, *gate, "--out", songs)
    assert "1 damaged" in output

    source = ("--features", "hubert", "--source", hubert_folder, "--layer", 2, "--clusters", 20)
    run("fit_kmeans", "--songs", songs, *source, "--dtype", "bfloat16", "--out", tokenizers)
    write_codec(tokenizers, encodec_folder)
    arguments = ["--songs", songs, "--tokenizers", tokenizers, "--dtype", "bfloat16"]
    run("extract_tokens", *arguments, "--workers", 2, "--out", tokens)

    # Two workers with a core each and one process that had four threads make the same bytes.
    torch.set_num_threads(4)
    run_here(monkeypatch, "extract_tokens", *arguments, "--workers", 1, "--out", tmp_path / "alone")
    assert torch.get_num_threads() == TORCH_THREADS
    torch.set_num_threads(1)  # as helpers.torch_models has it
    for path in tokens.iterdir():
        assert path.read_bytes() == (tmp_path / "alone" / path.name).read_bytes()

    fit = json.loads((tokenizers / "semantic" / "config.json").read_text())["fit"]
    semantic = layout.read_tokens_json(tokens)["made_by"]["semantic"]
    weights_sha256 = HubertFeatures(hubert_folder, 2).weights_sha256
    for facts in (fit, semantic):
        assert (facts["dtype"], facts["weights_sha256"]) == ("bfloat16", weights_sha256)

    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(tokens)
    splits = {split: builder.info.splits[split].num_examples for split in ("train", "validation")}
    assert sum(splits.values()) == NUM_TRACKS and all(splits.values())

    cells = int(SECONDS * 25)
    source = records.TokenRecords(tokens, "train")
    assert set(source.num_cells) == {cells}
    assert source[0]["acoustic"].shape == (3 * cells, 8)

    for stage in STAGES.values():
        batch = loader.train_batches([(source, 1)], stage, 20, 4, seed=0)[3]
        for stream in stage.streams:
            assert batch[stream.name].shape == (4, 20 * stream.frames_per_cell, stream.codebooks)
            assert len(np.unique(batch[stream.name])) > 2
    card = (tokens / "card.html").read_text()
    assert "damaged" in card and str(hubert_folder) in card


# ------------------------------------------------------------------------------- songs and machines that cannot be used


def half_precision_task(folder: Path, hubert: Path, encodec: Path, loud: set[int], number: int) -> ShardTask:
    """Songs, some with a band so loud that HuBERT's numbers leave float16; vocals are brought to one level."""
    config = {"features": "hubert", "source": str(hubert), "layer": 1}
    centroids = np.random.default_rng(0).standard_normal((9, 32), np.float32)
    save_semantic(folder / "tokenizers" / "semantic", config, centroids)
    write_codec(folder / "tokenizers", encodec)
    for k in range(number):
        song = folder / "songs" / "train" / str(k)
        song.mkdir(parents=True)
        for stem in ("vocals", "instrumental"):
            noise = np.random.default_rng(k).normal(0, 0.1, 16_000)
            audio = np.full(16_000, 1e6) if k in loud and stem == "instrumental" else noise
            soundfile.write(song / f"{stem}.wav", audio, 16_000, subtype="FLOAT")
    names = tuple(map(str, range(number)))
    facts = load_tokenizers(folder / "tokenizers", "float16").facts
    torch.set_num_threads(1)
    extraction.start(folder / "tokens", facts)
    where = (folder / "songs", folder / "tokenizers", folder / "tokens")
    return ShardTask(*where, "train", 0, 1, names, 0.01, 0, 1200, "float16", facts)


def test_a_song_without_features_is_left_out_with_the_reason(tmp_path, hubert_folder, encodec_folder):
    done = extraction.extract_shard(half_precision_task(tmp_path, hubert_folder, encodec_folder, {1}, 3))
    assert done["cells"] == [25, 25]
    ((name, split, reason, detail),) = (reject.values() for reject in done["rejects"])
    assert (name, split, reason) == ("1", "train", "features not finite")
    assert "in float16" in detail and "bfloat16" in detail and "--dtype" in detail


def test_a_dtype_that_fails_for_every_song_is_an_error(tmp_path, hubert_folder, encodec_folder):
    task = half_precision_task(tmp_path, hubert_folder, encodec_folder, set(range(9)), 9)
    with pytest.raises(InputError, match=r"none of 9 songs of train has features: .*bfloat16"):
        extraction.extract_shard(task)
    assert extraction.read_done(task) is None


def test_a_worker_that_would_make_other_tokens_is_refused(tmp_path, hubert_folder, encodec_folder):
    """As a machine with a GPU and one without do, where no dtype is given."""
    task = half_precision_task(tmp_path, hubert_folder, encodec_folder, set(), 1)
    with pytest.raises(InputError, match="dtype 'float32'; expected 'float16'"):
        extraction.extract_shard(task._replace(dtype=None))
    with pytest.raises(InputError, match="codec tokenizer has the weights_sha256"):
        facts = {**task.facts, "codec": {**task.facts["codec"], "weights_sha256": "0" * 64}}
        extraction.extract_shard(task._replace(facts=facts))
    assert extraction.read_done(task) is None
