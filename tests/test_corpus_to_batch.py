"""The whole offline side on small networks of the real classes: mixtures -> stems -> k-means -> shards -> a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CACHE
from test_separators import checkpoint_file, demucs  # noqa: F401 (fixtures)
from test_torch_models import encodec_folder, hubert_folder  # noqa: F401 (fixtures)

from hafm_jax import data, records
from hafm_jax.audio.files import write_audio
from hafm_jax.streams import STAGES

REPOSITORY = Path(__file__).parents[1]
RATE_HZ = 44_100
SECONDS = 2.0
NUM_TRACKS = 8


def run(script: str, *arguments: object) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax")}
    command = [sys.executable, REPOSITORY / "tokenize" / f"{script}.py", *arguments]
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


def test_a_folder_of_mixtures_becomes_a_batch(
    music,
    checkpoint_file,  # noqa: F811
    hubert_folder,  # noqa: F811
    encodec_folder,  # noqa: F811
    tmp_path,
):
    songs, tokenizers, tokens = tmp_path / "songs", tmp_path / "tokenizers", tmp_path / "tokens"
    gate = ("--vocal-gate-dbfs=-200", "--min-seconds", 1, "--validation-share", 0.3, "--test-share", 0)
    separator = ("--separator", "demucs", "--weights", checkpoint_file)
    said = run("separate_stems", "--music", music, "--layout", "folder", *separator, *gate, "--out", songs)
    assert "1 damaged" in said

    source = ("--features", "hubert", "--source", hubert_folder, "--layer", 2, "--clusters", 20)
    run("fit_kmeans", "--songs", songs, *source, "--out", tokenizers)
    (tokenizers / "codec").mkdir()
    codec = {"format_version": 1, "codec": "encodec", "source": str(encodec_folder)}
    (tokenizers / "codec" / "config.json").write_text(json.dumps(codec))
    run("extract_tokens", "--songs", songs, "--tokenizers", tokenizers, "--out", tokens, "--workers", 1)

    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(tokens)
    splits = {split: builder.info.splits[split].num_examples for split in ("train", "validation")}
    assert sum(splits.values()) == NUM_TRACKS and all(splits.values())

    cells = int(SECONDS * 25)
    source = records.TokenRecords(tokens, "train")
    assert set(source.num_cells) == {cells}
    for stage in STAGES.values():
        batch = data.train_batches([(source, 1)], stage, 20, 4, seed=0)[3]
        for stream in stage.streams:
            assert batch[stream.name].shape == (4, 20 * stream.frames_per_cell, stream.codebooks)
            assert len(np.unique(batch[stream.name])) > 2
    card = (tokens / "card.html").read_text()
    assert "damaged" in card and str(hubert_folder) in card
