"""Accompany all vocals of a folder: hafm batch FOLDER --out FOLDER [options of hafm sample]

reads    FOLDER/NAME.EXT    isolated voices, any audio files; folders in it and hidden files are not read
writes   OUT/NAME.wav, OUT/NAME_instrumental.wav    what `hafm sample --vocal FOLDER/NAME.EXT` writes, to the bit
         OUT/run.json       the model and the settings; other ones need another folder
         OUT/vocals.jsonl   the vocals that are done, with their SHA-256

FOLDER comes first. The options of hafm sample can follow, but for --vocal and --out: --model, --seed, --num-samples,
--temperature and so on. Vocals of one length are drawn together, and all share the loaded model and its programs, so a
folder takes less time than its vocals one by one.

A vocal that is done is not made again: if the command is stopped, the same command resumes. A file that cannot be used
is left out and named, and the exit code is then 2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hafm_jax import sample
from hafm_jax.common.errors import InputError, OutputError, run_command
from hafm_jax.common.files import writing
from hafm_jax.common.options import local_path
from hafm_jax.common.outputs import check_apart, check_folder, check_own
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from hafm_jax.accompany import Accompanist, SamplingOptions

LOG_FILE = "vocals.jsonl"
AT_ONCE = 8  # vocals that are drawn together, at most; ours: more gain little on two cores
MOST_ROWS_OF_A_SAMPLE = 3  # with guidance and without history (model/sampling.py)


class Vocal(NamedTuple):
    """A vocal to accompany; `played_hz` and `cells` decide which others can be drawn with it."""

    path: Path
    sha256: str
    played_hz: int
    cells: int
    shape: tuple[int, int]  # [C, S]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("folder", type=local_path, metavar="FOLDER", help="the vocals")
    p.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="the mixes; made if missing")
    return p


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, argparse.Namespace]:
    """(own arguments, those of hafm sample)."""
    own = parser()
    if argv and argv[0].startswith("-") and not {"-h", "--help"}.intersection(argv):
        own.error("FOLDER comes first")  # after options that this parser does not have, a value could be taken for it
    arguments, rest = own.parse_known_args(argv)
    how = sample.parser().parse_args(["--vocal", "-", *rest])
    if str(how.vocal) != "-" or how.out is not sample.OUT:
        own.error("--vocal is not an option here: FOLDER has the vocals")
    return arguments, how


def options_of(how: argparse.Namespace, accompanist: Accompanist) -> SamplingOptions:
    from hafm_jax.accompany import SamplingOptions

    sampling = dict(accompanist.sampling)
    for field in sample.SAMPLING:
        for stage, value in getattr(how, field):
            for name in [stage] if stage else sampling:
                sampling[name] = sampling[name]._replace(**{field: value})
    return SamplingOptions(how.num_samples, sampling, how.skip_fine)


def listed(folder: Path, out: Path, num_samples: int) -> dict[Path, list[Path]]:
    """Vocal -> its outputs. Raises InputError where there are none, or where two vocals would have one output."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one with vocals")
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder} holds no files; expected vocals: give the folder that holds them")
    outputs, writer = {}, {}
    for path in found:
        outputs[path] = [p for pair in sample.output_paths(out / f"{path.stem}.wav", num_samples) for p in pair]
        for output in outputs[path]:
            if (other := writer.setdefault(output, path)) != path:
                raise InputError(f"{other.name} and {path.name} would both become {output}: rename one of them")
    return outputs


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_done(out: Path) -> dict[str, str]:
    """Name of a vocal that is done -> its SHA-256."""
    from hafm_jax.common.resume import whole_lines

    lines = [json.loads(line) for line in whole_lines(out / LOG_FILE)]
    return {line["vocal"]: line["sha256"] for line in lines}


def groups(vocals: Sequence[Vocal], at_once: int) -> list[list[Vocal]]:
    """Vocals that can be drawn together: windows are spread over a song by its length, so that only songs of equally
    many cells have the same windows."""
    alike = defaultdict(list)
    for vocal in vocals:
        alike[vocal.played_hz, vocal.cells].append(vocal)
    return [some[i : i + at_once] for some in alike.values() for i in range(0, len(some), at_once)]


def examine(path: Path, seconds: float | None) -> Vocal:
    """Raises InputError where the file is not a vocal."""
    from hafm_jax.accompany import band_cells, read_vocal
    from hafm_jax.audio import tuning

    sound = read_vocal(path, seconds)
    if sound.damage:
        print(f"warning: {path} {sound.damage}: the band is as long as what was read", file=sys.stderr)
    played_hz = tuning.rate_in_tune(sound.audio, sound.sample_rate_hz)
    return Vocal(path, file_sha256(path), played_hz, band_cells(sound.audio.shape[1], played_hz), sound.audio.shape)


