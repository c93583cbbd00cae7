"""Accompany all vocals of a folder: hafm batch FOLDER --out FOLDER [options of hafm sample]

reads    FOLDER/NAME.EXT    isolated voices, any audio files; folders in it and hidden files are not read
writes   OUT/NAME.wav, OUT/NAME_instrumental.wav, OUT/NAME.json    what `hafm sample --vocal FOLDER/NAME.EXT` writes, to
                            the bit; OUT/NAME_1.wav, ... with --num-samples
         OUT/run.json       the model and the settings; other ones need another folder

FOLDER comes first. The options of hafm sample can follow, but for --vocal, --out and --force: --model, --seed,
--num-samples, --temperature and so on. Vocals of one length are drawn together, and all share the loaded model and its
programs, so a folder takes less time than its vocals one by one.

A vocal whose outputs are there is not accompanied again, unless it is another take: if the command is stopped, the same
command resumes. A file that cannot be used is left out and named, and the exit code is then 2.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hafm_jax import sample
from hafm_jax.common.errors import InputError, OutputError, run_command
from hafm_jax.common.options import local_path
from hafm_jax.common.outputs import check_apart, check_folder, check_own

if TYPE_CHECKING:
    from hafm_jax.accompany import Accompanist
    from hafm_jax.model.options import SamplingOptions

AT_ONCE = 8  # vocals that are drawn together, at most; ours: more gain little on two cores
MOST_ROWS_OF_A_SAMPLE = 3  # with guidance and without history (model/sampling.py)

Outputs = list[tuple[Path, Path, Path]]  # (mix, instrumental, settings) of each sample


class Task(NamedTuple):
    """A vocal to accompany; `played_hz` and `cells` decide which others can be drawn with it. shape: [C, S]."""

    path: Path
    played_hz: int
    cells: int
    shape: tuple[int, int]
    rate_hz: int


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
    if str(how.vocal) != "-" or how.force:
        own.error("--vocal and --force are not options here: FOLDER has the vocals, and what is done is kept")
    return arguments, how


def listed(folder: Path, out: Path, num_samples: int) -> dict[Path, Outputs]:
    """Vocal -> its outputs. Raises InputError where there are none, or where two vocals would have one output."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one with vocals")
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder} holds no files; expected vocals: give the folder that holds them")
    outputs, writer = {}, {}
    for path in found:
        outputs[path] = sample.outputs_of(out / f"{path.stem}.wav", num_samples)
        for output in (each for group in outputs[path] for each in group):
            if (other := writer.setdefault(output, path)) != path:
                raise InputError(f"{other.name} and {path.name} would both become {output}: rename one of them")
    return outputs


def is_done(outputs: Outputs, vocal_sha256: str) -> bool:
    """Whether all outputs are there, of this vocal. The settings are written last."""
    from hafm_jax.band import settings_of

    paths = [path for each in outputs for path in each]
    if not all(path.exists() for path in paths):
        return False
    return all(settings_of(settings)["vocal"]["sha256"] == vocal_sha256 for *_, settings in outputs)


def examine(path: Path, seconds: float | None, outputs: Outputs) -> Task | None:
    """None where the vocal is done. Raises InputError where the file is not a vocal."""
    from hafm_jax.audio.tuning import rate_in_tune
    from hafm_jax.audio.vocals import read_vocal
    from hafm_jax.generation import band_cells

    vocal = read_vocal(path, seconds)
    if is_done(outputs, vocal.sha256):
        return None
    for note in vocal.notes:
        print(f"warning: {note}", file=sys.stderr)
    played_hz = rate_in_tune(vocal.audio, vocal.rate_hz)
    shape = vocal.audio.shape
    return Task(path, played_hz, band_cells(shape[1], played_hz), shape, vocal.rate_hz)


