"""Accompany a singing voice: python -m hafm_jax.sample --vocal in.wav

Writes mix.wav (the voice with its band) and mix_instrumental.wav (the band alone), both at 24 kHz and exactly as long
as the vocal. The vocal is any audio file (wav, flac, mp3, m4a, ogg, ...) or a pipe, mono or stereo, at any rate. It
should be an isolated voice, without other instruments: separate a song first (tokenize/separate_stems.py).

Three stages draw tokens one after another: `semantic` decides the music (key, chords, beat), `coarse` its sound,
`fine` the details of the sound. The same seed gives the same music; draw several and keep the one you like.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

from hafm_jax.common.errors import InputError
from hafm_jax.common.options import local_path, number
from hafm_jax.common.outputs import check_apart, check_room
from hafm_jax.model import ranges
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ, STAGES

OUT = Path("mix.wav")
COMMENT = "made by hafm_jax.sample"  # in the files, by which it knows its own
STARTED_S = time.monotonic()  # before JAX is imported, which takes part of the time to load

EXAMPLES = """examples:
  a first impression of ten seconds, in rougher sound:
    python -m hafm_jax.sample --vocal in.wav --seconds 10 --skip-fine
  four bands to choose from, mix_1.wav to mix_4.wav:
    python -m hafm_jax.sample --vocal in.wav --num-samples 4
  closer to the voice, and safer choices in the music than in the sound:
    python -m hafm_jax.sample --vocal in.wav --guidance-scale 3 --temperature semantic=0.7 coarse=0.9 fine=0.9
  a model of your own (python -m hafm_jax.export writes it):
    python -m hafm_jax.sample --vocal in.wav --model MODEL --out song.flac
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
        prog="python -m hafm_jax.sample",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("--vocal", type=local_path, metavar="FILE", required=True, help="the singing voice; - is the standard input")
    add("--out", type=local_path, metavar="FILE", default=OUT, help="the mix, wav or flac (default: mix.wav)")
    add(
        "--model",
        metavar="MODEL",
        help="model directory, or Hugging Face Hub id OWNER/NAME (default: the demo model in the package)",
    )
    add("--seed", type=number(int, 0, 2**31 - 1), metavar="N", default=0, help="same seed, same music (default: 0)")
    add("--seconds", type=number(float, 0.04, math.inf), metavar="S", help="only the first S seconds (default: all)")
    add(
        "--num-samples",
        type=number(int, 1, 64),
        metavar="N",
        default=1,
        help="different accompaniments to draw at once, numbered mix_1.wav, mix_2.wav, ... (default: 1)",
    )
    add("--skip-fine", action="store_true", help="leave out the fine stage: faster, rougher sound")
    how = p.add_argument_group(
        "how tokens are drawn",
        "For all stages, or for some: --temperature 0.8, or --temperature semantic=0.7 coarse=0.9.\n"
        "The defaults are the model's own (config.json in its directory).",
    )
    for name, text in SAMPLING.items():
        option, parse = f"--{name.replace('_', '-')}", number(*ranges.SAMPLING[name])
        how.add_argument(option, type=_by_stage(parse), nargs="+", default=[], metavar="[STAGE=]X", help=text)
    return p


def check_outputs(arguments: argparse.Namespace) -> None:
    """Raises InputError where an output cannot be written, or would replace the vocal, or a file that this command did
    not write and that was not named."""
    from hafm_jax.audio import files

    files.check_writable([arguments.out])  # of numbered outputs, too, the name and its folder must do
    paths = [path for pair in output_paths(arguments.out, arguments.num_samples) for path in pair]
    files.check_writable(paths)
    check_apart(paths, {"--vocal": arguments.vocal})
    named = None if arguments.out is OUT else arguments.out
    for path in paths:
        if path != named and path.exists() and files.comment_of(path) != COMMENT:
            raise InputError(
                f"{path} is there, and this command did not write it; expected a free name: move it, or choose another "
                "--out"
            )


def output_paths(out: Path, num_samples: int) -> list[tuple[Path, Path]]:
    """(mix, instrumental) of each sample."""
    stems = [out.stem] if num_samples == 1 else [f"{out.stem}_{i}" for i in range(1, num_samples + 1)]
    return [(out.with_name(f"{s}{out.suffix}"), out.with_name(f"{s}_instrumental{out.suffix}")) for s in stems]


def check_room_for(outputs: list[tuple[Path, Path]], shape: tuple[int, int]) -> None:
    """Raises InputError where the disk has no room for outputs of `shape` [C, S]; of FLAC nothing is known before."""
    paths = [path for pair in outputs for path in pair]
    if paths[0].suffix.lower() == ".wav":
        one = 2 * math.prod(shape)  # 16 bits; a former output goes when the next one is complete
        check_room(paths[0], max(one, one * len(paths) - sum(path.stat().st_size for path in paths if path.exists())))