def accompany(
    accompanist: Accompanist,
    vocals: Sequence[Vocal],
    outputs: dict[Path, list[Path]],
    options: SamplingOptions,
    how: argparse.Namespace,
    progress: sample.Progress,
) -> None:
    """Draw the bands of vocals of one length, and write them."""
    from hafm_jax.accompany import read_vocal
    from hafm_jax.audio import files, mixing
    from hafm_jax.streams import STAGES

    sounds = [read_vocal(vocal.path, how.seconds) for vocal in vocals]
    played_hz, cells = vocals[0].played_hz, vocals[0].cells
    audio = [sound.audio for sound in sounds]
    seeds = [how.seed] * len(vocals)
    streams = accompanist.generate_streams(audio, played_hz, cells, options, seeds=seeds, progress=progress)
    drawn = {name: streams[name] for name in (STAGES[stage].target.name for stage in options.stage_names)}
    for i, (vocal, sound) in enumerate(zip(vocals, sounds, strict=True)):
        rows = slice(i * options.num_samples, (i + 1) * options.num_samples)
        bands = accompanist(
            sound.audio,
            sound.sample_rate_hz,
            options,
            seed=how.seed,
            rate_in_tune_hz=played_hz,
            given={name: tokens[rows] for name, tokens in drawn.items()},
        )
        voice = files.resample(sound.audio, sound.sample_rate_hz, CODEC_SAMPLE_RATE_HZ)
        pairs = outputs[vocal.path]
        for band, mix_path, band_path in zip(bands, pairs[::2], pairs[1::2], strict=True):
            mixed = mixing.mix(voice, band, CODEC_SAMPLE_RATE_HZ)
            files.write_audio(band_path, mixed.instrumental, CODEC_SAMPLE_RATE_HZ, sample.COMMENT)
            files.write_audio(mix_path, mixed.audio, CODEC_SAMPLE_RATE_HZ, sample.COMMENT)


def accompany_all(
    accompanist: Accompanist,
    outputs: dict[Path, list[Path]],
    options: SamplingOptions,
    how: argparse.Namespace,
    out: Path,
) -> list[str]:
    """Accompany the vocals that are not done, and log each. Returns why files were left out."""
    from hafm_jax.model.cpu.kernels import FEW_ROWS

    done, vocals, left_out = read_done(out), [], []
    for path, written in outputs.items():
        if done.get(path.name) == file_sha256(path) and all(output.exists() for output in written):
            continue
        try:
            vocals.append(examine(path, how.seconds))
        except OutputError:
            raise
        except InputError as error:
            left_out.append(f"{path.name}: {error}")
    num_done, progress = len(outputs) - len(vocals) - len(left_out), sample.Progress()
    print(f"{len(vocals)} vocals to accompany, {num_done} are done")
    try:
        for some in groups(vocals, max(1, min(AT_ONCE, FEW_ROWS // (MOST_ROWS_OF_A_SAMPLE * options.num_samples)))):
            try:
                accompany(accompanist, some, outputs, options, how, progress)
            except OutputError:
                raise
            except InputError as error:
                left_out += [f"{vocal.path.name}: {error}" for vocal in some]
                continue
            for vocal in some:
                with writing(out / LOG_FILE), (out / LOG_FILE).open("a", encoding="utf-8") as log:
                    log.write(json.dumps({"vocal": vocal.path.name, "sha256": vocal.sha256}) + "\n")
                print("  ".join(map(str, outputs[vocal.path])))
            num_done += len(some)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"{num_done} of {len(outputs)} are done; the same command resumes") from interrupt
    finally:
        progress.close()
    return left_out


def main(argv: Sequence[str] | None = None) -> None:
    arguments, how = parse_arguments(list(sys.argv[1:] if argv is None else argv))
    from hafm_jax.accompany import Accompanist
    from hafm_jax.common.cache import use_compilation_cache
    from hafm_jax.common.files import make_folder, sha256_of
    from hafm_jax.common.resume import RUN_FILE, check_same_run, claim, end_after_whole_line
    from hafm_jax.model.pretrained import DEMO, find_model

    out = arguments.out
    outputs = listed(arguments.folder, out, how.num_samples)
    check_apart([path for paths in outputs.values() for path in paths], {"FOLDER": arguments.folder})
    check_folder(out)
    check_own(out, RUN_FILE)
    use_compilation_cache()
    model = find_model(how.model or str(DEMO))
    accompanist = Accompanist.load(str(model))
    options = options_of(how, accompanist)
    make_folder(out, "--out")
    settings = {name: sampling._asdict() for name, sampling in options.sampling.items()}
    request = {"model_sha256": sha256_of(sorted(model.rglob("*.safetensors"))), "sampling": settings}
    request |= {name: getattr(how, name) for name in ("seed", "seconds", "num_samples", "skip_fine")}
    check_same_run(out, request)
    with claim(out / ".claim") as mine:
        if not mine:
            raise InputError(f"another process writes to {out}; expected it to be alone: wait, or choose another --out")
        end_after_whole_line(out / LOG_FILE)
        left_out = accompany_all(accompanist, outputs, options, how, out)
    print(f"{len(outputs) - len(left_out)} of {len(outputs)} vocals are accompanied in {out}")
    if left_out:
        raise InputError("\n  ".join(["left out:", *left_out]))


if __name__ == "__main__":
    run_command(main)
