"""Accompany a voice: python -m hafm_jax.sample --vocal in.wav

Writes mix.wav (the voice with its band) and mix_instrumental.wav (the band alone), 24 kHz, of exactly the vocal's
duration. Reads any audio file that libsndfile knows, mono or stereo, at any rate. The voice should be isolated: a
singer without other instruments.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

STARTED_S = time.monotonic()
STAGE_NAMES = ("semantic", "coarse", "fine")  # hafm_jax.streams has them too; --help is to come at once


def _number(kind: type, low: float, high: float):
    """An argparse type: a number of `kind` in low..high."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            upper = "" if high == math.inf else f" to {high}"
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from {low}{upper}")
        return value

    return parse


def _by_stage(parse):
    """An argparse type for one of several values: VALUE, or STAGE=VALUE -> (stage or None for all, value)."""

    def parse_one(text: str):
        stage, equals, value = text.rpartition("=")
        if equals and stage not in STAGE_NAMES:
            raise argparse.ArgumentTypeError(f"found stage {stage!r}, expected one of {', '.join(STAGE_NAMES)}")
        return stage or None, parse(value)

    return parse_one


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m hafm_jax.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("--vocal", type=Path, required=True, help="the singing voice: wav, flac, ogg, mp3, ...")
    add("--out", type=Path, default=Path("mix.wav"), help="the mix, wav or flac (default: mix.wav)")
    add("--model", help="model directory, or Hugging Face Hub id OWNER/NAME (default: the demo model in the package)")
    add("--seed", type=_number(int, 0, 2**31 - 1), default=0, help="same seed, same music (default: 0)")
    how = p.add_argument_group(
        "how tokens are drawn", "For all stages, or some: --temperature 0.8 or --temperature semantic=0.7 coarse=0.9. "
        "Defaults are the model's own."
    )  # fmt: skip
    for name, kind, low, high, text in (
        ("guidance-scale", float, 0, 100, "how strongly to follow the voice; 1 is off, and faster"),
        (
            "no-history-scale",
            float,
            0,
            100,
            "how much to follow the voice alone, without what was played before; 0 is off",
        ),
        ("temperature", float, 0, 100, "0 always takes the likeliest token; higher is wilder"),
        ("top-k", int, 0, 10**6, "draw among the k likeliest tokens; 0 is off"),
        ("top-p", float, 1e-6, 1, "draw among the likeliest tokens that hold this share of the probability; 1 is off"),
    ):
        parse = _by_stage(_number(kind, low, high))
        how.add_argument(f"--{name}", type=parse, nargs="+", default=[], metavar="[STAGE=]X", help=text)
    add("--seconds", type=_number(float, 0.04, math.inf), help="only the voice's first seconds (default: all of it)")
    add(
        "--num-samples",
        type=_number(int, 1, 64),
        default=1,
        help="different accompaniments to draw at once, numbered mix_1.wav, mix_2.wav, ... (default: 1)",
    )
    add("--skip-fine", action="store_true", help="the coarse codebooks alone: faster, rougher sound")
    return p


def output_paths(out: Path, num_samples: int) -> list[tuple[Path, Path]]:
    """(mix, instrumental) of each sample."""
    stems = [out.stem] if num_samples == 1 else [f"{out.stem}_{i}" for i in range(1, num_samples + 1)]
    return [(out.with_name(f"{s}{out.suffix}"), out.with_name(f"{s}_instrumental{out.suffix}")) for s in stems]


