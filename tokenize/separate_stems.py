"""Turn a collection of music into songs: the vocals and the instrumental of every track that is of use.

    hafm tokenize separate-stems --music fma_large --layout fma --metadata fma_metadata \\
                                 --separator mdx --weights vocals.onnx --out SONGS
    hafm tokenize separate-stems --music musdb18hq --layout musdb --separator given --out SONGS
    hafm tokenize extract-tokens --songs SONGS ...                              is the step after it

reads    MUSIC, one of three layouts:
         folder   any tree of audio files (wav, flac, mp3, ogg, ...; with PyAV m4a, mp4, wma, ... too); links in it
                  are followed
         fma      the Free Music Archive's 000/000002.mp3 and its metadata: official splits, licences
         musdb    MUSDB18-HQ, or MUSDB18's .stem.mp4: stems are given
writes   SONGS/SPLIT/ID/vocals.flac, instrumental.flac   24 kHz, mono, 16 bit: all that both tokenizers use
         SONGS/SPLIT/ID/song.json    licence, source, seconds, gain, vocals' dBFS, separator and its sha256
         SONGS/report.json           counts, hours, licences, why tracks were left out, and why files belong to no track
                                     (hidden, dead links, not audio, ...); renewed every half minute
         SONGS/rejects.jsonl         the tracks left out, in the order of the work: none is processed twice
         SONGS/run.json              what the run was asked for; another run must not write into its songs

The instrumental is the mixture minus the vocals. Where a stem would pass full scale, one gain brings both down. A track
is left out if it is empty, damaged, without permission, silent, too short, too long, without singing, or a copy of
another one; if its stems differ in rate, channels or length; or if its row of the metadata cannot be used.

Both stems of a clip of 30 s need 1.5 to 1.7 MB of disk, so 100,000 clips some 170 GB. A process needs 1.1 MB of memory
for each second of its track, so 1.4 GB for the longest, beside the separator's.

Interrupted or killed, the same command resumes, and writes the bytes that it would have written without the stop. To
try a track again that was left out, remove its line from rejects.jsonl.

N machines share the work with --part 1/N to N/N, on one SONGS or on folders put together afterwards. Each writes
report-I-of-N.json; the command without --part then does the rest and writes the report on all. With --ray the machines
of a Ray cluster share it. Another number of processes may move a stem by the last of its 16 bits: a network's sums are
rounded in the order in which its threads add.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.options import check_at_least, local_path
from hafm_jax.common.outputs import check_apart, check_folder, check_own
from hafm_jax.common.work import RAY_GPUS
from hafm_jax.corpus.choices import GIVEN, LAYOUTS, TEST_SHARE, VALIDATION_SHARE, Part
from hafm_jax.corpus.screening import Limits

if TYPE_CHECKING:
    from hafm_jax.corpus.tracks import Corpus

SHOWN = 10  # rows of the metadata that are printed


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm tokenize separate-stems", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    limits = Limits()
    add("--music", type=local_path, required=True, help="the collection's folder")
    add("--layout", choices=LAYOUTS, required=True, help="how it is laid out")
    add("--metadata", type=local_path, help="fma: the archive's fma_metadata, for its tracks.csv")
    add("--separator", choices=("demucs", "mdx", GIVEN), required=True, help="given: the stems of musdb as they are")
    add("--weights", help="demucs, mdx: file, folder, URL or Hub id of the network")
    add("--sha256", help="SHA-256 that the weights must have")
    add("--out", type=local_path, required=True, help="folder for the songs; made if missing")
    add("--min-seconds", type=float, default=limits.min_s, help="shorter tracks are left out (default: %(default)s)")
    add("--max-seconds", type=float, default=limits.max_s, help="longer tracks are left out (default: %(default)s)")
    fainter = "tracks with fainter vocals, 20 log10 of their RMS, are left out (default: %(default)s)"
    add("--vocal-gate-dbfs", type=float, default=limits.vocal_gate_dbfs, help=fainter)
    share = "folder: of all tracks, 0..1 (default: %(default)s)"
    add("--validation-share", type=float, default=VALIDATION_SHARE, help=share)
    add("--test-share", type=float, default=TEST_SHARE, help=share)
    add("--part", type=Part.parse, default=Part(), help="I/N: every N-th track from the I-th (default: all)")
    add("--workers", type=int, default=1, help="processes, each with its own separator (default: %(default)s)")
    add("--ray", action="store_true", help="separate on the Ray cluster of RAY_ADDRESS; all see the same folders")
    add("--ray-gpus", type=float, help=f"of a track on Ray, 0.5 for two at once (default: {RAY_GPUS})")
    return p


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    from hafm_jax.common.resume import RUN_FILE

    arguments = parser().parse_args(argv)
    if (arguments.separator == GIVEN) != (arguments.weights is None):
        raise InputError(
            f"--separator {arguments.separator} {'without' if arguments.weights is None else 'with'} --weights; "
            "expected them for demucs and mdx, and none for given"
        )
    if arguments.separator == GIVEN and arguments.layout != "musdb":
        raise InputError(f"--separator given with --layout {arguments.layout}; expected musdb, which has stems")
    if not 0 < arguments.min_seconds <= arguments.max_seconds < math.inf:
        raise InputError(
            f"--min-seconds {arguments.min_seconds}, --max-seconds {arguments.max_seconds}; expected 0 < min <= max"
        )
    if math.isnan(arguments.vocal_gate_dbfs):
        raise InputError("--vocal-gate-dbfs is not a number; expected one, or -inf for no gate")
    check_at_least(arguments, workers=1, ray_gpus=0, validation_share=0, test_share=0)
    check_apart([arguments.out / split for split in ("train", "validation", "test")], {"--music": arguments.music})
    check_folder(arguments.out)
    check_own(arguments.out, RUN_FILE, ["report.json", "rejects.jsonl"])
    # workers of a cluster have working directories of their own
    arguments.music, arguments.out = arguments.music.absolute(), arguments.out.absolute()
    if arguments.weights is not None and Path(arguments.weights).exists():
        arguments.weights = str(Path(arguments.weights).absolute())
    return arguments


def print_listing(music: Path, corpus: Corpus) -> None:
    """What the collection holds, before the hours of work."""
    from hafm_jax.corpus import collections

    aside = ", ".join(f"{number} {reason}" for reason, number in collections.counts_of(corpus.aside).items())
    print(
        f"{music}: {corpus.found} files, {corpus.found - len(corpus.aside)} of them of tracks; the others: "
        f"{aside or 'none'}"
    )
    for row in corpus.bad_rows[:SHOWN]:
        print(f"not used of the metadata: {row}")
    if len(corpus.bad_rows) > SHOWN:
        print(f"and {len(corpus.bad_rows) - SHOWN} more rows, all in report.json")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    from tqdm import tqdm

    from hafm_jax.common import work
    from hafm_jax.common.files import make_folder
    from hafm_jax.common.resume import check_same_run
    from hafm_jax.corpus import collections, stems
    from hafm_jax.corpus.progress import Progress
    from hafm_jax.corpus.screening import Unusable
    from hafm_jax.corpus.stems import Recipe

    shares = {}
    if arguments.layout == "folder":
        shares = {"validation_share": arguments.validation_share, "test_share": arguments.test_share}
    corpus = collections.find_tracks(
        arguments.music, arguments.layout, arguments.metadata, **shares, keep_out_of=arguments.out
    )
    print_listing(arguments.music, corpus)
    limits = Limits(arguments.min_seconds, arguments.max_seconds, arguments.vocal_gate_dbfs)
    recipe = Recipe(arguments.music, arguments.out, arguments.separator, arguments.weights, arguments.sha256, limits)
    separator = stems.separator_of(recipe)
    make_folder(arguments.out, "--out")
    check_same_run(arguments.out, stems.describe_run(recipe, arguments.layout, arguments.metadata, shares))
    progress = Progress(arguments.out, corpus, arguments.part)
    options = {"on_ray": arguments.ray, "ray_batch": stems.RAY_BATCH, "num_gpus": 0, "ray_gpus": 0.0}
    if separator:
        options |= {"num_gpus": work.gpus_here(), "ray_gpus": arguments.ray_gpus}
    results = work.do_all(functools.partial(stems.make_song, recipe), progress.todo, arguments.workers, **options)
    with tqdm(total=progress.num_tracks, initial=progress.num_done, unit="track", desc="separate") as bar:
        try:
            for _, result in results:
                progress.add(result)
                if isinstance(result, Unusable):
                    bar.write(f"left out {result.split}/{result.id}: {result.reason}, {result.detail}")
                bar.update()
        except KeyboardInterrupt as interrupt:
            results.close()  # the workers finish the songs that they have begun
            progress.add_songs_found()
            done = f"{progress.num_done} of {progress.num_tracks} tracks are done; the same command resumes"
            raise KeyboardInterrupt(done) from interrupt
        finally:
            results.close()
            report = progress.write_report()
    splits = ", ".join(f"{split['songs']} {name} ({split['hours']:.2f} h)" for name, split in report["splits"].items())
    reasons = ", ".join(f"{number} {reason}" for reason, number in report["rejected_by_reason"].items() if number)
    print(f"{arguments.out}: {splits or 'no songs'}; left out: {reasons or 'none'}")


if __name__ == "__main__":
    run_command(main)
