"""Accompany a singing voice: hafm sample --vocal in.wav

Writes mix.wav (the voice with its band), mix_instrumental.wav (the band alone) and mix.json (how they were made), at
the vocal's own rate and exactly as long as it; in the mix the voice is as it came, but for its level. The vocal is any
audio file (wav, flac, mp3, m4a, ogg, ...) or a pipe, mono or stereo, at any rate. It should be an isolated voice,
without other instruments: separate a song first (tokenize/separate_stems.py).

Three stages draw tokens one after another: `semantic` decides the music (key, chords, beat), `coarse` its sound,
`fine` the details of the sound. The same seed gives the same music; draw several and keep the one you like.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hafm_jax.common.options import local_path, number
from hafm_jax.common.outputs import check_room
from hafm_jax.model import ranges
from hafm_jax.streams import STAGES

if TYPE_CHECKING:
    from hafm_jax.model.options import SamplingOptions

OUT = Path("mix.wav")
STARTED_S = time.monotonic()  # before JAX is imported, which takes part of the time to load

EXAMPLES = """examples:
  a first impression of ten seconds, in rougher sound:
    hafm sample --vocal in.wav --seconds 10 --skip-fine
  four bands to choose from, mix_1.wav to mix_4.wav:
    hafm sample --vocal in.wav --num-samples 4
  closer to the voice, and safer choices in the music than in the sound:
    hafm sample --vocal in.wav --guidance-scale 3 --temperature semantic=0.7 coarse=0.9 fine=0.9
  a model of your own (hafm export writes it):
    hafm sample --vocal in.wav --model MODEL --out song.flac
  an mp3 as loud as streaming services play it, the voice further in front:
    hafm sample --vocal in.wav --out song.mp3 --loudness -14 --balance-lu 4