class Progress:
    """A bar from the first report on; as text, how far the run is."""

    bar = None

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(leave=False)
        if self.bar.desc != f"{what}: ":
            self.bar.reset(total=total)
            self.bar.set_description(what)
        self.bar.update(done)

    def __str__(self) -> str:
        return "loading" if self.bar is None else f"{self.bar.desc}{100 * self.bar.n // self.bar.total} % done"

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def main(argv: list[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    progress, written = Progress(), []
    try:
        accompany(arguments, progress, written)
    except KeyboardInterrupt as interrupt:
        progress.close()
        outputs = [path for pair in output_paths(arguments.out, arguments.num_samples) for path in pair]
        missing = ", ".join(str(path) for path in outputs if path not in written)
        files = f"written: {', '.join(map(str, written))}; not written: {missing}" if written else "nothing written"
        raise KeyboardInterrupt(f"{progress}, {files}") from interrupt


def accompany(arguments: argparse.Namespace, progress: Progress, written: list[Path]) -> None:
    """What the command does; each file that is whole is added to `written`."""
    import numpy as np

    from hafm_jax.accompany import Accompanist, SamplingOptions
    from hafm_jax.audio import files
    from hafm_jax.common.cache import use_compilation_cache
    from hafm_jax.common.errors import InputError
    from hafm_jax.model import memory
    from hafm_jax.model.cpu import kernels
    from hafm_jax.model.pretrained import DEMO
    from hafm_jax.model.sampling import Sampling
    from hafm_jax.streams import CELLS_PER_S, CODEC_SAMPLE_RATE_HZ, num_cells

    vocal, rate_hz = files.read_audio(arguments.vocal, arguments.seconds or math.inf)
    if arguments.seconds:
        vocal = vocal[:, : round(arguments.seconds * rate_hz)]
    if vocal.shape[1] * CELLS_PER_S < rate_hz:
        raise InputError(
            f"{arguments.vocal} is {1000 * vocal.shape[1] / rate_hz:.0f} ms long; expected at least one cell of 40 ms"
        )
    if np.max(np.abs(vocal)) < 1e-4:
        print(f"warning: {arguments.vocal} is silent: the band has nothing to go with", file=sys.stderr)
    files.check_writable(arguments.out)
    use_compilation_cache()
    accompanist = Accompanist.load(arguments.model or str(DEMO))
    sampling = dict(accompanist.sampling)
    for name in Sampling._fields:
        for stage, value in getattr(arguments, name):
            for one in [stage] if stage else sampling:
                sampling[one] = sampling[one]._replace(**{name: value})
    loaded_s = time.monotonic()
    if reason := kernels.load():
        print(f"note: decoding at XLA's own speed, without this package's kernels: {reason}", file=sys.stderr)

    options = SamplingOptions(arguments.num_samples, sampling, arguments.skip_fine)
    accompanist.check_memory(options, vocal.shape, rate_hz)
    needed_gb = accompanist.needed_bytes(options, vocal.shape, rate_hz) / 1e9
    audio_gb = memory.audio_bytes(vocal.shape, rate_hz, arguments.num_samples) / 1e9
    print(
        f"generating takes at most {needed_gb:.2f} GB of memory beside the model: {audio_gb:.2f} GB for audio, "
        "the rest however long the voice is"
    )
    cells = num_cells(files.resampled_length(vocal.shape[1], rate_hz, CODEC_SAMPLE_RATE_HZ), CODEC_SAMPLE_RATE_HZ)
    accompanist.compile(cells, options, progress=progress)
    compiled_s = time.monotonic()
    instrumentals = accompanist(vocal, rate_hz, options, seed=arguments.seed, progress=progress)
    progress.close()
    generated_s = time.monotonic()
    vocal = files.resample(vocal, rate_hz, CODEC_SAMPLE_RATE_HZ)
    for instrumental, (mix_path, instrumental_path) in zip(
        instrumentals, output_paths(arguments.out, arguments.num_samples), strict=True
    ):
        mixed = files.mix(vocal, instrumental, CODEC_SAMPLE_RATE_HZ)
        for path, audio in ((instrumental_path, mixed.instrumental), (mix_path, mixed.audio)):
            files.write_audio(path, audio, CODEC_SAMPLE_RATE_HZ)
            written.append(path)
        print(f"{mix_path}  {instrumental_path}")
    duration_s = vocal.shape[-1] / CODEC_SAMPLE_RATE_HZ * arguments.num_samples
    total_s = time.monotonic() - STARTED_S
    print(
        f"{duration_s:.1f} s of music in {total_s:.1f} s: {loaded_s - STARTED_S:.1f} s to load, "
        f"{compiled_s - loaded_s:.1f} s to compile, {generated_s - compiled_s:.1f} s to generate "
        f"(real-time factor {(generated_s - compiled_s) / duration_s:.2f})"
    )


if __name__ == "__main__":
    from hafm_jax.common.errors import run_command

    run_command(main)
