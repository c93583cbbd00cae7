"""Embeddings of sound, for distances between sets of sounds: four kinds with one interface.

    kind      weights                                rate         one embedding    dimensions
    mel       none: statistics of ours               24 kHz       0.96 s           70
    vggish    AudioSet's, torch port                 16 kHz       0.96 s           128
    clap      transformers ClapModel                 48 kHz       10 s             512
    encodec   transformers EncodecModel              24 kHz       1 s              128

Distances can be compared within one kind and one set of weights and, where they are biased, one number of clips.

Axes: S samples, N embeddings, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hafm_jax.audio.files import resample
from hafm_jax.common.errors import InputError

WEIGHTS = {  # kind -> what the argument `weights` may name
    "vggish": "vggish-10086976.pth (github.com/harritaylor/torchvggish, release v0.1), or its tensors as safetensors",
    "clap": "laion/larger_clap_music, or the folder of such a model",
    "encodec": "facebook/encodec_24khz, the folder of such a model, or encodec_24khz-d7cc33bc.th",
}


@dataclass(frozen=True)
class Embedding:
    """Call it with audio float32 [S] and its rate in Hz: float32 [N, D]. `name` is its kind.

    sha256: of the weights, None without weights. sample_rate_hz: its input rate; other rates are resampled to it.
    min_samples: at that rate, for one embedding. compute: [S] at that rate -> [N, D].
    """

    name: str
    sha256: str | None
    sample_rate_hz: int
    min_samples: int
    compute: Callable[[np.ndarray], np.ndarray]

    @property
    def label(self) -> str:
        """Its kind and the start of its hash: unique among embeddings of one kind."""
        return self.name if self.sha256 is None else f"{self.name}-{self.sha256[:12]}"

    def __call__(self, audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        """Raises InputError where the audio is too short, ValueError where it is not mono."""
        if audio.ndim != 1:
            raise ValueError(f"audio has shape {audio.shape}; expected [S], one channel (hafm_jax.audio.files.to_mono)")
        audio = resample(audio, sample_rate_hz, self.sample_rate_hz)
        if audio.size < self.min_samples:
            raise InputError(
                f"the audio lasts {audio.size / self.sample_rate_hz:.2f} s; expected "
                f"{self.min_samples / self.sample_rate_hz:.2f} s or more for one {self.name} embedding: use longer "
                "clips"
            )
        return self.compute(audio)


def load_embedding(kind: str, weights: str | None = None, sha256: str | None = None) -> Embedding:
    """The embedding called `kind`: "mel", "vggish", "clap" or "encodec".

    `weights` is a local path, a Hub id, or for vggish an https URL (common.download). `sha256` is the expected hash:
    for vggish that of the file, for clap and encodec that of all names and values, whatever file they come from. Raises
    InputError where the kind is unknown, or its weights are missing, cannot be loaded, or have another hash.
    """
    if kind == "mel":
        if weights is not None or sha256 is not None:
            raise InputError(f"mel has no weights; found {weights or sha256}: leave them out, or choose another kind")
        from hafm_jax.metrics import mel

        return Embedding(kind, None, mel.SAMPLE_RATE_HZ, mel.MIN_SAMPLES, mel.mel_statistics)
    if kind not in WEIGHTS:
        raise InputError(f"no embedding is called {kind!r}; expected mel, {', '.join(WEIGHTS)}")
    if weights is None:
        raise InputError(f"{kind} needs weights, but found none; expected {WEIGHTS[kind]}")
    if kind == "vggish":
        from hafm_jax.metrics import vggish

        params, found = vggish.load(weights, sha256)
        return Embedding(
            kind, found, vggish.SAMPLE_RATE_HZ, vggish.MIN_SAMPLES, lambda audio: vggish.embed(params, audio)
        )
    from hafm_jax.metrics import torch_embeddings

    model = {"clap": torch_embeddings.Clap, "encodec": torch_embeddings.Encodec}[kind](weights, sha256)
    return Embedding(kind, model.sha256, model.sample_rate_hz, model.min_samples, model.embed)