class Progress:
    """A bar from the first report on; as text, the share that is done."""

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
    check_outputs(arguments)
    progress, written = Progress(), []
    try:
        run(arguments, progress, written)
    except KeyboardInterrupt as interrupt:
        progress.close()
        outputs = [path for pair in output_paths(arguments.out, arguments.num_samples) for path in pair]
        missing = ", ".join(str(path) for path in outputs if path not in written)
        files = f"written: {', '.join(map(str, written))}; not written: {missing}" if written else "nothing written"
        raise KeyboardInterrupt(f"{progress}, {files}") from interrupt


def run(arguments: argparse.Namespace, progress: Progress, written: list[Path]) -> None:
    """Adds each file to `written` once it is complete."""
    from hafm_jax.accompany import Accompanist, SamplingOptions, band_cells, read_vocal
    from hafm_jax.audio import files, mixing, tuning, voice
    from hafm_jax.common.cache import use_compilation_cache
    from hafm_jax.model import memory
    from hafm_jax.model.pretrained import DEMO
    from hafm_jax.model.weights import missing_kernels

    sound = read_vocal(arguments.vocal, arguments.seconds)
    if sound.damage:
        print(f"warning: {arguments.vocal} {sound.damage}: the band is as long as what was read", file=sys.stderr)
    vocal, rate_hz = sound.audio, sound.sample_rate_hz
    del sound  # so that the audio is freed once it is resampled
    if voice.is_silent(vocal, rate_hz):
        print(f"warning: {arguments.vocal} is silent: the band has no voice to follow", file=sys.stderr)
    outputs = output_paths(arguments.out, arguments.num_samples)
    check_room_for(outputs, (len(vocal), files.resampled_length(vocal.shape[1], rate_hz, CODEC_SAMPLE_RATE_HZ)))
    use_compilation_cache()
    accompanist = Accompanist.load(arguments.model or str(DEMO))
    sampling = dict(accompanist.sampling)
    for field in SAMPLING:
        for stage, value in getattr(arguments, field):
            for name in [stage] if stage else sampling:
                sampling[name] = sampling[name]._replace(**{field: value})
    options = SamplingOptions(arguments.num_samples, sampling, arguments.skip_fine)
    loaded_s = time.monotonic()
    if reason := missing_kernels():
        print(f"note: decoding at XLA's own speed, without this package's kernels: {reason}", file=sys.stderr)

    needed_gb = accompanist.check_memory(options, vocal.shape, rate_hz) / 1e9
    audio_gb = memory.audio_bytes(vocal.shape, rate_hz, options.num_samples) / 1e9
    print(
        f"generating needs at most {needed_gb:.2f} GB of memory besides the model: {audio_gb:.2f} GB for audio; "
        "the rest does not depend on the vocal's length"
    )
    played_hz = tuning.rate_in_tune(vocal, rate_hz)
    if played_hz != rate_hz:
        a_hz = 440 * rate_hz / played_hz
        cents = 1200 * math.log2(a_hz / 440)
        print(f"the voice is tuned to A = {a_hz:.0f} Hz, {cents:+.0f} cents: its band is tuned to it")
    accompanist.compile(band_cells(vocal.shape[1], played_hz), options, progress=progress)
    compiled_s = time.monotonic()
    instrumentals = accompanist(
        vocal, rate_hz, options, seed=arguments.seed, rate_in_tune_hz=played_hz, progress=progress
    )
    progress.close()
    generated_s = time.monotonic()

    vocal = files.resample(vocal, rate_hz, CODEC_SAMPLE_RATE_HZ)
    for instrumental, (mix_path, instrumental_path) in zip(instrumentals, outputs, strict=True):
        mixed = mixing.mix(vocal, instrumental, CODEC_SAMPLE_RATE_HZ)
        for path, audio in ((instrumental_path, mixed.instrumental), (mix_path, mixed.audio)):
            files.write_audio(path, audio, CODEC_SAMPLE_RATE_HZ, COMMENT)
            written.append(path)
        print(f"{mix_path}  {instrumental_path}")
        if note := mixing.describe_voice(mixed):
            print(note)
    duration_s = vocal.shape[-1] / CODEC_SAMPLE_RATE_HZ * options.num_samples
    print(
        f"{duration_s:.1f} s of music in {time.monotonic() - STARTED_S:.1f} s: {loaded_s - STARTED_S:.1f} s to load, "
        f"{compiled_s - loaded_s:.1f} s to compile, {generated_s - compiled_s:.1f} s to generate "
        f"(real-time factor {(generated_s - compiled_s) / duration_s:.2f})"
    )


if __name__ == "__main__":
    from hafm_jax.common.errors import run_command

    run_command(main)
