"""Vocal in, accompaniment out: the three stages over windows. The Python API.

    accompanist = Accompanist.load("hafm_jax/demo")
    result = accompanist(vocal, sample_rate_hz, seed=1)  # vocal: float32 [C, S]

A song longer than a stage's window is covered by windows that overlap; what is already generated stands as given in
the next one, and every stage cuts its conditions by the same clock of cells.

Axes: B samples drawn for one vocal, C channels, S samples of audio, F frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from hafm_jax.streams import CELLS_PER_S, CODEC_SAMPLE_RATE_HZ, STAGES, num_cells
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


def _stage_names(skip_fine: bool) -> list[str]:
    return [name for name in STAGES if not (skip_fine and name == "fine")]


@dataclass(frozen=True)
class Accompanist:
    """A loaded model: stages (config and prepared weights), tokenizer and codec; `sampling` by stage is its own way to
    draw, which a call can take or leave."""

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

    def _sampling_of(self, asked: Sampling | dict[str, Sampling] | None, stage: str) -> Sampling:
        """What a call is `asked` for: one for all stages, one a stage, or None, the model's own."""
        return asked if isinstance(asked, Sampling) else (asked or self.sampling)[stage]

    def stage_cells(self, cells: int, skip_fine: bool) -> dict[str, int]:
        """How many cells each stage fills for `cells` of music: at least a window of the next one."""
        names = _stage_names(skip_fine)
        following = [self.stages[name][0].window_cells for name in names[1:]]
        return dict(zip(names, [max(cells, window) for window in [*following, cells]], strict=True))

    def needed_bytes(
        self,
        num_samples: int,
        sampling: Sampling | dict[str, Sampling] | None,
        skip_fine: bool,
        vocal_shape: tuple[int, int],
        sample_rate_hz: int,
    ) -> int:
        """What generating for a vocal [C, S] takes of memory beside the loaded model: windows, however long it is, and
        audio (that is the host's memory, counted as if it were the device's, as it is on a CPU)."""

        def stage_bytes(name: str) -> int:
            config, weights = self.stages[name]
            rows = num_samples * self._sampling_of(sampling, name).rows.num
            return memory.window_bytes(config, rows, weights.packed)

        windows = sum(map(stage_bytes, _stage_names(skip_fine)))  # of all stages: `compile` runs them at the same time
        return windows + memory.audio_bytes(vocal_shape, sample_rate_hz, num_samples)

    def fitting(self, num_samples: int, **request: Any) -> int:
        """How many samples at once the free memory has room for, `num_samples` at most; request: the other arguments
        of `needed_bytes`."""
        available = memory.available_bytes()
        if available is None:
            return num_samples
        return next((n for n in range(num_samples, 0, -1) if self.needed_bytes(n, **request) <= available), 0)

    def check_memory(self, num_samples: int, **request: Any) -> None:
        """Raises InputError where so many samples at once do not fit, saying how many would; request: as above."""
        most = self.fitting(num_samples, **request)
        if most == num_samples:
            return
        needed, available = self.needed_bytes(num_samples, **request), memory.available_bytes()
        raise InputError(
            f"{num_samples} samples at once need {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free; "
            + (f"{most} would fit: draw them with several seeds" if most else "not even one fits: free some")
        )

    def compile(
        self,
        cells: int,
        *,
        num_samples: int = 1,
        sampling: Sampling | dict[str, Sampling] | None = None,
        skip_fine: bool = False,
        progress: Progress = lambda stage, done, total: None,
    ) -> None:
        """Compile all that a call with the same arguments and a vocal of `cells` runs, the stages at the same time.

        Optional: a call compiles what is missing, but one stage after the other. progress counts stages.
        """
        wanted = self.stage_cells(cells, skip_fine)
        progress("compile", 0, len(wanted))
        with ThreadPoolExecutor(len(wanted)) as pool:
            jobs = []
            for name, stage_cells in wanted.items():
                config, weights = self.stages[name]
                given = {w.known - w.start for w in plan_windows(stage_cells, config.window_cells)}
                how = self._sampling_of(sampling, name)
                jobs.append(pool.submit(decode.compile_window, config, weights, num_samples, how, given))
            for job in as_completed(jobs):
                job.result()
                progress("compile", 1, len(jobs))

    def __call__(
        self,
        vocal: np.ndarray,
        sample_rate_hz: int,
        *,
        seed: int = 0,
        num_samples: int = 1,
        sampling: Sampling | dict[str, Sampling] | None = None,
        skip_fine: bool = False,
        progress: Progress = lambda stage, done, total: None,
    ) -> np.ndarray:
        """The accompaniment of a vocal float32 [C, S]: float32 [B, S24] at 24 kHz, exactly the vocal's duration.

        sampling: one for all stages, or one a stage name, or None, the model's own; skip_fine: the coarse codebooks
        alone; num_samples: B.
        """
        num_samples_out = resampled_length(vocal.shape[-1], sample_rate_hz, CODEC_SAMPLE_RATE_HZ)
        cells = num_cells(num_samples_out, CODEC_SAMPLE_RATE_HZ)
        codes = self.tokens(
            vocal,
            sample_rate_hz,
            cells,
            seed=seed,
            num_samples=num_samples,
            sampling=sampling,
            skip_fine=skip_fine,
            progress=progress,
        )
        return self.codec.decode(codes)[:, :num_samples_out]

    def tokens(
        self,
        vocal: np.ndarray,
        sample_rate_hz: int,
        cells: int,
        *,
        seed: int = 0,
        num_samples: int = 1,
        sampling: Sampling | dict[str, Sampling] | None = None,
        skip_fine: bool = False,
        progress: Progress = lambda stage, done, total: None,
    ) -> np.ndarray:
        """Acoustic tokens int32 [B, 3 * cells, 8 (4 without the fine stage)] for the vocal's first `cells` cells."""
        options = {"num_samples": num_samples, "sampling": sampling, "skip_fine": skip_fine, "progress": progress}
        return self.tokens_of_each([vocal], sample_rate_hz, cells, seeds=[seed], **options)

    def tokens_of_each(
        self,
        vocals: Sequence[np.ndarray],
        sample_rate_hz: int,
        cells: int,
        *,
        seeds: Sequence[int],
        num_samples: int = 1,
        sampling: Sampling | dict[str, Sampling] | None = None,
        skip_fine: bool = False,
        progress: Progress = lambda stage, done, total: None,
    ) -> np.ndarray:
        """`tokens` of several vocals at once, each with its seed: the same as one by one, in less time.

        int32 [N * B, 3 * cells, 8 (4)], the samples of a vocal in a row.
        """
        wanted = self.stage_cells(cells, skip_fine)
        # Silence follows a vocal that is shorter than what the stages fill.
        padded = max(*wanted.values(), self.stages["semantic"][0].window_cells)
        semantic = []
        for vocal, seed in zip(vocals, seeds, strict=True):
            missing = -(-padded * sample_rate_hz // CELLS_PER_S) - vocal.shape[-1]
            mono = np.pad(to_mono(vocal), (0, max(0, missing)))
            tokens = vocal_tokens(self.tokenizer, mono, sample_rate_hz, seed=seed)
            semantic.append(tokens[: padded * STAGES["semantic"].conditions[0].frames_per_cell, None])
        streams = {"vocal_semantic": np.repeat(np.stack(semantic), num_samples, axis=0)}
        roots = jnp.repeat(jnp.stack([jax.random.key(seed) for seed in seeds]), num_samples)
        samples = jnp.tile(jnp.arange(num_samples), len(vocals))
        for i, name in enumerate(wanted):
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
                self._sampling_of(sampling, name),
                lambda frames, name=name, total=total: progress(name, frames, total),
            )
        acoustic = [streams["coarse"]] if skip_fine else [streams["coarse"], streams["fine"]]
        frames = [tokens[:, : cells * STAGES["coarse"].target.frames_per_cell] for tokens in acoustic]
        return np.concatenate(frames, axis=-1)
