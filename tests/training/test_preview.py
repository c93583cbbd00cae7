"""Sounds of a stage in training, against the codec's own rendering of known tokens."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_params, random_record, tiny_config
from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.dataset import records, writer
from hafm_jax.model import decode
from hafm_jax.model.sampling import Sampling
from hafm_jax.streams import STAGES, STREAMS, tokens_of
from hafm_jax.tokenizers.codecs import load_codec
from hafm_jax.training.preview import SONGS, Preview

WINDOW_CELLS = 3


def token_set(directory: Path, lengths_cells: list[int]) -> records.TokenRecords:
    songs = [{"id": f"{i}"} | random_record(n, i) for i, n in enumerate(lengths_cells)]
    writer.write_metadata(directory, [writer.write_split(directory, "validation", songs, 1)], {"test": True})
    return records.TokenRecords(directory, "validation")


def training(tokenizers: Path | str, seed: int = 0) -> ConfigDict:
    return ConfigDict({"tokenizers": str(tokenizers), "seed": seed, "sampling": Sampling()._asdict()})


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_songs_sound_as_the_codec_decodes_them(stage, tokenizers, tmp_path):
    config = tiny_config(stage, window_cells=WINDOW_CELLS, num_layers=1)
    held_out = token_set(tmp_path / "tokens", [2, 5, 3])  # the first one is shorter than a window
    preview = Preview(config, training(tokenizers), held_out)
    params = random_params(config)
    sounds = preview.sounds(params)
    assert sorted(sounds) == ["generated-0", "generated-1", "song-0", "song-1"]

    codec = load_codec(tokenizers / "codec")
    assert preview.rate_hz == codec.sample_rate_hz
    codebooks = 4 if stage == "coarse" else 8
    frames = WINDOW_CELLS * STREAMS["coarse"].frames_per_cell
    codes = np.stack([held_out[i]["acoustic"][:frames, :codebooks] for i in (1, 2)])
    for i, expected in enumerate(codec.decode(codes)):
        np.testing.assert_allclose(sounds[f"song-{i}"], expected, atol=1e-5)
        assert sounds[f"generated-{i}"].shape == expected.shape
        assert np.abs(sounds[f"generated-{i}"] - expected).max() > 1e-3  # random weights do not copy the song

    again = preview.sounds(params)  # the songs themselves are decoded once
    assert sorted(again) == ["generated-0", "generated-1"]
    np.testing.assert_array_equal(again["generated-0"], sounds["generated-0"])


def test_the_conditions_are_the_songs_own_tokens(tokenizers, tmp_path, monkeypatch):
    config = tiny_config("coarse", window_cells=WINDOW_CELLS, num_layers=1)
    held_out = token_set(tmp_path / "tokens", [WINDOW_CELLS] * (SONGS + 2))
    preview = Preview(config, training(tokenizers), held_out)
    seen = {}

    def generate(config, weights, conditions, target, *rest):
        seen.update(conditions=conditions, target=target)
        return target

    monkeypatch.setattr(decode, "generate_window", generate)
    preview.sounds(jax.tree.map(jnp.asarray, random_params(config)))
    assert not seen["target"].any()  # the model does not receive the answer
    for stream, tokens in zip(STAGES["coarse"].conditions, seen["conditions"], strict=True):
        expected = [tokens_of(stream, held_out[i]) for i in range(SONGS)]
        np.testing.assert_array_equal(tokens, expected)


def test_a_stage_or_a_folder_without_sound_is_refused(tokenizers, tmp_path):
    held_out = token_set(tmp_path / "tokens", [WINDOW_CELLS])
    for stage, folder, message in (
        ("semantic", tokenizers, "makes no sound"),
        ("coarse", "", "config.tokenizers"),
        ("coarse", tmp_path / "nowhere", "nowhere/codec"),
    ):
        with pytest.raises(InputError, match=message):
            Preview(tiny_config(stage, window_cells=WINDOW_CELLS), training(folder), held_out)
