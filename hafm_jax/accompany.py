"""Vocal in, accompaniment out: the Python API.

    from hafm_jax import Accompanist, SamplingOptions

    accompanist = Accompanist.load()  # the shipped demo; or a model directory, or a Hub id
    band = accompanist(vocal, rate_hz, SamplingOptions(num_samples=2), seed=1)  # float32 [C, S] -> [2, S at 24 kHz]

Axes: B samples drawn for one vocal, C channels, S samples of audio, F frames, K codebooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.audio.files import resample, resampled_length
from hafm_jax.audio.reading import Sound, read_sound
from hafm_jax.audio.tuning import rate_in_tune
from hafm_jax.common.errors import InputError
from hafm_jax.common.options import check_number, from_fields
from hafm_jax.model import decode, memory
from hafm_jax.model.config import StageConfig
from hafm_jax.model.pretrained import DEMO, load_model
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.weights import Weights
from hafm_jax.model.windows import generate_stage, plan_windows
from hafm_jax.streams import (
    CELLS_PER_S,
    CODEC_SAMPLE_RATE_HZ,
    SEMANTIC_SAMPLE_RATE_HZ,
    STAGES,
    STREAMS,
    num_cells,
    samples_per_cell,
)
from hafm_jax.tokenizers.codecs import Codec, load_codec
from hafm_jax.tokenizers.rests import fill_rests
from hafm_jax.tokenizers.semantic import (
    VOCAL_NOISE_SIGMA,
    SemanticTokenizer,
    clean_vocal,
    load_semantic,
    num_frames,
    with_noise,
)

Progress = Callable[[str, int, int], None]  # stage, frames just done, frames in all


class How(TypedDict, total=False):
    """Arguments that all methods which generate pass on to `Accompanist.generate_streams`."""

    given: Mapping[str, np.ndarray]
    progress: Progress


@dataclass(frozen=True)
class SamplingOptions:
    """What to draw: `num_samples` (B) accompaniments of each vocal; by `sampling`, the same for all stages or by stage
    name, and the model's own for a stage that is not named; with `skip_fine` only the coarse codebooks, which is faster
    and rougher.

    Raises InputError for a name that is not a stage's, and where a number is out of its range (model/ranges.py).
    """

    num_samples: int = 1
    sampling: Sampling | Mapping[str, Sampling] | None = None
    skip_fine: bool = False

    def __post_init__(self) -> None:
        check_number("num_samples", self.num_samples, int, 1, math.inf)
        named = {"": self.sampling} if isinstance(self.sampling, Sampling) else self.sampling or {}
        if unknown := sorted(set(named).difference({"", *STAGES})):
            raise InputError(f"sampling of {', '.join(unknown)} is given; expected stages: {', '.join(STAGES)}")
        for name, sampling in named.items():
            from_fields(Sampling.checked, sampling._asdict(), f"the {f'{name} ' * bool(name)}sampling")

    @property
    def stage_names(self) -> list[str]:
        return [name for name in STAGES if not (self.skip_fine and name == "fine")]


DEFAULT_OPTIONS = SamplingOptions()
STANDARD_INPUT = "/dev/stdin"
ACOUSTIC = ("coarse", "fine")  # the streams that the codec decodes


def _no_progress(stage: str, done: int, total: int) -> None:
    pass


def read_vocal(path: Path, seconds: float | None = None) -> Sound:
    """The vocal of an audio file or a pipe ("-" is the standard input), or its first `seconds`.

    Raises InputError where it cannot be read or is shorter than a cell.
    """
    vocal = read_sound(STANDARD_INPUT if str(path) == "-" else path, math.inf if seconds is None else seconds)
    num_samples, rate_hz = vocal.audio.shape[1], vocal.sample_rate_hz
    if num_samples * CELLS_PER_S < rate_hz:
        raise InputError(f"{path} is {1000 * num_samples / rate_hz:.0f} ms long; expected at least one cell of 40 ms")
    return vocal


def band_cells(num_samples: int, rate_hz: int) -> int:
    """The cells of the band for a vocal of so many samples."""
    return num_cells(resampled_length(num_samples, rate_hz, CODEC_SAMPLE_RATE_HZ), CODEC_SAMPLE_RATE_HZ)


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


def _stages_to_run(names: Sequence[str], given: Collection[str]) -> set[str]:
    """Those whose target is decoded, or read by another stage that runs, and is not given."""
    needed, run = set(ACOUSTIC), set()
    for stage in reversed([STAGES[name] for name in names]):
        if stage.target.name in needed.difference(given):
            run.add(stage.name)
            needed |= {stream.name for stream in stage.conditions}
    return run


@dataclass(frozen=True)
class Accompanist:
    """A loaded model: stages (config and prepared weights), tokenizer, codec, and each stage's own `sampling`.

    Arguments of several methods:

    - seed: the same seed draws the same tokens.
    - given: tokens that are used instead of drawn ones, int32 [B, F, K] by the name of a stage's target
      (`instrumental_semantic`, `coarse`, `fine`), for all cells that the stage fills: see `stage_cells`.
    - progress: called with a stage's name, the frames just done and the total of frames.
    """

    stages: dict[str, tuple[StageConfig, Weights]]
    tokenizer: SemanticTokenizer
    codec: Codec
    sampling: dict[str, Sampling]

    @classmethod
    def load(cls, source: str = str(DEMO)) -> Accompanist:
        """From a model directory or Hub id; the shipped demo by default.

        Raises InputError where a part is missing or does not fit.
        """
        pretrained = load_model(source)
        return cls(
            {name: (s.config, Weights.prepare(s.config, s.params)) for name, s in pretrained.stages.items()},
            load_semantic(pretrained.directory / "semantic"),
            load_codec(pretrained.directory / "codec"),
            {name: s.sampling for name, s in pretrained.stages.items()},
        )

    def _sampling_of(self, options: SamplingOptions, stage: str) -> Sampling:
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
            rows = options.num_samples * self._sampling_of(options, name).rows.num
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
        self, cells: int, options: SamplingOptions = DEFAULT_OPTIONS, *, progress: Progress = _no_progress
    ) -> None:
        """Compile everything that a call with the same options and a vocal of `cells` runs, all stages at once.

        Optional: a call compiles whatever is missing, but one stage after another. progress counts stages.
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
        rate_in_tune_hz: int | None = None,
        **how: Unpack[How],
    ) -> np.ndarray:
        """The accompaniment of a vocal float32 [C, S]: float32 [B, S24] at 24 kHz, of exactly the vocal's duration.

        A model plays in the tuning of its songs, A = 440 Hz. For a vocal in another one it accompanies what the vocal
        would be at `rate_in_tune_hz`, by default that of `audio.tuning.rate_in_tune`, and the band is then resampled as
        a tape is slowed down or sped up: it has the vocal's tuning, and its time. Pass `sample_rate_hz` to leave it.
        """
        played_hz = rate_in_tune(vocal, sample_rate_hz) if rate_in_tune_hz is None else rate_in_tune_hz
        samples = resampled_length(vocal.shape[-1], sample_rate_hz, CODEC_SAMPLE_RATE_HZ)
        cells = band_cells(vocal.shape[-1], played_hz)
        codes = self.tokens(vocal, played_hz, cells, options, seed=seed, **how)
        decoded = self.codec.decode(codes)
        if played_hz == sample_rate_hz:
            return decoded[:, :samples]
        bands = np.zeros((len(decoded), samples), np.float32)  # lengths are rounded twice: a last sample may be lacking
        for band, played in zip(bands, decoded, strict=True):
            slowed = resample(played, sample_rate_hz, played_hz)[:samples]
            band[: slowed.size] = slowed
        return bands

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
        streams = _check_given(given, shapes)
        vocal_cells = max(*wanted.values(), self.stages["semantic"][0].window_cells)
        semantic = self._vocal_semantic(vocals, sample_rate_hz, vocal_cells, seeds)
        streams["vocal_semantic"] = np.repeat(semantic, options.num_samples, axis=0)
        roots = jnp.repeat(jnp.stack([jax.random.key(seed) for seed in seeds]), options.num_samples)
        samples = jnp.tile(jnp.arange(options.num_samples), len(vocals))
        to_run = _stages_to_run(list(wanted), given)
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
                self._sampling_of(options, name),
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
