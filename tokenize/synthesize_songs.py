"""Synthesise songs with known key, tempo, beats and chords, for training and testing where there are no recordings.

writes   OUT/SPLIT/ID/vocals.wav         a singing voice, mono, 24 kHz, 16 bit
         OUT/SPLIT/ID/instrumental.wav   the band that accompanies it, equally long
         OUT/SPLIT/ID/song.json          key, mode, tempo, beats, chords, melody, instruments
         OUT/run.json                    seed and length; songs of others must not be added
         with SPLIT one of train, validation, test, which never share a song, whatever the seeds
reads    nothing

The same seed writes the same songs. A song that is there already is kept: an interrupted run resumes, and asking for
more songs adds to those that are there. A song's folder appears only when it is whole.

    hafm tokenize synthesize-songs --out songs --num-songs 512 --seconds 30 --seed 0
    hafm tokenize extract-tokens --songs songs ...                                         is the step after it
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import closing

from hafm_jax.common.errors import run_command
from hafm_jax.common.options import check_at_least, local_path
from hafm_jax.common.outputs import check_own, check_room
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

HELD_OUT_SHARE = 16  # one song for validation and one for testing to so many for training


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm tokenize synthesize-songs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    held_out = "(default: a 16th of --num-songs, at least 1)"
    add("--out", type=local_path, required=True, help="folder for the songs; made if missing")
    add("--num-songs", type=int, default=256, help="songs for training (default: 256)")
    add("--num-validation", type=int, help=f"songs for validation {held_out}")
    add("--num-test", type=int, help=f"songs for testing {held_out}")
    add("--seconds", type=float, default=30.0, help="length of each song, at least 1 (default: 30)")
    add("--seed", type=int, default=0, help="base seed; another one gives other songs (default: 0)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    return p


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, int]]:
    """The arguments, and the songs of each split."""
    arguments = parser().parse_args(argv)
    from hafm_jax.audio.songs import SPLITS

    share = max(1, arguments.num_songs // HELD_OUT_SHARE)
    given = (arguments.num_songs, arguments.num_validation, arguments.num_test)
    counts = {split: share if number is None else number for split, number in zip(SPLITS, given, strict=True)}
    check_at_least(arguments, num_songs=0, num_validation=0, num_test=0, seconds=1, seed=0, workers=1)
    return arguments, counts


def main(argv: Sequence[str] | None = None) -> None:
    arguments, counts = parse_arguments(argv)
    from tqdm import tqdm

    from hafm_jax.common import work
    from hafm_jax.common.resume import RUN_FILE
    from hafm_jax.synthesis.song_set import make_song, tasks_left

    check_own(arguments.out, RUN_FILE, counts)
    tasks = tasks_left(arguments.out, counts, arguments.seed, arguments.seconds)
    check_room(arguments.out, len(tasks) * arguments.seconds * CODEC_SAMPLE_RATE_HZ * 2 * 2)  # two stems of 16 bits
    total = sum(counts.values())
    with tqdm(total=total, initial=total - len(tasks), unit="song", desc="synthesise") as bar:
        try:
            with closing(work.do_all(make_song, tasks, arguments.workers)) as results:
                for _ in results:
                    bar.update()
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(f"{bar.n} of {bar.total} songs are there; the same command resumes") from interrupt
    numbers = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{arguments.out}: {numbers} songs of {arguments.seconds:g} s ({len(tasks)} new)")


if __name__ == "__main__":
    run_command(main)
