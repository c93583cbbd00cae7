"""Vocal in, accompaniment out: the three stages over windows. The Python API.

    accompanist = Accompanist.load("hafm_jax/demo")
    result = accompanist(vocal, sample_rate_hz, seed=1)  # vocal: float32 [C, S]

A song longer than a stage's window is covered by windows that overlap; what is already generated stands as given in
the next one, and every stage cuts its conditions by the same clock of cells.

Axes: B samples drawn for one vocal, C channels, S samples of audio, F frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.audio.files import resampled_length, to_mono
from hafm_jax.common.errors import InputError
from hafm_jax.model import decode, memory
from hafm_jax.model.config import StageConfig
from hafm_jax.model.decode import Weights
from hafm_jax.model.pretrained import load_model
from hafm_jax.model.sampling import Sampling
from hafm_jax.streams import CELLS_PER_S, CODEC_SAMPLE_RATE_HZ, STAGES, STREAMS, num_cells
from hafm_jax.tokenizers.codecs import Codec, load_codec
from hafm_jax.tokenizers.semantic import SemanticTokenizer, load_semantic, vocal_tokens

OVERLAP = 1 / 3  # ours: the share of a window that is given by the window before

Progress = Callable[[str, int, int], None]  # stage, frames just done, frames in all


class Window(NamedTuple):
    """Cells start..start + length of a song, of which those before `known` are already there, up to `stop` wanted."""

    start: int
    known: int
    stop: int


def plan_windows(total_cells: int, window_cells: int) -> list[Window]:
    """Windows of one length, evenly spread over a song, so that all but the first have as much given.

    A song shorter than a window is a window that stops early.
    """
    if total_cells <= window_cells:
        return [Window(0, 0, total_cells)]
    hop = max(1, window_cells - round(window_cells * OVERLAP))
    further = -(-(total_cells - window_cells) // hop)
    windows = [Window(0, 0, window_cells)]
    for i in range(1, further + 1):
        start = i * (total_cells - window_cells) // further
        windows.append(Window(start, windows[-1].stop, start + window_cells))
    return windows


def generate_stage(
    config: StageConfig,
    weights: Weights,
    conditions: dict[str, np.ndarray],
    total_cells: int,
    keys: jax.Array,
    sampling: Sampling,
    progress: Callable[[int], None],
) -> np.ndarray:
    """One stage over a whole song: weights from `decode.prepare`, conditions int32 [B, F_s, K_s] by stream name, of at
    least `total_cells` and one window -> target int32 [B, F, K] of `total_cells`."""
    stage, target = config.stage, config.stage.target
    shape = (len(keys), max(total_cells, config.window_cells) * target.frames_per_cell, target.codebooks)
    song = np.zeros(shape, np.int32)
    for window in plan_windows(total_cells, config.window_cells):

        def cut(tokens: np.ndarray, frames_per_cell: int, start: int = window.start) -> jax.Array:
            return jnp.asarray(tokens[:, start * frames_per_cell : (start + config.window_cells) * frames_per_cell])

        filled = decode.generate_window(
            config,
            weights,
            [cut(conditions[s.name], s.frames_per_cell) for s in stage.conditions],
            cut(song, target.frames_per_cell),
            (window.known - window.start) * target.frames_per_cell,
            (window.stop - window.start) * target.frames_per_cell,
            keys,
            window.start * target.frames_per_cell,
            sampling,
            progress,
        )
        new = slice(window.known * target.frames_per_cell, window.stop * target.frames_per_cell)
        song[:, new] = np.asarray(filled)[:, new.start - window.start * target.frames_per_cell :][
            :, : new.stop - new.start
        ]
    return song[:, : total_cells * target.frames_per_cell]


@dataclass(frozen=True)
class SamplingOptions:
    """What a call draws: `num_samples` (B) different accompaniments of each vocal; `sampling`, one for all stages, or
    one by stage name, or None for the model's own; `skip_fine` for the coarse codebooks alone: faster, rougher."""

    num_samples: int = 1
    sampling: Sampling | Mapping[str, Sampling] | None = None
    skip_fine: bool = False

    @property
    def stage_names(self) -> list[str]:
        return [name for name in STAGES if not (self.skip_fine and name == "fine")]


DEFAULT_OPTIONS = SamplingOptions()
ACOUSTIC = ("coarse", "fine")  # the streams that the codec decodes


def _no_progress(stage: str, done: int, total: int) -> None:
    pass


def _check_given(given: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, int, int]]) -> dict[str, np.ndarray]:
    """The given tokens as int32. Raises InputError where one does not have its shape in `shapes` or is not an id of its
    stream."""
    checked = {}
    for name, tokens in given.items():
        if name not in shapes:
            raise InputError(f"tokens of {name!r} are given; expected those of {', '.join(shapes)}")
        tokens, vocabulary = np.asarray(tokens), STREAMS[name].vocabulary
        if tokens.shape != shapes[name] or tokens.dtype.kind not in "iu":
            raise InputError(
                f"the given tokens of {name!r} are {tokens.dtype} {list(tokens.shape)}; expected integers "
                f"{list(shapes[name])}: samples, frames of all cells that the stage fills, codebooks"
            )
        if tokens.min() < 0 or tokens.max() >= vocabulary:
            raise InputError(
                f"the given tokens of {name!r} are {tokens.min()} to {tokens.max()}; expected 0 to {vocabulary - 1}"
            )
        checked[name] = tokens.astype(np.int32)
    return checked


