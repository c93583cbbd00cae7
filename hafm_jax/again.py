"""Make a mix again, to the bit, from what it says of itself: hafm again mix.wav --out same.wav

reads    MIX            a mix or a band that hafm_jax wrote, or the .json beside it: how it was made is in its tags
         the vocal      --vocal, or the file of its name beside MIX or in the working folder: the same recording
writes   OUT, OUT_instrumental, OUT.json    the same bytes, with the same versions on the same kind of machine
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hafm_jax import sample
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.options import from_fields, local_path

if TYPE_CHECKING:
    from hafm_jax.audio.vocals import Vocal


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm again", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("mix", type=local_path, metavar="MIX", help="a mix that hafm_jax wrote, or its .json")
    add("--out", type=local_path, metavar="FILE", help="the mix (default: a free name, as mix-2.wav for mix.wav)")
    add("--vocal", type=local_path, metavar="FILE", help="the singing voice (default: by its name)")
    add("--model", metavar="MODEL", help="where the model is now (default: where it was)")
    add("--force", action="store_true", help="replace outputs that are there")
    return p


def find_vocal(facts: Mapping[str, Any], given: Path | None, mix: Path) -> Path:
    """The file of the vocal that was accompanied. Raises InputError where it is not found."""
    name = Path(facts["name"]).name
    places = [given] if given else [mix.parent / name, Path(name)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"the vocal {name} is not at {' or '.join(map(str, places))}: give its file with --vocal")
    return path


def read_same(path: Path, facts: Mapping[str, Any], mix: Path) -> Vocal:
    """The vocal that was accompanied, under its name then. Raises InputError where `path` holds another."""
    from hafm_jax.audio.vocals import read_vocal

    vocal = replace(read_vocal(path, facts["seconds"]), name=facts["name"])
    if vocal.sha256 != facts["sha256"]:
        raise InputError(f"{path} is not the vocal of {mix}; expected the same recording: give its file with --vocal")
    return vocal


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    import hafm_jax
    from hafm_jax.band import check_outputs, output_paths, settings_of
    from hafm_jax.common.files import reading
    from hafm_jax.model.options import SamplingOptions
    from hafm_jax.model.sampling import Sampling

    mix = arguments.mix
    settings = settings_of(mix)
    suffix = ".wav" if mix.suffix.lower() == ".json" else mix.suffix
    out = arguments.out or sample.free_outputs(mix.with_suffix(suffix), 1)[0][0]
    with reading(mix, "the settings that hafm_jax wrote"):
        sampling = {
            name: from_fields(Sampling.checked, fields, f"{mix}: the {name} sampling")
            for name, fields in settings["sampling"].items()
        }
        options = SamplingOptions(sampling=sampling, skip_fine=settings["skip_fine"])
        number, seed, source = settings["take"], settings["seed"], settings["model"]["source"]
        path = find_vocal(settings["vocal"], arguments.vocal, mix)
        vocal = read_same(path, settings["vocal"], mix)
        written, tuned_hz, made_with = dict(settings["mix"]), settings["rate_in_tune_hz"], settings["versions"]
    inputs = {"MIX": None if arguments.force else mix, "--vocal": path}
    check_outputs([output_paths(out)], written.get("bits", 16), len(vocal.audio), inputs, arguments.force)
    model = hafm_jax.load(arguments.model or source)
    if model.sha256 != settings["model"]["sha256"]:
        raise InputError(
            f"the model {arguments.model or source} is not the one of {mix}; expected the digest "
            f"{settings['model']['sha256'][:16]}, found {model.sha256[:16]}: give the right one with --model"
        )
    progress = sample.Progress()
    takes = replace(model, source=source).takes(
        vocal, number, options, seed=seed, rate_in_tune_hz=tuned_hz, progress=progress
    )
    progress.close()
    band = takes[number - 1]
    if made_with != band.settings["versions"]:
        print(f"warning: {mix} was made with {made_with}: the band may be another one here", file=sys.stderr)
    band.save(out, force=arguments.force, **written)
    print("  ".join(map(str, output_paths(out))))


if __name__ == "__main__":
    run_command(main)