def groups(tasks: Sequence[Task], model: Accompanist, options: SamplingOptions, num_samples: int) -> list[list[Task]]:
    """Tasks that can be drawn together: windows are spread over a song by its length, so that only songs of equally
    many cells have the same windows; as many as the memory has room for."""
    from hafm_jax.model.cpu.kernels import FEW_ROWS

    alike = defaultdict(list)
    for task in tasks:
        alike[task.played_hz, task.cells].append(task)
    found = []
    for some in alike.values():
        longest = max(some, key=lambda task: task.shape[0] * task.shape[1])
        most = min(AT_ONCE, len(some), FEW_ROWS // (MOST_ROWS_OF_A_SAMPLE * num_samples)) * num_samples
        fitting = model.fitting(replace(options, num_samples=max(most, num_samples)), longest.shape, longest.rate_hz)
        size = max(1, fitting // num_samples)
        found += [some[i : i + size] for i in range(0, len(some), size)]
    return found


def accompany(
    model: Accompanist, tasks: Sequence[Task], outputs: dict[Path, Outputs], options: SamplingOptions,
    how: argparse.Namespace, progress: sample.Progress,
) -> None:  # fmt: skip
    """Draw the bands of vocals of one length, and write them."""
    from hafm_jax.audio.vocals import read_vocal

    vocals = [read_vocal(task.path, how.seconds) for task in tasks]
    seeds, played_hz = [how.seed] * len(vocals), tasks[0].played_hz
    drawn = model.takes_of_each(
        vocals, how.num_samples, options, seeds=seeds, rate_in_tune_hz=played_hz, progress=progress
    )
    for task, bands in zip(tasks, drawn, strict=True):
        for band, (mix_path, *_) in zip(bands, outputs[task.path], strict=True):
            band.save(mix_path, force=True, **sample.mix_of(how))


def accompany_all(model: Accompanist, outputs: dict[Path, Outputs], how: argparse.Namespace) -> list[str]:
    """Accompany the vocals that are not done. Returns why files were left out."""
    options = sample.options_of(how, model.sampling)
    tasks, left_out = [], []
    for path, written in outputs.items():
        try:
            task = examine(path, how.seconds, written)
        except OutputError:
            raise
        except InputError as error:
            left_out.append(f"{path.name}: {error}")
        else:
            tasks += [task] if task else []
    num_done, progress = len(outputs) - len(tasks) - len(left_out), sample.Progress()
    print(f"{len(tasks)} vocals to accompany, {num_done} are done")
    try:
        for some in groups(tasks, model, options, how.num_samples):
            try:
                accompany(model, some, outputs, options, how, progress)
            except OutputError:
                raise
            except InputError as error:
                left_out += [f"{task.path.name}: {error}" for task in some]
                continue
            for task in some:
                print("\n".join("  ".join(map(str, each)) for each in outputs[task.path]))
            num_done += len(some)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"{num_done} of {len(outputs)} are done; the same command resumes") from interrupt
    finally:
        progress.close()
    return left_out


def main(argv: Sequence[str] | None = None) -> None:
    arguments, how = parse_arguments(list(sys.argv[1:] if argv is None else argv))
    import hafm_jax
    from hafm_jax.common.files import make_folder
    from hafm_jax.common.resume import RUN_FILE, check_same_run, claim

    out = arguments.out
    outputs = listed(arguments.folder, out, how.num_samples)
    check_apart([path for some in outputs.values() for each in some for path in each], {"FOLDER": arguments.folder})
    check_folder(out)
    check_own(out, RUN_FILE)
    model = hafm_jax.load(how.model)
    sampling = sample.options_of(how, model.sampling).sampling
    request = {"model_sha256": model.sha256, "sampling": {name: own._asdict() for name, own in sampling.items()}}
    request |= {name: getattr(how, name) for name in ("seed", "seconds", "num_samples", "skip_fine")}
    make_folder(out, "--out")
    check_same_run(out, request | {"mix": sample.mix_of(how)})
    with claim(out / ".claim") as mine:
        if not mine:
            raise InputError(f"another process writes to {out}; expected it to be alone: wait, or choose another --out")
        left_out = accompany_all(model, outputs, how)
    print(f"{len(outputs) - len(left_out)} of {len(outputs)} vocals are accompanied in {out}")
    if left_out:
        raise InputError("\n  ".join(["left out:", *left_out]))


if __name__ == "__main__":
    run_command(main)