def _needed_streams(stages: Iterable[str], given: Collection[str]) -> set[str]:
    """The streams that are decoded, and the conditions of stages that make needed streams which are not `given`."""
    needed = set(ACOUSTIC)
    for stage in reversed([STAGES[name] for name in stages]):
        if stage.target.name in needed.difference(given):
            needed |= {stream.name for stream in stage.conditions}
    return needed


@dataclass(frozen=True)
class Accompanist:
    """A loaded model: stages (config and prepared weights), tokenizer, codec, and each stage's own `sampling`.

    Arguments that several methods have: `options`; `seed`, an int, and the same seed draws the same tokens; `given`,
    tokens that are not drawn, int32 [B, F, K] by the name of a stage's target (`instrumental_semantic`, `coarse`,
    `fine`), for all cells that the stage fills (`stage_cells`); `progress`, called with a stage's name, the frames just
    done and the frames in all.
    """

    stages: dict[str, tuple[StageConfig, Weights]]
    tokenizer: SemanticTokenizer
    codec: Codec
    sampling: dict[str, Sampling]

    @classmethod
    def load(cls, source: str) -> Accompanist:
        """From a model directory or Hub id. Raises InputError where a part is missing or does not fit."""
        pretrained = load_model(source)
        return cls(
            {name: (s.config, decode.prepare(s.config, s.params)) for name, s in pretrained.stages.items()},
            load_semantic(pretrained.directory / "semantic"),
            load_codec(pretrained.directory / "codec"),
            {name: s.sampling for name, s in pretrained.stages.items()},
        )

    def _sampling_of(self, options: SamplingOptions, stage: str) -> Sampling:
        asked = options.sampling
        return asked if isinstance(asked, Sampling) else (asked or self.sampling)[stage]

    def stage_cells(self, cells: int, options: SamplingOptions = DEFAULT_OPTIONS) -> dict[str, int]:
        """How many cells each stage fills for `cells` of music: at least a window of the next one."""
        names = options.stage_names
        following = [self.stages[name][0].window_cells for name in names[1:]]
        return dict(zip(names, [max(cells, window) for window in [*following, cells]], strict=True))

    def needed_bytes(self, options: SamplingOptions, vocal_shape: tuple[int, int], sample_rate_hz: int) -> int:
        """The memory that generating for a vocal [C, S] needs beside the loaded model: windows, however long the vocal
        is, and audio (host memory, counted as if it were the device's, as it is on a CPU)."""

        def stage_bytes(name: str) -> int:
            config, weights = self.stages[name]
            rows = options.num_samples * self._sampling_of(options, name).rows.num
            return memory.window_bytes(config, rows, weights.packed)

        windows = sum(map(stage_bytes, options.stage_names))  # of all stages: `compile` runs them at the same time
        return windows + memory.audio_bytes(vocal_shape, sample_rate_hz, options.num_samples)

    def fitting(self, options: SamplingOptions, vocal_shape: tuple[int, int], sample_rate_hz: int) -> int:
        """How many samples at once the free memory has room for, `options.num_samples` at most."""
        available = memory.available_bytes()
        if available is None:
            return options.num_samples

        def fits(num_samples: int) -> bool:
            fewer = replace(options, num_samples=num_samples)
            return self.needed_bytes(fewer, vocal_shape, sample_rate_hz) <= available

        return next(filter(fits, range(options.num_samples, 0, -1)), 0)

    def check_memory(self, options: SamplingOptions, vocal_shape: tuple[int, int], sample_rate_hz: int) -> None:
        """Raises InputError where so many samples at once do not fit; its message says how many would."""
        most = self.fitting(options, vocal_shape, sample_rate_hz)
        if most == options.num_samples:
            return
        needed, available = self.needed_bytes(options, vocal_shape, sample_rate_hz), memory.available_bytes()
        raise InputError(
            f"{options.num_samples} samples at once need {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are "
            f"free; " + (f"{most} would fit: draw them with several seeds" if most else "not even one fits: free some")
        )

    def compile(
        self, cells: int, options: SamplingOptions = DEFAULT_OPTIONS, *, progress: Progress = _no_progress
    ) -> None:
        """Compile all that a call with the same options and a vocal of `cells` runs, the stages at the same time.

        Optional: a call compiles what is missing, but one stage after the other. progress counts stages.
        """
        wanted = self.stage_cells(cells, options)
        progress("compile", 0, len(wanted))
        with ThreadPoolExecutor(len(wanted)) as pool:
            jobs = []
            for name, stage_cells in wanted.items():
                config, weights = self.stages[name]
                known = {w.known - w.start for w in plan_windows(stage_cells, config.window_cells)}
                how = self._sampling_of(options, name)
                jobs.append(pool.submit(decode.compile_window, config, weights, options.num_samples, how, known))
            for job in as_completed(jobs):
                job.result()
                progress("compile", 1, len(jobs))

    def __call__(
        self,
        vocal: np.ndarray,
        sample_rate_hz: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seed: int = 0,
        given: Mapping[str, np.ndarray] = MappingProxyType({}),
        progress: Progress = _no_progress,
    ) -> np.ndarray:
        """The accompaniment of a vocal float32 [C, S]: float32 [B, S24] at 24 kHz, exactly the vocal's duration."""
        samples = resampled_length(vocal.shape[-1], sample_rate_hz, CODEC_SAMPLE_RATE_HZ)
        cells = num_cells(samples, CODEC_SAMPLE_RATE_HZ)
        codes = self.tokens(vocal, sample_rate_hz, cells, options, seed=seed, given=given, progress=progress)
        return self.codec.decode(codes)[:, :samples]

    def tokens(
        self,
        vocal: np.ndarray,
        sample_rate_hz: int,
        cells: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seed: int = 0,
        given: Mapping[str, np.ndarray] = MappingProxyType({}),
        progress: Progress = _no_progress,
    ) -> np.ndarray:
        """Acoustic tokens int32 [B, 3 * cells, 8 (4 without the fine stage)] for the vocal's first `cells` cells."""
        return self.tokens_of_each(
            [vocal], sample_rate_hz, cells, options, seeds=[seed], given=given, progress=progress
        )

    def tokens_of_each(
        self,
        vocals: Sequence[np.ndarray],
        sample_rate_hz: int,
        cells: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seeds: Sequence[int],
        given: Mapping[str, np.ndarray] = MappingProxyType({}),
        progress: Progress = _no_progress,
    ) -> np.ndarray:
        """`tokens` of N vocals at once, each with its seed: the same as one by one, in less time.

        int32 [N * B, 3 * cells, 8 (4)], the samples of a vocal in a row; so are the rows of `given`.
        """
        streams = self.generate_streams(
            vocals, sample_rate_hz, cells, options, seeds=seeds, given=given, progress=progress
        )
        acoustic = [streams[name] for name in ACOUSTIC[: 1 if options.skip_fine else 2]]
        frames = [tokens[:, : cells * STAGES["coarse"].target.frames_per_cell] for tokens in acoustic]
        return np.concatenate(frames, axis=-1)

    def generate_streams(
        self,
        vocals: Sequence[np.ndarray],
        sample_rate_hz: int,
        cells: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seeds: Sequence[int],
        given: Mapping[str, np.ndarray] = MappingProxyType({}),
        progress: Progress = _no_progress,
    ) -> dict[str, np.ndarray]:
        """The tokens behind `tokens_of_each` by stream: int32 [N * B, F_s, K_s] of all cells that the stages fill.

        A stage runs where its tokens are neither given nor left without a use by those that are; one that does not run
        changes no draw of the others. So tokens of one call, given to another, lead to the same tokens of the stages
        after them. Raises InputError where `given` does not fit.
        """
        wanted = self.stage_cells(cells, options)
        targets = {name: STAGES[name].target for name in wanted}
        batch = len(vocals) * options.num_samples
        shapes = {t.name: (batch, wanted[name] * t.frames_per_cell, t.codebooks) for name, t in targets.items()}
        given = _check_given(given, shapes)
        # Silence follows a vocal that is shorter than what the stages fill.
        padded = max(*wanted.values(), self.stages["semantic"][0].window_cells)
        semantic = []
        for vocal, seed in zip(vocals, seeds, strict=True):
            missing = -(-padded * sample_rate_hz // CELLS_PER_S) - vocal.shape[-1]
            mono = np.pad(to_mono(vocal), (0, max(0, missing)))
            tokens = vocal_tokens(self.tokenizer, mono, sample_rate_hz, seed=seed)
            semantic.append(tokens[: padded * STAGES["semantic"].conditions[0].frames_per_cell, None])
        streams = {"vocal_semantic": np.repeat(np.stack(semantic), options.num_samples, axis=0)} | given
        roots = jnp.repeat(jnp.stack([jax.random.key(seed) for seed in seeds]), options.num_samples)
        samples = jnp.tile(jnp.arange(options.num_samples), len(vocals))
        needed = _needed_streams(wanted, given)
        for i, (name, target) in enumerate(targets.items()):
            if target.name in given or target.name not in needed:
                continue
            config, weights = self.stages[name]
            # One key a sample, so that a sample does not depend on how many are drawn beside it.
            keys = jax.vmap(lambda root, sample, i=i: jax.random.fold_in(jax.random.fold_in(root, i), sample))(
                roots, samples
            )
            total = wanted[name] * target.frames_per_cell
            streams[target.name] = generate_stage(
                config,
                weights,
                streams,
                wanted[name],
                keys,
                self._sampling_of(options, name),
                lambda frames, name=name, total=total: progress(name, frames, total),
            )
        return streams
