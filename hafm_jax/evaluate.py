"""Is the accompaniment good, and does it go with the vocal?

    hafm evaluate --model MODEL --songs SONGS --out REPORT

reads    SONGS/SPLIT/ID/vocals and instrumental: songs that the model was not trained on; songs of another split, half
         for the reference and half for retrieval;
         SONGS/SPLIT/ID/song.json, if it exists, for the true beats, tempo, key and chords
writes   REPORT/index.html    tables with intervals, plots, spectrograms and players, in one file
         REPORT/report.json   the same figures, with the protocol's fingerprint, settings, versions, machine and seconds
         REPORT/table.csv, clips.csv   a row per system, a row per clip and system
         REPORT/protocol.json   clips, reference, library and seed: others can use it with --protocol
         REPORT/clips/SYSTEM/ID.flac   every band, and the vocals

The report compares the model with systems that calibrate the figures: the true band, the true band through the codec,
retrieval from training songs that are not in the reference, a random band of theirs, the model's band for another
clip's vocal, clicks, silence. Embeddings for the Frechet distance: mel needs no weights, and its distances can be
compared with its own only; vggish=FILE_OR_URL is the paper's; clap=ID_OR_FOLDER and encodec=ID_OR_FOLDER use
transformers.

The reference split needs 16 songs with a clip of 10 s or more: 8 for the reference, as many for retrieval. A system
needs clips of 8 songs for its distances and intervals.

If the command is stopped, the same command resumes it. A clip that fails is reported and left out.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence

from hafm_jax.common.errors import InputError, needs_extra, run_command
from hafm_jax.common.options import check_at_least, local_path
from hafm_jax.common.shipped import local_or_shipped
from hafm_jax.evaluation.rule import Rule


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, rule = p.add_argument, Rule()
    add("--model", help="model directory, or Hub id OWNER/NAME (default: the demo model in the package)")
    add("--songs", type=local_path, required=True, help="songs folder with the split and the reference split")
    add("--out", type=local_path, required=True, help="folder for the report; made if missing")
    add("--protocol", type=local_or_shipped, help="use the clips and reference of another evaluation, not a new choice")
    add("--split", default=rule.split, help="songs to evaluate on (default: %(default)s)")
    add(
        "--reference-split",
        default=rule.reference_split,
        help="songs for the reference, and other songs for retrieval (default: %(default)s)",
    )
    add("--clips", type=int, help="number of clips of 10 s, the first of the protocol (default: all)")
    add("--reference-clips", type=int, default=rule.num_reference_clips, help="default: %(default)s")
    add(
        "--vocal-gate-dbfs",
        type=float,
        default=rule.vocal_gate_dbfs,
        help="leave out clips with softer vocals (default: %(default)s, the paper's)",
    )
    add("--seed", type=int, default=rule.seed, help="of the choice of clips and of all random draws (default: 0)")
    add("--separated", type=local_path, help="the same songs with vocals from a separator: adds a system")
    add(
        "--guidance-scales",
        type=float,
        nargs="+",
        default=[],
        metavar="W",
        help="also run the model at these, for a plot",
    )
    add("--systems", nargs="+", metavar="NAME", help="only these systems (default: all)")
    add(
        "--embedding",
        nargs="+",
        default=["mel"],
        metavar="KIND[=WEIGHTS[#SHA256]]",
        help="mel, vggish, clap, encodec; SHA256 is the expected hash of the weights (default: mel)",
    )
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that measure clips (default: all cores)")
    return p


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser().parse_args(argv)
    check_at_least(arguments, clips=1, reference_clips=1, workers=1)
    if math.isnan(arguments.vocal_gate_dbfs):
        raise InputError("--vocal-gate-dbfs is not a number; expected one, or -inf for no gate")
    if any(not 0 <= w <= 100 for w in arguments.guidance_scales):
        raise InputError(f"--guidance-scales {arguments.guidance_scales}; expected numbers from 0 to 100")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    with needs_extra("evaluate", "evaluating"):
        from hafm_jax.evaluation import command
    try:
        command.evaluate(arguments)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("finished parts are kept; the same command resumes") from interrupt


if __name__ == "__main__":
    run_command(main)
