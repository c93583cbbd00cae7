"""Train our neural audio codec `spectral` on the instrumentals of a songs folder.

    hafm tokenize train-codec --songs SONGS --out TOKENIZERS

reads    SONGS/train/ID/instrumental, .wav or .flac at any rate, all held in memory as 16-bit mono, about 170 MB an
         hour; SONGS/validation for the final evaluation
writes   TOKENIZERS/codec: config.json, with the facts of the training and the quality on the validation songs,
         codec.safetensors and metrics.jsonl

While it trains, TOKENIZERS/codec_training holds checkpoints, and the same command resumes from the last one. Equal
arguments on one machine give equal weights. A codec that is there is not replaced.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict

from hafm_jax.common.errors import InputError, needs_extra, run_command
from hafm_jax.common.files import make_folder, write_bytes
from hafm_jax.common.options import check_at_least, local_path
from hafm_jax.common.outputs import check_own
from hafm_jax.tokenizers.choices import Recipe


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm tokenize train-codec", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, recipe = p.add_argument, Recipe()
    add("--songs", type=local_path, required=True, help="songs folder with the splits train and validation")
    add("--out", type=local_path, required=True, help="tokenizers folder; codec/ is written in it")
    add("--steps", type=int, default=recipe.steps, help="updates (default: %(default)s)")
    add("--batch-size", type=int, default=recipe.batch_size, help="crops an update (default: %(default)s)")
    add("--seconds", type=float, default=recipe.seconds, help="length of a crop (default: %(default)s)")
    add(
        "--learning-rate",
        type=float,
        default=recipe.learning_rate,
        help="peak, warmed up then cosine (default: %(default)s)",
    )
    add("--seed", type=int, default=recipe.seed, help="of weights and crops (default: %(default)s)")
    return p


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser().parse_args(argv)
    check_at_least(arguments, seed=0)
    for name in ("steps", "batch_size", "seconds", "learning_rate"):
        if not 0 < getattr(arguments, name) < math.inf:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected a number above 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    with needs_extra("tokenize", "training a codec"):
        from hafm_jax.audio.files import song_folders
        from hafm_jax.common.resume import RUN_FILE
        from hafm_jax.tokenizers import codecs, spectral_codec
        from hafm_jax.tokenizers.codec_training import METRICS_FILE, evaluate, load_split, train
        from hafm_jax.tokenizers.folder import MADE_WITH, check_out, is_made, names_sha256
        from hafm_jax.training.checkpoint import Checkpoints

    recipe = Recipe(args.steps, args.batch_size, args.seconds, args.learning_rate, args.seed)
    directory, workdir = args.out / "codec", args.out / "codec_training"
    check_out(args.out, "codec", args.songs, {})
    check_own(workdir, RUN_FILE)  # it is removed at the end
    songs = [folder for split in ("train", "validation") for folder in song_folders(args.songs, split, "instrumental")]
    made_with = {**asdict(recipe), "songs_sha256": names_sha256(songs)}
    if not workdir.exists() and is_made(directory, made_with):  # else the training, or its evaluation, is unfinished
        print(f"{directory} is there, made by the same arguments: delete it to make it again")
        return
    config = spectral_codec.SpectralConfig()
    clips = load_split(args.songs, "train", config.sample_rate_hz)
    held_out = load_split(args.songs, "validation", config.sample_rate_hz)
    make_folder(workdir, "--out")
    with closing(Checkpoints(workdir, keep=1)) as checkpoints:  # interrupted, it waits until the last one is written
        params, facts = train(clips, config, recipe, workdir, checkpoints)
    codecs.save_spectral(directory, config, params, training=facts)
    write_bytes(directory / METRICS_FILE, (workdir / METRICS_FILE).read_bytes())
    evaluation = evaluate(codecs.load_codec(directory), held_out)  # of the float16 weights, which are those in use
    codecs.save_spectral(directory, config, params, training=facts, evaluation=evaluation, **{MADE_WITH: made_with})
    shutil.rmtree(workdir)  # only now, so that an interrupted evaluation needs no second training
    print(json.dumps(evaluation, indent=2))


if __name__ == "__main__":
    run_command(main)
