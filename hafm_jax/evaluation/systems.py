"""The systems that an evaluation compares. Each makes a band for a clip's vocal; those above and below the model in the
table calibrate each measure.

The model's acoustic tokens, int32 [F, 8], are stored as REPORT/tokens/model/ID.npz, those of other sampling options as
REPORT/tokens/guidance_scale_5/ID.npz and the like: several systems are decoded from the same tokens.

Axes: F frames, K codebooks, S samples.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import jax
import numpy as np

from hafm_jax.accompany import Accompanist, SamplingOptions
from hafm_jax.audio.files import write_audio
from hafm_jax.audio.music import read_song
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes
from hafm_jax.evaluation.baselines import Library, click_track, random_instrumental, retrieval, silence
from hafm_jax.evaluation.clips import CLIP_SAMPLES, VOCAL, Clip, band_file, read_clip
from hafm_jax.evaluation.protocol import Protocol
from hafm_jax.metrics.analysis import Analysis
from hafm_jax.metrics.coherence import Truth
from hafm_jax.model.sampling import Sampling
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ, STREAMS, num_cells

COARSE_BOOKS = STREAMS["coarse"].codebooks

# In the order of the table.
ABOUT = {
    "truth": "the song's own band",
    "codec8": "the song's own band through the codec, all 8 codebooks: the upper limit for the model",
    "codec4": "the same with the 4 coarse codebooks",
    "model": "the model, as `sample` runs it",
    "model_separated": "the model, with the vocal that a separator extracted from the mixture",
    "no_fine": "the model's coarse codebooks alone (`sample --skip-fine`)",
    "no_guidance": "the model without guidance (`sample --guidance-scale 1`)",
    "no_history_off": "the model without no-history guidance (`sample --no-history-scale 0`)",
    "wrong_vocal": "the model's band for the vocal of another clip",
    "retrieval_oracle": "the library's band nearest in tempo and key, its beats aligned with the song's",
    "retrieval": "the same with tempo, beats and key estimated from the vocal alone",
    "random": "a random band of the library",
    "click": "a click on each beat",
    "silence": "no sound",
}
# (better, worse): the order that is expected of the systems if the model is good.
ORDER = (
    ("truth", "codec8"),
    ("codec8", "codec4"),
    ("codec4", "model"),
    ("codec4", "random"),
    ("model", "model_separated"),  # the cost of a separator
    ("model", "no_fine"),  # the benefit of the fine stage
    ("model", "no_guidance"),  # of guidance
    ("model", "no_history_off"),  # of no-history guidance
    ("model", "wrong_vocal"),
    ("model", "random"),
)
# The largest batch of clips. Ours: on a CPU the KV caches of a batch should fit into the processor's caches; see
# docs/notebook.md.
CLIPS_AT_ONCE, CLIPS_AT_ONCE_ON_CPU = 32, 2
GUIDED = "guidance_"  # followed by the scale, in all stages: the model with another scale than its own


class Bands:
    """The bands of one evaluation, made on demand and stored in its report folder.

    separated: a songs folder with the same songs, but with vocals from a separator. only: names of systems; the others
    are left out. Raises InputError on an unknown name.
    """

    def __init__(
        self,
        report: Path,
        songs: Path,
        protocol: Protocol,
        accompanist: Accompanist,
        library: Library,
        separated: Path | None = None,
        guidance_scales: Sequence[float] = (),
        only: Sequence[str] | None = None,
    ) -> None:
        self._report, self._songs, self._protocol = report, songs, protocol
        self._accompanist, self._library = accompanist, library
        makers: dict[str, Callable[[Clip], np.ndarray]] = {
            "truth": self._truth,
            "codec8": partial(self._through_codec, books=None),
            "codec4": partial(self._through_codec, books=COARSE_BOOKS),
            "model": self._generated,
            "model_separated": partial(self._generated, songs=separated),
            "no_fine": partial(self._generated, books=COARSE_BOOKS),
            "no_guidance": partial(self._generated, guidance_scale=1.0),
            "no_history_off": partial(self._generated, no_history_scale=0.0),
            "wrong_vocal": self._of_another,
            "retrieval_oracle": partial(self._retrieved, oracle=True),
            "retrieval": partial(self._retrieved, oracle=False),
            "random": lambda clip: random_instrumental(library, CLIP_SAMPLES, protocol.seed_of(clip)),
            "click": lambda clip: click_track(self._truth_of(clip).beats_s, CLIP_SAMPLES),
            "silence": lambda clip: silence(CLIP_SAMPLES),
        }
        if separated is None:
            del makers["model_separated"]
        if not any(own.no_history_scale for own in accompanist.sampling.values()):
            del makers["no_history_off"]
        makers |= {f"{GUIDED}{w:g}": partial(self._generated, guidance_scale=w) for w in guidance_scales}
        if unknown := [name for name in only or () if name not in makers]:
            raise InputError(f"no system is called {', '.join(unknown)}; expected some of {', '.join(makers)}")
        self._makers = {name: make for name, make in makers.items() if only is None or name in only}

    @property
    def systems(self) -> list[str]:
        return list(self._makers)

    def make(self, system: str, clip: Clip) -> None:
        """Write the band of a system, or the vocal, unless its file exists. Raises what making it raises."""
        path = band_file(self._report, system, clip.id)
        if path.exists():
            return
        audio = self._vocal(self._songs, clip) if system == VOCAL else self._makers[system](clip)
        if len(audio) != CLIP_SAMPLES:
            raise ValueError(f"{system} made {len(audio)} samples for {clip.id}; expected {CLIP_SAMPLES}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, audio, CODEC_SAMPLE_RATE_HZ)

    def _truth_of(self, clip: Clip) -> Truth:
        return Truth.of_clip(
            self._truth(clip), read_song(self._songs / self._protocol.rule.split / clip.song), clip.start_s
        )

    def _truth(self, clip: Clip) -> np.ndarray:
        return read_clip(self._songs, self._protocol.rule.split, clip, "instrumental")

    def _vocal(self, songs: Path, clip: Clip) -> np.ndarray:
        return read_clip(songs, self._protocol.rule.split, clip, "vocals")

    def _through_codec(self, clip: Clip, books: int | None) -> np.ndarray:
        codec = self._accompanist.codec
        return codec.decode(codec.encode(self._truth(clip)[None])[..., :books])[0]

    def _generated(
        self, clip: Clip, books: int | None = None, songs: Path | None = None, **overrides: float
    ) -> np.ndarray:
        """overrides: fields of Sampling that replace the model's own in all stages."""
        tokens = self._tokens(clip, overrides, songs or self._songs)
        return self._accompanist.codec.decode(tokens[None, :, :books])[0]

    def _tokens(self, clip: Clip, overrides: dict[str, float], songs: Path) -> np.ndarray:
        """int32 [F, K]. Missing ones are generated in a batch with those of the next clips: that is faster."""
        name = "_".join(f"{field}_{value:g}" for field, value in overrides.items()) or "model"
        folder = self._report / "tokens" / (name + ("" if songs == self._songs else "_separated"))
        if not _tokens_file(folder, clip).exists():
            clips = self._protocol.clips[self._protocol.clips.index(clip) :]
            waiting = [c for c in clips if not _tokens_file(folder, c).exists()]
            wanted = CLIPS_AT_ONCE_ON_CPU if jax.default_backend() == "cpu" else CLIPS_AT_ONCE
            at_once = self._accompanist.fitting(
                SamplingOptions(wanted, self._sampling(overrides)),
                self._vocal(songs, clip)[None].shape,
                CODEC_SAMPLE_RATE_HZ,
            )
            with suppress(Exception):  # another clip may be the cause: it fails again when its own turn comes
                self._generate(waiting[:at_once], overrides, songs, folder)
        if not _tokens_file(folder, clip).exists():
            self._generate([clip], overrides, songs, folder)
        with np.load(_tokens_file(folder, clip), allow_pickle=False) as arrays:
            return arrays["tokens"]

    def _sampling(self, overrides: dict[str, float]) -> dict[str, Sampling]:
        return {name: own._replace(**overrides) for name, own in self._accompanist.sampling.items()}

    def _generate(self, clips: Sequence[Clip], overrides: dict[str, float], songs: Path, folder: Path) -> None:
        tokens = self._accompanist.tokens_of_each(
            [self._vocal(songs, clip)[None] for clip in clips],
            CODEC_SAMPLE_RATE_HZ,
            num_cells(CLIP_SAMPLES, CODEC_SAMPLE_RATE_HZ),
            SamplingOptions(sampling=self._sampling(overrides)),
            seeds=[self._protocol.seed_of(clip) for clip in clips],
        )
        folder.mkdir(parents=True, exist_ok=True)
        for clip, found in zip(clips, tokens, strict=True):
            file = io.BytesIO()
            np.savez(file, tokens=found)  # unlike npy it has a checksum
            write_bytes(_tokens_file(folder, clip), file.getvalue())

    def _of_another(self, clip: Clip) -> np.ndarray:
        clips = self._protocol.clips
        at = clips.index(clip)
        other = next((c for c in clips[at + 1 :] + clips[:at] if c.song != clip.song), None)
        if other is None:
            raise InputError("all clips are of one song; expected two or more, for the wrong vocal: add songs")
        return self._generated(other)

    def _retrieved(self, clip: Clip, oracle: bool) -> np.ndarray:
        facts = self._truth_of(clip) if oracle else Analysis(self._vocal(self._songs, clip))
        return retrieval(self._library, facts, CLIP_SAMPLES)


def _tokens_file(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.id}.npz"


def about(system: str) -> str:
    return ABOUT.get(system) or f"the model with guidance scale {system.removeprefix(GUIDED)}"