"""


def _by_stage(parse):
    """An argparse type for one of several values: VALUE, or STAGE=VALUE -> (stage or None for all, value)."""

    def parse_one(text: str):
        stage, equals, value = text.rpartition("=")
        if equals and stage not in STAGES:
            raise argparse.ArgumentTypeError(f"found stage {stage!r}, expected one of {', '.join(STAGES)}")
        return stage or None, parse(value)

    return parse_one


SAMPLING = {  # field of Sampling -> its help
    "guidance_scale": "how closely to follow the voice; 1 is off, and faster",
    "no_history_scale": "how much to follow the voice alone, without the band's own past: brings a band back that has "
    "lost the voice; 0 is off",
    "temperature": "0 always takes the likeliest token; higher is more varied, and riskier",
    "top_k": "draw among the k likeliest tokens; 0 is off",
    "top_p": "draw among the likeliest tokens that hold this share of the probability; 1 is off",
}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm sample",
        allow_abbrev=False,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("--vocal", type=local_path, metavar="FILE", required=True, help="the singing voice; - is the standard input")
    add(
        "--out",
        type=local_path,
        metavar="FILE",
        help="the mix: wav, flac, ogg, opus or mp3 (default: mix.wav, or mix-2.wav, ... where that is there)",
    )
    add("--force", action="store_true", help="replace outputs that are there")
    add(
        "--model",
        metavar="MODEL",
        default="demo",
        help="demo (the default, in the package), a model directory, or a Hub id OWNER/NAME or OWNER/NAME@REVISION",
    )
    add("--seed", type=number(*ranges.SEED), metavar="N", default=0, help="same seed, same music (default: 0)")
    add("--seconds", type=number(float, 0.04, math.inf), metavar="S", help="only the first S seconds (default: all)")
    add(
        "--num-samples",
        type=number(int, 1, 64),
        metavar="N",
        default=1,
        help="different accompaniments to draw at once, numbered mix_1.wav, mix_2.wav, ... (default: 1)",
    )
    add("--skip-fine", action="store_true", help="leave out the fine stage: faster, rougher sound")
    mix = p.add_argument_group("the mix")
    mix.add_argument(
        "--balance-lu",
        type=number(*ranges.MIX["balance_lu"]),
        metavar="LU",
        default=2.0,
        help="loudness of the voice above the band's (default: 2)",
    )
    mix.add_argument(
        "--loudness",
        type=number(*ranges.MIX["loudness_lufs"]),
        metavar="LUFS",
        help="integrated loudness of the mix, as far as a peak of -1 dBFS allows (default: the voice keeps its level)",
    )
    mix.add_argument(
        "--rate",
        type=number(*ranges.MIX["rate_hz"]),
        metavar="HZ",
        help="rate of the files (default: the vocal's; 24000 is that of the band)",
    )
    mix.add_argument(
        "--bits",
        type=int,
        choices=(16, 24, 32),
        default=16,
        help="of wav and flac; 32, wav alone, is float (default: 16)",
    )
    how = p.add_argument_group(
        "how tokens are drawn",
        "For all stages, or for some: --temperature 0.8, or --temperature semantic=0.7 coarse=0.9.\n"
        "The defaults are the model's own (config.json in its directory).",
    )
    for name, text in SAMPLING.items():
        option, parse = f"--{name.replace('_', '-')}", number(*ranges.SAMPLING[name])
        how.add_argument(option, type=_by_stage(parse), nargs="+", default=[], metavar="[STAGE=]X", help=text)
    return p


def outputs_of(out: Path, num_samples: int) -> list[tuple[Path, Path, Path]]:
    """(mix, instrumental, settings) of each sample."""
    from hafm_jax.band import output_paths

    numbers = [""] if num_samples == 1 else [f"_{i}" for i in range(1, num_samples + 1)]
    return [output_paths(out.with_name(f"{out.stem}{number}{out.suffix}")) for number in numbers]


def free_outputs(out: Path, num_samples: int) -> list[tuple[Path, Path, Path]]:
    """`outputs_of` the first of mix.wav, mix-2.wav, mix-3.wav, ... of which no file is there."""
    names = itertools.chain([out], (out.with_name(f"{out.stem}-{i}{out.suffix}") for i in itertools.count(2)))
    found = (outputs_of(name, num_samples) for name in names)
    return next(each for each in found if not any(os.path.lexists(path) for paths in each for path in paths))


def check_outputs(arguments: argparse.Namespace) -> list[tuple[Path, Path, Path]]:
    """`outputs_of` --out, or `free_outputs` where it is not given. Raises InputError where one cannot be written, would
    replace the vocal, or is there without --force."""
    from hafm_jax import band
    from hafm_jax.audio.files import check_writable

    names = free_outputs if arguments.out is None and not arguments.force else outputs_of
    outputs = names(arguments.out or OUT, arguments.num_samples)
    check_writable([arguments.out or OUT], arguments.bits)  # numbered or not
    band.check_outputs(outputs, arguments.bits, 1, {"--vocal": arguments.vocal}, arguments.force)
    return outputs


def check_room_for(outputs: list[tuple[Path, Path, Path]], bits: int, shape: tuple[int, int]) -> None:
    """Raises InputError where the disk has no room for outputs of `shape` [C, S]; of compressed formats nothing is
    known before."""
    paths = [path for each in outputs for path in each[:2]]
    if paths[0].suffix.lower() == ".wav":
        one = bits // 8 * math.prod(shape)  # a former output goes when the next one is complete
        check_room(paths[0], max(one, one * len(paths) - sum(path.stat().st_size for path in paths if path.exists())))


class Progress:
    """A bar from the first report on; as text, the share that is done. compiled_s: when the last stage was compiled."""

    bar = None
    compiled_s = None

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if what == "compile":
            self.compiled_s = time.monotonic()
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
    outputs = check_outputs(arguments)
    progress, written = Progress(), []
    try:
        run(arguments, outputs, progress, written)
    except KeyboardInterrupt as interrupt:
        progress.close()
        missing = ", ".join(str(path) for each in outputs for path in each if path not in written)
        files = f"written: {', '.join(map(str, written))}; not written: {missing}" if written else "nothing written"
        raise KeyboardInterrupt(f"{progress}, {files}") from interrupt


def options_of(arguments: argparse.Namespace, sampling: Mapping[str, Any]) -> SamplingOptions:
    """What to draw by the arguments, of a model with its own `sampling`."""
    from hafm_jax.model.options import SamplingOptions

    sampling = dict(sampling)
    for field in SAMPLING:
        for stage, value in getattr(arguments, field):
            for name in [stage] if stage else sampling:
                sampling[name] = sampling[name]._replace(**{field: value})
    return SamplingOptions(sampling=sampling, skip_fine=arguments.skip_fine)


def mix_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """How to mix and write by the arguments: those of `Band.save`."""
    return {
        "bits": arguments.bits,
        "balance_lu": arguments.balance_lu,
        "loudness_lufs": arguments.loudness,
        "rate_hz": arguments.rate,
    }


def run(
    arguments: argparse.Namespace, outputs: list[tuple[Path, Path, Path]], progress: Progress, written: list[Path]
) -> None:
    """Adds the files of a sample to `written` once they are complete."""
    import hafm_jax
    from hafm_jax.audio import encoding, files, mixing, tuning, vocals
    from hafm_jax.model import memory
    from hafm_jax.model.weights import missing_kernels

    vocal = vocals.read_vocal(arguments.vocal, arguments.seconds)
    audio, rate_hz = vocal.audio, vocal.rate_hz
    for note in vocal.notes:
        print(f"warning: {note}", file=sys.stderr)
    for mix_path, *_ in outputs:
        encoding.check_format(mix_path, arguments.bits, len(audio))
    samples = files.resampled_length(audio.shape[1], rate_hz, arguments.rate or rate_hz)
    check_room_for(outputs, arguments.bits, (len(audio), samples))
    model = hafm_jax.load(arguments.model)
    options = options_of(arguments, model.sampling)
    loaded_s = time.monotonic()
    if reason := missing_kernels():
        print(f"note: decoding at XLA's own speed, without this package's kernels: {reason}", file=sys.stderr)

    number = arguments.num_samples
    needed_gb = model.check_memory(replace(options, num_samples=number), audio.shape, rate_hz) / 1e9
    audio_gb = memory.audio_bytes(audio.shape, rate_hz, number) / 1e9
    print(
        f"generating needs at most {needed_gb:.2f} GB of memory besides the model: {audio_gb:.2f} GB for audio; "
        "the rest does not depend on the vocal's length"
    )
    played_hz = tuning.rate_in_tune(audio, rate_hz)
    if played_hz != rate_hz:
        a_hz = 440 * rate_hz / played_hz
        cents = 1200 * math.log2(a_hz / 440)
        print(f"the voice is tuned to A = {a_hz:.0f} Hz, {cents:+.0f} cents: its band is tuned to it")
    bands = model.takes(vocal, number, options, seed=arguments.seed, rate_in_tune_hz=played_hz, progress=progress)
    progress.close()
    generated_s = time.monotonic()
    compiled_s = progress.compiled_s or loaded_s

    if not arguments.force:  # another run may have taken the names meanwhile: what was made is not lost
        outputs[:] = free_outputs(arguments.out or OUT, number)
    for band, paths in zip(bands, outputs, strict=True):
        mixed = band.save(
            paths[0],
            force=arguments.force,
            **mix_of(arguments),
        )
        written += paths
        print("  ".join(map(str, paths)))
        for line in (mixing.describe_voice(mixed), mixing.describe_loudness(mixed, arguments.loudness)):
            if line:
                print(line)
        del mixed  # before the next is made
    duration_s = vocal.seconds * number
    print(
        f"{duration_s:.1f} s of music in {time.monotonic() - STARTED_S:.1f} s: {loaded_s - STARTED_S:.1f} s to load, "
        f"{compiled_s - loaded_s:.1f} s to compile, {generated_s - compiled_s:.1f} s to generate "
        f"(real-time factor {(generated_s - compiled_s) / duration_s:.2f})"
    )


if __name__ == "__main__":
    from hafm_jax.common.errors import run_command

    run_command(main)
