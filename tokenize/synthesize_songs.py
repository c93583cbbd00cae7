"""Synthesise songs with known key, tempo, beats and chords, for training and testing where no recordings can be had.

writes   OUT/SPLIT/ID/vocals.wav         a singing voice, mono, 24 kHz, 16 bit
         OUT/SPLIT/ID/instrumental.wav   the band that accompanies it, equally long
         OUT/SPLIT/ID/song.json          key, mode, tempo, beats, chords, melody, instruments
         with SPLIT one of train, validation, test, which never share a song, whatever the seeds
reads    nothing

The same seed writes the same songs. A song that is there already is kept, so an interrupted run goes on where it
stopped, and asking for more songs adds to those there are. A song's folder appears only when it is whole.

    python tokenize/synthesize_songs.py --out songs --num-songs 512 --seconds 30 --seed 0
    python tokenize/extract_tokens.py --songs songs ...                                     is the step after it
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

from tqdm import tqdm

from hafm_jax.audio.files import write_audio
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ
from hafm_jax.synthesis.song import SPLITS, song_seed, synthesize_song

HELD_OUT_SHARE = 16  # one song for validation and one for testing to so many for training

Job = tuple[Path, str, int, int, float]  # out, split, index, base seed, seconds


def song_folder(out: Path, split: str, index: int) -> Path:
    return out / split / f"song_{index:06d}"


def write_song(job: Job) -> None:
    """Synthesise one song into a temporary folder, then rename it: a folder with a song's name is a whole song."""
    out, split, index, base_seed, seconds = job
    folder = song_folder(out, split, index)
    song = synthesize_song(song_seed(split, index, base_seed), seconds, CODEC_SAMPLE_RATE_HZ)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_audio(partial / "vocals.wav", song.vocals, CODEC_SAMPLE_RATE_HZ)
    write_audio(partial / "instrumental.wav", song.instrumental, CODEC_SAMPLE_RATE_HZ)
    (partial / "song.json").write_text(json.dumps(song.info, indent=1) + "\n")
    partial.rename(folder)


def check_kept_song(folder: Path, job: Job) -> None:
    """An old song must be the one this run would write, or the folder would mix two sets of songs."""
    _, split, index, base_seed, seconds = job
    try:
        info = json.loads((folder / "song.json").read_text())
        found = info["seed"], info["seconds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is there but has no readable song.json; remove it or choose another --out"
        ) from error
    expected = song_seed(split, index, base_seed), seconds
    if found != expected:
        raise InputError(
            f"{folder} holds seed {found[0]}, {found[1]} s, this run would write seed {expected[0]}, {expected[1]} s; "
            "give the same --seed and --seconds, or another --out"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the songs; made if missing")
    parser.add_argument("--num-songs", type=int, default=256, help="songs for training (default: 256)")
    parser.add_argument(
        "--num-validation", type=int, help="songs for validation (default: a 16th of --num-songs, at least 1)"
    )
    parser.add_argument("--num-test", type=int, help="songs for testing (default: a 16th of --num-songs, at least 1)")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each song, at least 1 (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="base seed; another one gives other songs (default: 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    held_out = max(1, args.num_songs // HELD_OUT_SHARE)
    counts = {
        "train": args.num_songs,
        "validation": held_out if args.num_validation is None else args.num_validation,
        "test": held_out if args.num_test is None else args.num_test,
    }
    for name, value, least in (
        ("--num-songs", args.num_songs, 0),
        ("--num-validation", counts["validation"], 0),
        ("--num-test", counts["test"], 0),
        ("--seconds", args.seconds, 1),
        ("--seed", args.seed, 0),
        ("--workers", args.workers, 1),
    ):
        if not least <= value < float("inf"):
            raise InputError(f"{name} is {value}, expected at least {least}")
    try:
        for split in SPLITS:
            if counts[split]:
                (args.out / split).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write into {args.out}: {error.strerror}; give --out a folder that can be written"
        ) from error

    jobs = []
    for split in SPLITS:
        for index in range(counts[split]):
            job = (args.out, split, index, args.seed, args.seconds)
            folder = song_folder(args.out, split, index)
            if folder.exists():
                check_kept_song(folder, job)
            else:
                jobs.append(job)

    with tqdm(
        total=sum(counts.values()), initial=sum(counts.values()) - len(jobs), unit="song", desc="synthesise"
    ) as bar:
        try:
            if args.workers == 1:
                for job in jobs:
                    write_song(job)
                    bar.update()
            elif jobs:
                # Ctrl-C is for the parent alone: it ends the workers, which would each print a traceback otherwise.
                context, ignore = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
                with context.Pool(min(args.workers, len(jobs)), signal.signal, ignore) as pool:
                    for _ in pool.imap_unordered(write_song, jobs):
                        bar.update()
        except OSError as error:
            raise InputError(
                f"cannot write into {args.out}: {error.strerror or error}; what is written so far is kept"
            ) from error
        except KeyboardInterrupt:
            bar.close()
            print(f"interrupted: {bar.n} of {bar.total} songs are there; the same command goes on", file=sys.stderr)
            sys.exit(130)
    counted = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    print(f"{args.out}: {counted} songs of {args.seconds:g} s ({len(jobs)} new)")


if __name__ == "__main__":
    run_command(main)
