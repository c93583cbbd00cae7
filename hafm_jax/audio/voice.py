"""A voice as a tokenizer reads it: whatever the recording's channels, offset and level, one voice at one level.

Axes: C channels, S samples.
"""

from __future__ import annotations

import numpy as np

from hafm_jax.audio.files import resample, to_mono
from hafm_jax.audio.loudness import SILENT_LUFS, block_powers, lufs, mean_power, power_of, sounding
from hafm_jax.streams import SEMANTIC_SAMPLE_RATE_HZ

# Median loudness of the demo's training vocals before augmentation: 48 songs of `make demo-model` (synthesize_songs.py,
# seed 0), of which 80 % are within 1.3 LU.
VOICE_LUFS = -20.3


def one_channel(vocal: np.ndarray, rate_hz: int) -> np.ndarray:
    """A vocal float32 [S] or [C, S] at any rate -> mono float32 [S'] at 16 kHz without DC.

    DC is removed first: at both ends of the file a filter would turn it into clicks, which are louder than a faint
    voice.
    """
    mono = to_mono(vocal)
    offset = np.float32(mono.sum(dtype=np.float64) / max(mono.size, 1))
    return resample(mono - offset, rate_hz, SEMANTIC_SAMPLE_RATE_HZ)


def level(voice: np.ndarray) -> np.ndarray:
    """float32 [S] of `one_channel`, at VOICE_LUFS while it sings; silence stays as it is.

    A gain of a power of two before it changes no bit.
    """
    power = _power(voice)
    return voice if lufs(power) < SILENT_LUFS else voice * np.float32(np.sqrt(power_of(VOICE_LUFS) / power))


def is_silent(vocal: np.ndarray, rate_hz: int) -> bool:
    """Whether a vocal float32 [S] or [C, S] is below SILENT_LUFS even where it is loudest."""
    return lufs(_power(one_channel(vocal, rate_hz))) < SILENT_LUFS


def _power(voice: np.ndarray) -> float:
    """While it sings."""
    powers = block_powers(voice, SEMANTIC_SAMPLE_RATE_HZ)
    return mean_power(powers[sounding(powers)])
