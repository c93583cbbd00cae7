"""Vocal in, accompaniment out: the Python API.

    import hafm_jax

    model = hafm_jax.load()  # the shipped demo; or a model directory, or a Hub id
    band = model("take.m4a", seed=1)  # or model((array, rate_hz), seed=1)
    band.save("mix.wav")

Axes: N vocals, B samples drawn for one vocal, C channels, S samples of audio, F frames, K codebooks.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import hafm_jax
from hafm_jax.audio.files import resample, resampled_length
from hafm_jax.audio.reading import LEAST_RATE_HZ, MOST_RATE_HZ
from hafm_jax.audio.tuning import rate_in_tune
from hafm_jax.audio.vocals import Vocal, vocal_of
from hafm_jax.band import Band
from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import InputError
from hafm_jax.common.options import check_number
from hafm_jax.generation import Generator, Progress, acoustic_tokens, band_cells, no_progress
from hafm_jax.model import ranges
from hafm_jax.model.options import DEFAULT_OPTIONS, SamplingOptions
from hafm_jax.model.pretrained import digest_of, load_model
from hafm_jax.model.weights import Weights
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ, STAGES
from hafm_jax.tokenizers.codecs import load_codec
from hafm_jax.tokenizers.semantic import load_semantic

VocalLike = str | Path | tuple[Any, int] | Vocal  # a path, (array [S], [S, C] or [C, S], rate in Hz)


def load(source: str | os.PathLike[str] = "demo") -> Accompanist:
    """A model: "demo" (the shipped one), a model directory, or a Hub id OWNER/NAME or OWNER/NAME@REVISION.

    Compiled programs are kept in the cache folder for the next process. Raises InputError where a part is missing or
    does not fit.
    """
    use_compilation_cache()
    return Accompanist.load(source)


@dataclass(frozen=True)
class Accompanist(Generator):
    """A loaded model: `source` as it was given to `load`, and the digest of what was read.

    Arguments of several methods:

    - seed: the same seed draws the same tokens; 0 to 2**31 - 1.
    - progress: called with a stage's name, the frames just done and the total of frames; before it with "compile" and
      stages. What it raises ends the work and is raised to the caller; the model can be used again.
    """

    source: str
    sha256: str

    @classmethod
    def load(cls, source: str | os.PathLike[str] = "demo") -> Accompanist:
        """`hafm_jax.load` without the compilation cache."""
        if not isinstance(source, str | os.PathLike):
            raise InputError(f"the model is {source!r}; expected demo, a folder, or a Hub id OWNER/NAME")
        source = os.fspath(source)
        pretrained = load_model(source)
        return cls(
            {name: (s.config, Weights.prepare(s.config, s.params)) for name, s in pretrained.stages.items()},
            load_semantic(pretrained.directory / "semantic"),
            load_codec(pretrained.directory / "codec"),
            {name: s.sampling for name, s in pretrained.stages.items()},
            source,
            digest_of(pretrained.directory),
        )

    def __call__(
        self,
        vocal: VocalLike,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seed: int = 0,
        rate_in_tune_hz: int | None = None,
        progress: Progress | None = None,
    ) -> Band:
        """The band for a vocal, of exactly its duration.

        A model plays in the tuning of its songs, A = 440 Hz. For a vocal in another one it accompanies what the vocal
        would be at `rate_in_tune_hz`, by default that of `audio.tuning.rate_in_tune`, and the band is then resampled as
        a tape is slowed down or sped up: it has the vocal's tuning, and its time. Pass the vocal's rate to leave it.

        Warns where the vocal is silent or its file damaged. Raises InputError where an argument cannot be used, and
        where the memory does not suffice.
        """
        return self.takes(vocal, 1, options, seed=seed, rate_in_tune_hz=rate_in_tune_hz, progress=progress)[0]

    def takes(
        self,
        vocal: VocalLike,
        number: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seed: int = 0,
        rate_in_tune_hz: int | None = None,
        progress: Progress | None = None,
    ) -> list[Band]:
        """Different bands for a vocal, drawn at once; the first is that of a call, and none depends on `number`: on a
        CPU up to 42 (model/cpu/kernels.py: few rows)."""
        check_number("the number of takes", number, int, 1, 2**16)
        return self._bands([vocal], number, options, [seed], rate_in_tune_hz, progress)[0]

    def takes_of_each(
        self,
        vocals: Sequence[VocalLike],
        number: int,
        options: SamplingOptions = DEFAULT_OPTIONS,
        *,
        seeds: Sequence[int],
        rate_in_tune_hz: int | None = None,
        progress: Progress | None = None,
    ) -> list[list[Band]]:
        """`takes` of each of N vocals, with its seed: bit for bit the same, in less time where vocals have the same
        number of cells (of 40 ms) and the same rate in tune. `rate_in_tune_hz` is that of all."""
        check_number("the number of takes", number, int, 1, 2**16)
        lists = (list, tuple)
        if not isinstance(vocals, lists) or not isinstance(seeds, lists) or len(vocals) != len(seeds):
            raise InputError("vocals and seeds are not two lists of one length; expected a seed for each vocal")
        return self._bands(vocals, number, options, seeds, rate_in_tune_hz, progress)

    def _bands(
        self,
        given: Sequence[VocalLike],
        takes: int,
        options: SamplingOptions,
        seeds: Sequence[int],
        rate_in_tune_hz: int | None,
        progress: Progress | None,
    ) -> list[list[Band]]:
        """Of N vocals, `takes` of each."""
        if not isinstance(options, SamplingOptions):
            raise InputError(f"the options are {options!r}; expected SamplingOptions")
        if options.num_samples != 1:
            raise InputError(f"num_samples is {options.num_samples}; expected 1 here: call takes() for several bands")
        for seed in seeds:
            check_number("seed", seed, *ranges.SEED)
        if rate_in_tune_hz is not None:
            check_number("rate_in_tune_hz", rate_in_tune_hz, int, LEAST_RATE_HZ, MOST_RATE_HZ)
        if progress is not None and not callable(progress):
            raise InputError(f"progress is {progress!r}; expected a function of stage, frames done and frames in all")
        groups: dict[tuple[int, int], list[int]] = {}
        vocals = [vocal_of(vocal) for vocal in given]
        for i, vocal in enumerate(vocals):
            if not isinstance(given[i], Vocal):
                for note in vocal.notes:
                    warnings.warn(note, stacklevel=4)
            played_hz = rate_in_tune_hz or rate_in_tune(vocal.audio, vocal.rate_hz)
            groups.setdefault((band_cells(vocal.audio.shape[1], played_hz), played_hz), []).append(i)
        bands: dict[int, list[Band]] = {}
        for (cells, played_hz), members in groups.items():
            together = replace(options, num_samples=takes * len(members))
            longest = max((vocals[i] for i in members), key=lambda vocal: vocal.audio.size)
            self.check_memory(together, longest.audio.shape, longest.rate_hz)
            self.compile(cells, together, progress=progress or no_progress)
            streams = self.generate_streams(
                [vocals[i].audio for i in members],
                played_hz,
                cells,
                replace(options, num_samples=takes),
                seeds=[seeds[i] for i in members],
                progress=progress or no_progress,
            )
            for row, i in enumerate(members):
                bands[i] = []
                for take in range(takes):
                    tokens = {
                        name: streams[name][row * takes + take]
                        for name in (STAGES[stage].target.name for stage in options.stage_names)
                    }
                    settings = self._settings(vocals[i], options, seeds[i], take + 1, played_hz)
                    audio = self._played(tokens, cells, vocals[i], played_hz)
                    bands[i].append(Band(audio, tokens, vocals[i], settings))
        return [bands[i] for i in range(len(vocals))]

    def _played(self, tokens: Mapping[str, np.ndarray], cells: int, vocal: Vocal, played_hz: int) -> np.ndarray:
        """float32 [S] at 24 kHz, of the vocal's duration and tuning."""
        samples = resampled_length(vocal.audio.shape[1], vocal.rate_hz, CODEC_SAMPLE_RATE_HZ)
        decoded = self.codec.decode(acoustic_tokens({name: row[None] for name, row in tokens.items()}, cells))[0]
        if played_hz == vocal.rate_hz:
            return decoded[:samples]
        band = np.zeros(samples, np.float32)  # lengths are rounded twice: a last sample may be lacking
        slowed = resample(decoded, vocal.rate_hz, played_hz)[:samples]
        band[: slowed.size] = slowed
        return band

    def _settings(self, vocal: Vocal, options: SamplingOptions, seed: int, take: int, played_hz: int) -> dict[str, Any]:
        """All that it takes to make a band again, JSON-able."""
        sampling = {name: self.sampling_of(options, name)._asdict() for name in options.stage_names}
        return {
            "model": {"source": self.source, "sha256": self.sha256},
            "vocal": vocal.facts(),
            "seed": int(seed),
            "take": take,
            "skip_fine": options.skip_fine,
            "sampling": {name: {k: np.asarray(v).item() for k, v in how.items()} for name, how in sampling.items()},
            "rate_in_tune_hz": int(played_hz),
            "versions": {
                "hafm_jax": hafm_jax.__version__,
                "jax": jax.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
