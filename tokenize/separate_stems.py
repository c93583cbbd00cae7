"""Turn a collection of music into songs: the vocals and the instrumental of every track that is of use.

    python tokenize/separate_stems.py --music fma_large --layout fma --metadata fma_metadata \\
                                      --separator mdx --weights vocals.onnx --out SONGS
    python tokenize/separate_stems.py --music musdb18hq --layout musdb --separator given --out SONGS
    python tokenize/extract_tokens.py --songs SONGS ...                              is the step after it

reads    MUSIC, one of three layouts:
         folder   any tree of audio files (wav, flac, mp3, ogg, ...; with ffmpeg m4a, mp4, wma, ... too)
         fma      the Free Music Archive's 000/000002.mp3 and its metadata: official splits, licences
         musdb    MUSDB18-HQ, or MUSDB18's .stem.mp4: stems are given
writes   SONGS/SPLIT/ID/vocals.flac, instrumental.flac   24 kHz, mono, 16 bit: all that both tokenizers hear
         SONGS/SPLIT/ID/song.json    licence, source, seconds, gain, vocals' dBFS, separator and its sha256
         SONGS/report.json           counts, hours, licences, and each reject with its reason; anew every half minute
         SONGS/rejects.jsonl         the same rejects as they come: none is looked at twice
         SONGS/run.json              what the run was asked for; another one must not write into its songs

Both stems of a clip of 30 s take 1.5 to 1.7 MB (songs of ours; noise would take 2.9), so 100,000 clips some 170 GB. In
44.1 kHz stereo, which no tokenizer hears, they would take 3.7 times as much. A process needs 1.1 MB of memory a second
of its track, so 1.4 GB for the longest, beside the separator's.

The instrumental is the mixture less the vocals. Where a stem would pass full scale, one gain brings both down.
A track that is damaged, silent, too short, too long or without singing is left out, and so is a copy of another one.
Interrupted or killed, the same command goes on where it was, with the bytes that it would have written at once; to try
a reject again, take its line out of rejects.jsonl.

N machines share the work with --part 1/N to N/N, on one SONGS or on folders put together afterwards. Each writes
report-I-of-N.json; the command without --part then does what is missing and writes the report on all.

Axes: C channels, S samples.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from hafm_jax import corpora, work
from hafm_jax.audio.files import resample, to_mono, write_audio
from hafm_jax.audio.sources import ffmpeg, read_source
from hafm_jax.corpora import Track
from hafm_jax.errors import InputError, run_command
from hafm_jax.ledger import SONG_FILE, Ledger, Part, Song, check_same_run
from hafm_jax.screening import Limits, Reason, Reject, Unfit, rms_dbfs
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from hafm_jax.audio.separators import Separator

FORMAT_VERSION = 1
SONG_SAMPLE_RATE_HZ = CODEC_SAMPLE_RATE_HZ  # the higher of the tokenizers' rates; both are mono
FULL_SCALE = 1 - 2**-15  # the highest sample of 16 bits
GIVEN = "given"


@dataclass(frozen=True)
class Recipe:
    """How a track becomes a song; what each process that makes songs is told."""

    music: Path
    out: Path
    separator: str
    weights: str | None
    sha256: str | None
    limits: Limits


@functools.cache
def separator_of(recipe: Recipe) -> Separator | None:
    """Loaded once a process; None where stems are given."""
    if recipe.separator == GIVEN:
        return None
    from hafm_jax.audio.separators import load_separator  # here: --help and given stems do without its libraries

    return load_separator(recipe.separator, recipe.weights, recipe.sha256)


# --------------------------------------------------------------------------------------------------------- one song


def to_stereo(audio: np.ndarray) -> np.ndarray:
    """[C, S] -> [2, S]: one channel twice, two as they are, of more their mean twice."""
    return audio if len(audio) == 2 else np.repeat(to_mono(audio)[None], 2, axis=0)


def one_line(error: Exception, recipe: Recipe) -> str:
    """The message without what differs between machines, fit for any terminal."""
    text = str(error).replace(f"{recipe.music}{os.sep}", "")
    return " ".join(text.encode(errors="backslashreplace").decode().split())


def read_mixture_and_vocals(track: Track, recipe: Recipe, separator: Separator | None) -> tuple[np.ndarray, np.ndarray]:
    """float32 [S] each, at SONG_SAMPLE_RATE_HZ. Raises Unfit."""
    limits = recipe.limits
    max_s = limits.max_s + 1  # enough to see that it is too long
    try:
        if separator is None:
            stems = corpora.read_stems(track, max_s)
            mixture, rate_hz = stems.vocals + stems.instrumental, stems.sample_rate_hz
        else:
            mixture, rate_hz = read_source(track.mixture, max_s)
    except InputError as error:
        raise Unfit(Reason.DAMAGED, one_line(error, recipe)) from error
    limits.check_length(mixture.shape[1] / rate_hz)
    limits.check_sound("mixture", mixture)
    if separator is None:
        vocals = stems.vocals
    else:
        mixture, rate_hz = resample(to_stereo(mixture), rate_hz, separator.sample_rate_hz), separator.sample_rate_hz
        vocals = separator.separate(mixture)
        if vocals.shape != mixture.shape:
            raise ValueError(f"the separator gave {vocals.shape} for {mixture.shape}; expected one shape")
        if not np.isfinite(vocals).all():
            raise Unfit(Reason.DAMAGED, "the separator's vocals hold NaN or infinity")
    return tuple(resample(to_mono(audio), rate_hz, SONG_SAMPLE_RATE_HZ) for audio in (mixture, vocals))


def make_song(recipe: Recipe, track: Track) -> Song | Reject:
    """Write the song's folder under a dot name, rename it, and return its song.json; or why there is none."""
    separator = separator_of(recipe)
    try:
        mixture, vocals = read_mixture_and_vocals(track, recipe, separator)
        recipe.limits.check_singing(vocals)
        instrumental = mixture - vocals
        recipe.limits.check_sound("instrumental", instrumental)
    except Unfit as unfit:
        return Reject(track.id, track.split, unfit.reason, unfit.detail)
    peak = max(np.abs(vocals).max(), np.abs(instrumental).max())
    gain = float(np.float32(min(1.0, FULL_SCALE / peak)))
    used = [track.mixture] if separator else [track.vocals, *track.instrumental]
    song = {
        "id": track.id,
        "split": track.split,
        "licence": track.licence,
        **track.facts,
        "source": sorted({source.path.relative_to(recipe.music).as_posix() for source in used}),
        "seconds": round(len(vocals) / SONG_SAMPLE_RATE_HZ, 3),
        "vocal_dbfs": round(rms_dbfs(vocals), 2),  # in the mixture, that is, before the gain
        "gain": gain,
        "separator": recipe.separator,
        "separator_sha256": separator.sha256 if separator else None,
    }
    folder = recipe.out / track.split / track.id
    partial = folder.with_name(f".{track.id}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        write_audio(partial / "vocals.flac", vocals * np.float32(gain), SONG_SAMPLE_RATE_HZ)
        write_audio(partial / "instrumental.flac", instrumental * np.float32(gain), SONG_SAMPLE_RATE_HZ)
        (partial / SONG_FILE).write_text(json.dumps(song, indent=1) + "\n")
        partial.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was asked for the same part and wrote the same song
            raise InputError(
                f"cannot write {folder} ({error.strerror or error}); expected a folder with space and permission: make "
                "room, and the same command goes on"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return song


# ------------------------------------------------------------------------------------------------------ the command


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    limits = Limits()
    add("--music", type=Path, required=True, help="the collection's folder")
    add("--layout", choices=corpora.LAYOUTS, required=True, help="how it is laid out")
    add("--metadata", type=Path, help="fma: the archive's fma_metadata, for its tracks.csv")
    add("--separator", choices=("demucs", "mdx", GIVEN), required=True, help="given: the stems of musdb as they are")
    add("--weights", help="demucs, mdx: file, folder, URL or Hub id of the network")
    add("--sha256", help="what the weights must have")
    add("--out", type=Path, required=True, help="folder for the songs; made if missing")
    add("--min-seconds", type=float, default=limits.min_s, help="shorter tracks are left out (default: %(default)s)")
    add("--max-seconds", type=float, default=limits.max_s, help="longer tracks are left out (default: %(default)s)")
    add(
        "--vocal-gate-dbfs",
        type=float,
        default=limits.vocal_gate_dbfs,
        help="tracks with fainter vocals, 20 log10 of their RMS, are left out (default: %(default)s)",
    )
    add(
        "--validation-share",
        type=float,
        default=corpora.VALIDATION_SHARE,
        help="folder: of all tracks, 0..1 (default: %(default)s)",
    )
    add(
        "--test-share",
        type=float,
        default=corpora.TEST_SHARE,
        help="folder: of all tracks, 0..1 (default: %(default)s)",
    )
    add("--part", type=Part.parse, default=Part(), help="I/N: every N-th track from the I-th (default: all)")
    add("--workers", type=int, default=1, help="processes, each with its own separator (default: %(default)s)")
    arguments = parser.parse_args()
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
        raise InputError("--vocal-gate-dbfs is no number; expected one, or -inf for no gate")
    if arguments.workers < 1:
        raise InputError(f"--workers is {arguments.workers}; expected 1 or more")
    if arguments.out.resolve().is_relative_to(arguments.music.resolve()):
        raise InputError(f"--out {arguments.out} lies in --music; expected another place: songs would become music")
    return arguments


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    arguments = parse_arguments()
    shares = {}
    if arguments.layout == "folder":
        shares = {"validation_share": arguments.validation_share, "test_share": arguments.test_share}
    corpus = corpora.find_tracks(arguments.music, arguments.layout, arguments.metadata, **shares)
    if any(source.needs_ffmpeg for track in corpus.tracks for source in track.sources):
        ffmpeg()  # its absence is no fault of the files
    limits = Limits(arguments.min_seconds, arguments.max_seconds, arguments.vocal_gate_dbfs)
    recipe = Recipe(arguments.music, arguments.out, arguments.separator, arguments.weights, arguments.sha256, limits)
    separator = separator_of(recipe)

    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {arguments.out} ({error.strerror}); expected a place that can be written: give another --out"
        ) from error
    run = {
        "format_version": FORMAT_VERSION,
        "layout": arguments.layout,
        **shares,
        "metadata_sha256": arguments.metadata and sha256_of(corpora.tracks_csv(arguments.metadata)),
        "separator": arguments.separator,
        "separator_sha256": separator.sha256 if separator else None,
        **asdict(limits),
    }
    check_same_run(arguments.out, run)
    ledger = Ledger(arguments.out, corpus, arguments.part)
    num_gpus = work.gpus_here() if separator else 0
    results = work.do_all(functools.partial(make_song, recipe), ledger.todo, arguments.workers, num_gpus=num_gpus)
    with tqdm(total=ledger.num_tracks, initial=ledger.num_done, unit="track", desc="separate") as bar:
        try:
            for _, result in results:
                ledger.add(result)
                if isinstance(result, Reject):
                    bar.write(f"left out {result.split}/{result.id}: {result.reason}, {result.detail}")
                bar.update()
        except KeyboardInterrupt as interrupt:
            results.close()  # the workers end the songs that they have begun
            ledger.add_songs_found()
            done = f"{ledger.num_done} of {ledger.num_tracks} tracks are done; the same command goes on"
            raise KeyboardInterrupt(done) from interrupt
        finally:
            results.close()
            report = ledger.write_report()
    splits = ", ".join(f"{split['songs']} {name} ({split['hours']:.2f} h)" for name, split in report["splits"].items())
    reasons = ", ".join(f"{number} {reason}" for reason, number in report["rejected_by_reason"].items() if number)
    print(f"{arguments.out}: {splits or 'no songs'}; left out: {reasons or 'none'}")


if __name__ == "__main__":
    run_command(main)
