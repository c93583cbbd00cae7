"""The clips and pictures in examples/: the sound of some clips of an evaluation. After `make evaluate`:

    python -m experiments.examples

For each clip it writes ID.ogg, the vocal with the model's band, mixed as `hafm_jax.sample` mixes them; for the first
one also ID.png, the spectrograms of vocal, model's band and true band, with the song's beats and chords.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from hafm_jax.audio.mixing import mix
from hafm_jax.audio.music import read_song
from hafm_jax.common.errors import run_command
from hafm_jax.common.files import replacing
from hafm_jax.evaluation.clips import CLIP_S, VOCAL, Clip, read_band
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

ROOT = Path(__file__).parents[1]
CLIPS = ("song_000107-0s", "song_000119-0s", "song_000027-0s")  # the first three of configs/protocols/synthetic.json
ROWS = {VOCAL: "the voice", "model": "the demo's band", "truth": "the true band"}
HIGHEST_HZ = 5000  # only cymbals are higher


def picture(bands: dict[str, np.ndarray], song: dict, start_s: float, out: Path) -> None:
    """Spectrograms of bands [S], one below the other, with the song's beats as ticks and its chords by name."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(len(bands), 1, sharex=True)
    for axis, (name, band) in zip(axes, bands.items(), strict=True):
        loudest = 20 * np.log10(np.abs(band).max() + 1e-9)
        band = band + 1e-7 * np.random.default_rng(0).standard_normal(band.shape)  # keeps silence above -inf dB
        axis.specgram(band, NFFT=2048, Fs=CODEC_SAMPLE_RATE_HZ, noverlap=1536, vmin=loudest - 110, vmax=loudest - 30)
        axis.set(ylim=(0, HIGHEST_HZ), ylabel="Hz", title=ROWS[name])
        for beat_s in song["beats_s"]:
            axis.axvline(beat_s - start_s, ymin=0.94, color="white", linewidth=1)
    for chord in song["chords"]:
        if 0 <= chord["start_s"] - start_s < CLIP_S - 0.3:
            axes[-1].text(chord["start_s"] - start_s + 0.04, HIGHEST_HZ * 0.8, chord["name"], color="white")
    axes[-1].set(xlabel="s", xlim=(0, CLIP_S))
    with replacing(out) as unfinished:
        figure.savefig(unfinished, format="png", dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, evaluation = parser.add_argument, ROOT / "build" / "evaluation"
    add("--songs", type=Path, default=evaluation / "songs", help="songs of the evaluation (default: make evaluate's)")
    add("--report", type=Path, default=evaluation / "report", help="report of hafm_jax.evaluate (default: the same's)")
    add("--clips", nargs="+", default=CLIPS, help="clips by the names in the report's clips.csv (default: the first 3)")
    add("--out", type=Path, default=ROOT / "examples", help="folder (default: examples)")
    arguments = parser.parse_args()
    for clip_id in arguments.clips:
        vocal, band = (read_band(arguments.report, name, clip_id) for name in (VOCAL, "model"))
        mixed = mix(vocal, band, CODEC_SAMPLE_RATE_HZ)
        with replacing(arguments.out / f"{clip_id}.ogg") as unfinished:
            soundfile.write(unfinished, mixed.audio.T, CODEC_SAMPLE_RATE_HZ, "VORBIS", format="OGG")
    clip = Clip.of_id(arguments.clips[0])
    bands = {name: read_band(arguments.report, name, clip.id) for name in ROWS}
    picture(bands, read_song(arguments.songs / "test" / clip.song), clip.start_s, arguments.out / f"{clip.id}.png")


if __name__ == "__main__":
    run_command(main)
