"""Tokens of bands for N vocals at once: what the Python API, the evaluation and the experiments call.

Axes: N vocals, B samples drawn for one vocal, C channels, S samples of audio, F frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.audio.files import resampled_length
from hafm_jax.common.errors import InputError
from hafm_jax.model import decode, memory
from hafm_jax.model.config import StageConfig
from hafm_jax.model.given import ACOUSTIC, check_given, stages_to_run
from hafm_jax.model.options import DEFAULT_OPTIONS, SamplingOptions
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.weights import Weights
from hafm_jax.model.windows import generate_stage, plan_windows
from hafm_jax.streams import (
    CODEC_SAMPLE_RATE_HZ,
    SEMANTIC_SAMPLE_RATE_HZ,
    STAGES,
    STREAMS,
    num_cells,
    samples_per_cell,
)
from hafm_jax.tokenizers.codecs import Codec
from hafm_jax.tokenizers.rests import fill_rests
from hafm_jax.tokenizers.semantic import VOCAL_NOISE_SIGMA, SemanticTokenizer, clean_vocal, num_frames, with_noise

Progress = Callable[[str, int, int], None]  # stage, frames just done, frames in all


class How(TypedDict, total=False):
    """Arguments that all methods which generate tokens pass on to `Accompanist.generate_streams`."""

    given: Mapping[str, np.ndarray]
    progress: Progress


def no_progress(stage: str, done: int, total: int) -> None:
    pass


def band_cells(num_samples: int, rate_hz: int) -> int:
    """The cells of the band for a vocal of so many samples."""
    return num_cells(resampled_length(num_samples, rate_hz, CODEC_SAMPLE_RATE_HZ), CODEC_SAMPLE_RATE_HZ)


def acoustic_tokens(streams: Mapping[str, np.ndarray], cells: int) -> np.ndarray:
    """Tokens of the codec int32 [B, 3 * cells, 8 (4)] of tokens by stream."""
    frames = cells * STAGES["coarse"].target.frames_per_cell
    return np.concatenate([streams[name][:, :frames] for name in ACOUSTIC if name in streams], axis=-1)


@dataclass(frozen=True)
class Generator:
    """The parts of a model: stages (config and prepared weights), tokenizer, codec, each stage's own `sampling`.

    Arguments of several methods:

    - seed: the same seed draws the same tokens; 0 to 2**31 - 1.
    - progress: called with a stage's name, the frames just done and the total of frames; before it with "compile" and
      stages. What it raises ends the work and is raised to the caller; the model can be used again.
    - given: tokens that are used instead of drawn ones, int32 [B, F, K] by the name of a stage's target
      (`instrumental_semantic`, `coarse`, `fine`), for all cells that the stage fills: see `stage_cells`.
    """

    stages: dict[str, tuple[StageConfig, Weights]]
    tokenizer: SemanticTokenizer
    codec: Codec
    sampling: dict[str, Sampling]
    _compiled: set[tuple] = field(default_factory=set, repr=False, kw_only=True)

    def sampling_of(self, options: SamplingOptions, stage: str) -> Sampling:
        asked = options.sampling
        return asked if isinstance(asked, Sampling) else {**self.sampling, **(asked or {})}[stage]

    def stage_cells(self, cells: int, options: SamplingOptions = DEFAULT_OPTIONS) -> dict[str, int]:
        """The cells that each stage fills for `cells` of music: at least one window of the next stage."""
        names = options.stage_names
        following = [self.stages[name][0].window_cells for name in names[1:]]
        return dict(zip(names, [max(cells, window) for window in [*following, cells]], strict=True))

    def needed_bytes(self, options: SamplingOptions, vocal_shape: tuple[int, int], sample_rate_hz: int) -> int:
        """The memory that generating for a vocal [C, S] needs besides the loaded model: for windows, the same for a
        vocal of any length, and for audio (host memory, counted as the device's, which it is on a CPU)."""

        def stage_bytes(name: str) -> int:
            config, weights = self.stages[name]
            rows = options.num_samples * self.sampling_of(options, name).rows.num
            return memory.window_bytes(config, rows, weights.packed)

        windows = sum(map(stage_bytes, options.stage_names))  # all stages: `compile` runs them at the same time
        return windows + memory.audio_bytes(vocal_shape, sample_rate_hz, options.num_samples)

    def fitting(self, options: SamplingOptions, vocal_shape: tuple[int, int], sample_rate_hz: int) -> int:
        """The number of samples at once that the free memory has room for, `options.num_samples` at most."""
        available = memory.available_bytes()
        if available is None:
            return options.num_samples

        def fits(num_samples: int) -> bool:
            fewer = replace(options, num_samples=num_samples)
            return self.needed_bytes(fewer, vocal_shape, sample_rate_hz) <= available

        return next(filter(fits, range(options.num_samples, 0, -1)), 0)

    def check_memory(self, options: SamplingOptions, vocal_shape: tuple[int, int], sample_rate_hz: int) -> int:
        """`needed_bytes`. Raises InputError where so many samples at once do not fit, with the number that would."""
        needed, most = (f(options, vocal_shape, sample_rate_hz) for f in (self.needed_bytes, self.fitting))
        if most == options.num_samples:
            return needed
        available = memory.available_bytes()
        raise InputError(
            f"{options.num_samples} samples at once need {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are "
            f"free; " + (f"{most} would fit: draw them with several seeds" if most else "not even one fits: free some")
        )

    def compile(
        self, cells: int, options: SamplingOptions = DEFAULT_OPTIONS, *, progress: Progress = no_progress
    ) -> None:
        """Compile everything that a call with the same options and a vocal of `cells` runs, all stages at once.

        Calls do so by themselves. progress counts stages, and is not called where everything is compiled.
        """
        jobs = {}
        for name, stage_cells in self.stage_cells(cells, options).items():
            config, weights = self.stages[name]
            known = {w.known - w.start for w in plan_windows(stage_cells, config.window_cells)}
            how = self.sampling_of(options, name)
            key = (name, options.num_samples, how.rows, frozenset(known))
            if key not in self._compiled:
                jobs[key] = (config, weights, options.num_samples, how, known)
        if not jobs:
            return
        progress("compile", 0, len(jobs))
        with ThreadPoolExecutor(len(jobs)) as pool:
            running = {pool.submit(decode.compile_window, *job): key for key, job in jobs.items()}
            for done in as_completed(running):
                done.result()
                self._compiled.add(running[done])
                progress("compile", 1, len(jobs))

    def tokens(
        self,
        vocal: np.ndarray,
        sample_rate_hz: int,
        cells: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seed: int = 0,
        **how: Unpack[How],
    ) -> np.ndarray:
        """Acoustic tokens int32 [B, 3 * cells, 8 (4 without the fine stage)] for the vocal's first `cells` cells."""
        return self.tokens_of_each([vocal], sample_rate_hz, cells, options, seeds=[seed], **how)

    def tokens_of_each(
        self,
        vocals: Sequence[np.ndarray],
        sample_rate_hz: int,
        cells: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seeds: Sequence[int],
        **how: Unpack[How],
    ) -> np.ndarray:
        """`tokens` of N vocals at once, each with its seed: the same as one by one, in less time.

        int32 [N * B, 3 * cells, 8 (4)], the samples of a vocal in a row; so are the rows of `given`.
        """
        streams = self.generate_streams(vocals, sample_rate_hz, cells, options, seeds=seeds, **how)
        return acoustic_tokens({name: streams[name] for name in ACOUSTIC[: 1 if options.skip_fine else 2]}, cells)

    def generate_streams(
        self,
        vocals: Sequence[np.ndarray],
        sample_rate_hz: int,
        cells: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seeds: Sequence[int],
        given: Mapping[str, np.ndarray] = MappingProxyType({}),
        progress: Progress = no_progress,
    ) -> dict[str, np.ndarray]:
        """The tokens behind `tokens_of_each`, by stream: int32 [N * B, F_s, K_s] of all cells that the stages fill.

        A stage does not run where its target is given, or is read only by stages that do not run. That changes no draw
        of the other stages: tokens of one call, given to another, lead to the same tokens of the stages after them.
        Raises InputError where `given` does not fit.
        """
        wanted = self.stage_cells(cells, options)
        batch = len(vocals) * options.num_samples
        shapes = {}
        for name, stage_cells in wanted.items():
            target = STAGES[name].target
            shapes[target.name] = (batch, stage_cells * target.frames_per_cell, target.codebooks)
        streams = check_given(given, shapes)
        vocal_cells = max(*wanted.values(), self.stages["semantic"][0].window_cells)
        semantic = self._vocal_semantic(vocals, sample_rate_hz, vocal_cells, seeds)
        streams["vocal_semantic"] = np.repeat(semantic, options.num_samples, axis=0)
        roots = jnp.repeat(jnp.stack([jax.random.key(seed) for seed in seeds]), options.num_samples)
        samples = jnp.tile(jnp.arange(options.num_samples), len(vocals))
        to_run = stages_to_run(list(wanted), given)
        for i, name in enumerate(wanted):
            if name not in to_run:
                continue
            config, weights = self.stages[name]
            # One key a sample, so that a sample does not depend on how many are drawn beside it.
            keys = jax.vmap(lambda root, sample, i=i: jax.random.fold_in(jax.random.fold_in(root, i), sample))(
                roots, samples
            )
            total = wanted[name] * config.stage.target.frames_per_cell
            streams[config.stage.target.name] = generate_stage(
                config,
                weights,
                streams,
                wanted[name],
                keys,
                self.sampling_of(options, name),
                lambda frames, name=name, total=total: progress(name, frames, total),
            )
        return streams

    def _vocal_semantic(
        self, vocals: Sequence[np.ndarray], sample_rate_hz: int, cells: int, seeds: Sequence[int]
    ) -> np.ndarray:
        """Tokens int32 [N, F, 1] of the first `cells` of each vocal, long rests filled (`fill_rests`); silence follows
        a vocal that is shorter."""
        stream, found = STREAMS["vocal_semantic"], []
        for vocal, seed in zip(vocals, seeds, strict=True):
            audio = clean_vocal(vocal, sample_rate_hz)
            missing = cells * samples_per_cell(SEMANTIC_SAMPLE_RATE_HZ) - audio.size
            padded = np.pad(audio, (0, max(0, missing)))
            tokens = self.tokenizer.encode(with_noise(padded, VOCAL_NOISE_SIGMA, seed))
            tokens[: num_frames(audio)] = fill_rests(tokens[: num_frames(audio)], audio)
            found.append(tokens[: cells * stream.frames_per_cell, None])
        return np.stack(found)
