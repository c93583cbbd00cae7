"""Sounds of a stage in training: the target is generated for the conditions of some validation songs.

Only stages with acoustic tokens make sound: coarse (its codebooks alone) and fine (on the song's own coarse tokens).

Axes: B songs, F frames, K codebooks.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.dataset import loader
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.model import decode, transformer
from hafm_jax.model.config import StageConfig
from hafm_jax.model.sampling import Sampling
from hafm_jax.tokenizers.codecs import load_codec
from hafm_jax.training import hosts

SONGS = 3  # ours: the first ones that hold a window, from their start


class Preview:
    """The preview songs of one run. Raises InputError where the stage makes no sound, or where there is no codec."""

    def __init__(self, config: StageConfig, training: ConfigDict, validation: TokenRecords):
        if config.stage.target.field != "acoustic":
            raise InputError(
                f"the {config.stage_name} stage makes no sound; expected coarse or fine: set --config.sample_every=0"
            )
        if not training.tokenizers:
            raise InputError("--config.sample_every needs the codec: set --config.tokenizers to the tokenizers' folder")
        self._codec = load_codec(Path(training.tokenizers, "codec"))
        self.rate_hz = self._codec.sample_rate_hz
        self._config = config
        self._key = jax.random.key(training.seed)
        self._sampling = Sampling(**training.sampling)
        long_enough = np.flatnonzero(validation.num_cells >= config.window_cells)[:SONGS]
        songs = (validation.window(int(i), 0, config.window_cells) for i in long_enough)
        crops = [loader.crop(song, config.stage, 0, config.window_cells) for song in songs]
        *self._conditions, self._target = (jnp.stack([c[s.name] for c in crops]) for s in config.stage.streams)
        self._has_songs = False  # the songs themselves are decoded once

    def sounds(self, params: transformer.Params) -> dict[str, np.ndarray]:
        """Name -> samples float32 [N] at rate_hz: each song as generated, and in the first call as it is.

        Every process of the run must call it; all but the first one receive {}. It gathers all parameters and
        generates on one device: configs/base.py has the memory that it needs, at `sample_every`.
        """
        if jax.process_count() > 1:
            params = multihost_utils.process_allgather(params, tiled=True)
        if not hosts.is_first():
            return {}
        params = jax.device_get(params)
        weights = decode.prepare(self._config, params)
        frames = self._target.shape[1]
        keys = jax.random.split(self._key, len(self._target))
        generated = decode.generate_window(
            self._config, weights, self._conditions, jnp.zeros_like(self._target), 0, frames, keys, 0, self._sampling
        )
        sounds = self._decoded("generated", generated)
        if not self._has_songs:
            self._has_songs = True
            sounds |= self._decoded("song", self._target)
        return sounds

    def _decoded(self, name: str, target: jax.Array) -> dict[str, np.ndarray]:
        streams = zip(self._config.stage.conditions, self._conditions, strict=True)
        coarser = [tokens for stream, tokens in streams if stream.field == "acoustic"]
        codes = np.concatenate([*coarser, target], axis=-1)
        return {f"{name}-{i}": sound for i, sound in enumerate(self._codec.decode(codes))}
