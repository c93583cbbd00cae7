"""What a call returns: the band, how it was made, its mix with the voice, and their files.

Axes: C channels, S samples, F frames, K codebooks.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from hafm_jax.audio import encoding, files, mixing
from hafm_jax.audio.vocals import Vocal
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, reading, sealed, write_json
from hafm_jax.common.options import check_number
from hafm_jax.common.outputs import check_apart, check_files
from hafm_jax.model import ranges
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

MADE_HERE = "a file that hafm_jax wrote, which says how it was made: give the mix, or the .json beside it"


def output_paths(path: Path) -> tuple[Path, Path, Path]:
    """(mix, instrumental, settings) of a mix that is written to `path`."""
    return path, path.with_name(f"{path.stem}_instrumental{path.suffix}"), path.with_name(f"{path.stem}.json")


def check_absent(path: Path) -> None:
    """Raises InputError where something of the name is there."""
    if os.path.lexists(path):
        raise InputError(f"{path} is there; expected a free name: choose another, or give --force (force=True)")


def check_outputs(
    outputs: Collection[tuple[Path, Path, Path]],
    bits: int,
    channels: int,
    inputs: Mapping[str, Path | None],
    force: bool,
) -> None:
    """To be called before the work. Raises InputError where one of `outputs`, as of `output_paths`, cannot be written,
    would replace one of `inputs` (see `check_apart`), or is there, unless `force` is true."""
    files.check_writable([path for mix_path, stem_path, _ in outputs for path in (mix_path, stem_path)], bits, channels)
    check_files([settings_path for *_, settings_path in outputs])
    paths = [path for each in outputs for path in each]
    check_apart(paths, inputs)
    if not force:
        for path in paths:
            check_absent(path)


def settings_of(path: str | os.PathLike) -> dict[str, Any]:
    """How a mix was made: `Band.settings` and "mix", the arguments of `Band.save`, from its tags or from the .json that
    was written with it. Raises InputError where `path` has none."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        settings = read_json(path, MADE_HERE)
    else:
        with reading(path, MADE_HERE):
            try:
                comment = encoding.tags_of(path).get("comment")
            except av.FFmpegError as error:
                raise ValueError(f"it is not audio: {error.strerror}") from error
            if comment is None:
                raise ValueError("it has no comment")
            settings = json.loads(comment)
    with reading(path, MADE_HERE):
        missing = {"model", "vocal", "seed", "take", "sampling", "skip_fine", "rate_in_tune_hz", "mix"} - {*settings}
        if missing:
            raise KeyError(", ".join(sorted(missing)))
    return settings


@dataclass(frozen=True, eq=False)
class Band:
    """The band of a vocal.

    instrumental: float32 [S] at `sample_rate_hz`, of the vocal's duration; tokens: int32 [F, K] by stream; settings:
    what it takes to make it again, JSON-able.
    """

    instrumental: np.ndarray
    tokens: Mapping[str, np.ndarray]
    vocal: Vocal
    settings: Mapping[str, Any]
    sample_rate_hz: int = CODEC_SAMPLE_RATE_HZ

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    def mix(
        self, balance_lu: float = mixing.BALANCE_LU, loudness_lufs: float | None = None, rate_hz: int | None = None
    ) -> mixing.Mix:
        """The vocal with its band in all of its channels, at the vocal's own rate, or at `rate_hz`.

        The vocal is as it came, but for one gain and, where it has one, its DC offset; at another rate it is resampled.
        balance_lu: loudness of the vocal above the band's; loudness_lufs: integrated loudness of the mix, whose peak is
        -1 dBFS at most all the same. Raises InputError for a number out of its range (model/ranges.py).
        """
        asked = {"balance_lu": balance_lu, "loudness_lufs": loudness_lufs, "rate_hz": rate_hz}
        for name, value in asked.items():
            if value is not None or name == "balance_lu":
                check_number(name, value, *ranges.MIX[name])
        to_hz = rate_hz or self.vocal.rate_hz
        voice = files.resample(self.vocal.audio, self.vocal.rate_hz, to_hz)
        band = files.resample(self.instrumental, self.sample_rate_hz, to_hz)[: voice.shape[1]]
        band = np.pad(band, (0, voice.shape[1] - band.size))  # lengths are rounded twice
        return mixing.mix(voice, band, to_hz, balance_lu, loudness_lufs)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        bits: int = 16,
        balance_lu: float = mixing.BALANCE_LU,
        loudness_lufs: float | None = None,
        rate_hz: int | None = None,
    ) -> mixing.Mix:
        """Write the mix to `path`, the band alone, as it is in the mix, beside it (mix_instrumental.wav), and how both
        were made (mix.json; also in the tags of the files). The mix is returned.

        The suffix names the format: wav (`bits` 16, 24, or 32, which is float), flac (16, 24), ogg, opus, mp3. The rest
        is that of `mix`. Raises InputError where one of the files is there, unless `force` is true, or cannot be
        written.
        """
        if not isinstance(path, str | os.PathLike) or "\0" in str(path):
            raise InputError(f"the path is {path!r}; expected that of a file to write")
        if isinstance(bits, bool) or not isinstance(bits, int):
            raise InputError(f"bits is {bits!r}; expected 16, 24 or 32")
        paths = mix_path, stem_path, settings_path = output_paths(Path(path))
        check_outputs([paths], bits, len(self.vocal.audio), {}, force)
        mixed = self.mix(balance_lu, loudness_lufs, rate_hz)
        how = {"balance_lu": balance_lu, "loudness_lufs": loudness_lufs, "rate_hz": rate_hz, "bits": bits}
        settings = dict(self.settings) | {"mix": how}
        name, version = Path(self.vocal.name).stem, self.settings["versions"]["hafm_jax"]
        tags = {
            "title": f"{name} with a band (seed {self.seed}, take {self.settings['take']})",
            "comment": json.dumps(settings, separators=(",", ":")),
            "software": f"hafm_jax {version}",
        }
        for each, audio in ((stem_path, mixed.instrumental), (mix_path, mixed.audio)):
            files.write_audio(each, audio, mixed.sample_rate_hz, bits, tags)
        write_json(settings_path, sealed(settings))
        return mixed

    def _repr_html_(self) -> str:
        """Players of the mix and of the band, for notebooks."""
        mixed = self.mix()
        players = [
            f"<figure style='margin:0 0 1em'><figcaption>{html.escape(caption)}</figcaption>"
            f"<audio controls src='data:audio/mpeg;base64,{_mp3(audio, mixed.sample_rate_hz)}'></audio></figure>"
            for caption, audio in (
                (f"{Path(self.vocal.name).name} with its band, seed {self.seed}", mixed.audio),
                ("the band alone", mixed.instrumental),
            )
        ]
        return "\n".join(players)


def _mp3(audio: np.ndarray, rate_hz: int) -> str:
    """Audio float32 [C, S] as the text of an MP3; more than two channels become one."""
    audio = audio if len(audio) <= 2 else audio.mean(axis=0, keepdims=True)
    to_hz, out = encoding.written_rate_hz(".mp3", rate_hz), io.BytesIO()
    encoding.encode(out, files.resample(audio, rate_hz, to_hz), to_hz, ".mp3")
    return base64.b64encode(out.getvalue()).decode()
