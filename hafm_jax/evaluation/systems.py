"""What is compared: every system makes a band for a clip's vocal. What stands above and below the model in the table
says what each measure is worth.

The model's acoustic tokens, int32 [F, 8], are kept as REPORT/tokens/model/ID.npy, drawn in another way than its own as
guidance_scale_5/ID.npy and the like: several systems are decoded from them.

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
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes
from hafm_jax.evaluation.baselines import Library, click_track, random_instrumental, retrieval, silence
from hafm_jax.evaluation.clips import CLIP_SAMPLES, VOCAL, Clip, band_file, read_clip
from hafm_jax.evaluation.protocol import Protocol
from hafm_jax.metrics.analysis import Analysis
from hafm_jax.metrics.coherence import Truth, read_song
from hafm_jax.model.sampling import Sampling
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ, STREAMS, num_cells

COARSE_BOOKS = STREAMS["coarse"].codebooks

# In the order of the table.
ABOUT = {
    "truth": "the song's own band",
    "codec8": "the song's own band through the codec, all 8 codebooks: what the model could reach at best",
    "codec4": "the same with the 4 coarse codebooks",
    "model": "the model, as `sample` runs it",
    "model_separated": "the model, given the vocal that a separator found in the mixture",
    "no_fine": "the model's coarse codebooks alone (`sample --skip-fine`)",
    "no_guidance": "the model without guidance (`sample --guidance-scale 1`)",
    "no_history_off": "the model without what its conditions alone say (`sample --no-history-scale 0`)",
    "wrong_vocal": "what the model makes for the vocal of another clip",
    "retrieval_oracle": "the library's band nearest in tempo and key, its beats put on the song's",
    "retrieval": "the same by what can be heard in the vocal alone",
    "random": "any of the library's bands",
    "click": "a click on each beat",
    "silence": "nothing",
}
# (better, worse): what sense demands of the systems, with a good model among them.
ORDER = (
    ("truth", "codec8"),
    ("codec8", "codec4"),
    ("codec4", "model"),
    ("codec4", "random"),
    ("model", "model_separated"),  # how much a separator costs
    ("model", "no_fine"),  # what the fine stage is worth
    ("model", "no_guidance"),  # and guidance
    ("model", "no_history_off"),  # and what the conditions alone say
    ("model", "wrong_vocal"),
    ("model", "random"),
)
# Clips that the model generates for together, at most. Ours: on a CPU the KV caches of all of them have to stay in the
# processor's; the demo model takes 2.9 s for one clip, and of two 2.6 s each, of four 3.0 s, of eight 3.3 s.
CLIPS_AT_ONCE, CLIPS_AT_ONCE_ON_CPU = 32, 2
GUIDED = "guidance_"  # and the scale, in all stages: the model with another one than its own


class Bands:
    """The bands of one evaluation, made when asked for and kept in its report folder.

    separated: a songs folder with the same songs, their vocals as a separator found them in the mixtures; only: names
    of systems, the others are left out. Raises InputError where there is none of such a name.
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
        """Write the band of a system, or the vocal, unless it is there. Raises whatever making it raises."""
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
        self, clip: Clip, books: int | None = None, songs: Path | None = None, **otherwise: float
    ) -> np.ndarray:
        """otherwise: fields of Sampling that are not to be the model's own, in all stages."""
        tokens = self._tokens(clip, otherwise, songs or self._songs)
        return self._accompanist.codec.decode(tokens[None, :, :books])[0]

    def _tokens(self, clip: Clip, otherwise: dict[str, float], songs: Path) -> np.ndarray:
        """int32 [F, K]. Where they have to be generated, those of the next clips are too: together is faster."""
        name = "_".join(f"{field}_{value:g}" for field, value in otherwise.items()) or "model"
        folder = self._report / "tokens" / (name + ("" if songs == self._songs else "_separated"))
        if not _tokens_file(folder, clip).exists():
            clips = self._protocol.clips[self._protocol.clips.index(clip) :]
            waiting = [c for c in clips if not _tokens_file(folder, c).exists()]
            wanted = CLIPS_AT_ONCE_ON_CPU if jax.default_backend() == "cpu" else CLIPS_AT_ONCE
            at_once = self._accompanist.fitting(
                SamplingOptions(wanted, self._sampling(otherwise)),
                self._vocal(songs, clip)[None].shape,
                CODEC_SAMPLE_RATE_HZ,
            )
            with suppress(Exception):  # one of the others may be to blame: its own turn will come, and fail
                self._generate(waiting[:at_once], otherwise, songs, folder)
        if not _tokens_file(folder, clip).exists():
            self._generate([clip], otherwise, songs, folder)
        return np.load(_tokens_file(folder, clip), allow_pickle=False)

    def _sampling(self, otherwise: dict[str, float]) -> dict[str, Sampling]:
        return {name: own._replace(**otherwise) for name, own in self._accompanist.sampling.items()}

    def _generate(self, clips: Sequence[Clip], otherwise: dict[str, float], songs: Path, folder: Path) -> None:
        tokens = self._accompanist.tokens_of_each(
            [self._vocal(songs, clip)[None] for clip in clips],
            CODEC_SAMPLE_RATE_HZ,
            num_cells(CLIP_SAMPLES, CODEC_SAMPLE_RATE_HZ),
            SamplingOptions(sampling=self._sampling(otherwise)),
            seeds=[self._protocol.seed_of(clip) for clip in clips],
        )
        folder.mkdir(parents=True, exist_ok=True)
        for clip, found in zip(clips, tokens, strict=True):
            file = io.BytesIO()
            np.save(file, found, allow_pickle=False)
            write_bytes(_tokens_file(folder, clip), file.getvalue())

    def _of_another(self, clip: Clip) -> np.ndarray:
        clips = self._protocol.clips
        at = clips.index(clip)
        other = next((c for c in clips[at + 1 :] + clips[:at] if c.song != clip.song), None)
        if other is None:
            raise InputError(
                "all clips are of one song; expected two songs or more: the wrong vocal is that of another"
            )
        return self._generated(other)

    def _retrieved(self, clip: Clip, oracle: bool) -> np.ndarray:
        facts = self._truth_of(clip) if oracle else Analysis(self._vocal(self._songs, clip))
        return retrieval(self._library, facts, CLIP_SAMPLES)


def _tokens_file(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.id}.npy"


def about(system: str) -> str:
    return ABOUT.get(system) or f"the model with guidance scale {system.removeprefix(GUIDED)}"
