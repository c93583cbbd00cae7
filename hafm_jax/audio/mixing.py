"""Loudness after ITU-R BS.1770-4, and the mix of a vocal with its instrumental.

Axes: C channels, S samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# All ours. At two LU a lead voice is clearly in front of its band, and the band still clear.
INSTRUMENTAL_BELOW_VOCAL_LU = 2.0  # integrated loudness of the instrumental below the vocal's
LOUDNESS_WITHOUT_VOCAL_LUFS = -20.0  # of the instrumental where the vocal is silent
MAX_INSTRUMENTAL_GAIN_DB = 30.0  # more would raise a nearly silent instrumental's noise
PEAK_LIMIT_DBFS = -1.0  # highest sample of a mix, the usual headroom for lossy encoders

# ITU-R BS.1770-4: 400 ms blocks every 100 ms; gates at -70 LUFS and 10 LU below the mean; offset of its equation 2.
BLOCK_S = 0.4
HOP_S = 0.1
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
LOUDNESS_OFFSET_LUFS = -0.691


class Mix(NamedTuple):
    """`audio` = `vocal_gain` * vocal + `instrumental`, exactly as it is written to a file.

    audio: float32 [C, S]; instrumental: float32 [C, S], the stem as it is in the mix; vocal_gain: linear, at most 1.
    """

    audio: np.ndarray
    instrumental: np.ndarray
    vocal_gain: float


def _k_weighting(sample_rate_hz: int) -> np.ndarray:
    """BS.1770's two filters as second-order sections [2, 6] at any rate.

    The standard tabulates coefficients at 48 kHz only. These are the analogue prototypes behind that table (bilinear
    transform, constants as in libebur128); at 48 kHz they agree with it to 1e-6, which the filters of
    pyloudnorm do not (docs/notebook.md).
    """

    def section(f0_hz: float, q: float, numerator) -> list[float]:
        k = np.tan(np.pi * f0_hz / sample_rate_hz)
        a0 = 1 + k / q + k * k
        return [*(b / a0 for b in numerator(k, q)), 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]

    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416

    def shelf(k: float, q: float) -> tuple[float, ...]:
        return high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k

    def high_pass(k: float, q: float) -> tuple[float, ...]:
        a0 = 1 + k / q + k * k  # the standard leaves this numerator at exactly 1, -2, 1
        return a0, -2 * a0, a0

    return np.array(
        [
            section(1681.974450955533, 0.7071752369554196, shelf),
            section(38.13547087602444, 0.5003270373238773, high_pass),
        ]
    )


def loudness_lufs(audio: np.ndarray, sample_rate_hz: int) -> float:
    """Integrated loudness of [S] or [C, S] after ITU-R BS.1770-4 (all channels weighted 1); -inf for silence.

    Audio shorter than a block of 400 ms is measured as one block.
    """
    from scipy.signal import sosfilt  # here, since its import takes 0.3 s and only a mix needs it

    audio = np.atleast_2d(audio)  # [C, S]
    power = np.zeros(audio.shape[-1])  # [S]
    for channel in audio:  # one by one, for less memory: the filter makes float64
        power += np.square(sosfilt(_k_weighting(sample_rate_hz), channel))
    block, hop = round(BLOCK_S * sample_rate_hz), round(HOP_S * sample_rate_hz)
    if power.size < block:
        block = max(power.size, 1)
    total = np.concatenate([[0.0], np.cumsum(power)])
    starts = np.arange(0, power.size - block + 1, hop)
    blocks = np.maximum(total[starts + block] - total[starts], 0.0) / block  # mean power of each block

    def gated(gate_lufs: float) -> float:
        kept = blocks[blocks > 10 ** ((gate_lufs - LOUDNESS_OFFSET_LUFS) / 10)]
        return LOUDNESS_OFFSET_LUFS + 10 * np.log10(kept.mean()) if kept.size else -np.inf

    ungated = gated(ABSOLUTE_GATE_LUFS)
    return float(gated(max(ABSOLUTE_GATE_LUFS, ungated + RELATIVE_GATE_LU)))


def mix(vocal: np.ndarray, instrumental: np.ndarray, sample_rate_hz: int) -> Mix:
    """Put the instrumental behind the vocal and sum them; both [S] or [C, S], of one length and rate.

    The instrumental is set INSTRUMENTAL_BELOW_VOCAL_LU below the vocal in integrated loudness, or to
    LOUDNESS_WITHOUT_VOCAL_LUFS where the vocal is silent; a silent instrumental stays as it is. Where the mix or its
    stem would peak above PEAK_LIMIT_DBFS, one gain over its whole length prevents it: linear, so no distortion. One
    channel beside several is copied into all of them. Raises ValueError where lengths or channels do not fit.
    """
    vocal, instrumental = (np.atleast_2d(np.asarray(a, np.float32)) for a in (vocal, instrumental))
    if vocal.shape[-1] != instrumental.shape[-1]:
        raise ValueError(f"vocal has {vocal.shape[-1]} samples, instrumental {instrumental.shape[-1]}; trim one first")
    vocal, instrumental = np.broadcast_arrays(vocal, instrumental)  # [C, S]

    vocal_lufs = loudness_lufs(vocal, sample_rate_hz)
    instrumental_lufs = loudness_lufs(instrumental, sample_rate_hz)
    target_lufs = vocal_lufs - INSTRUMENTAL_BELOW_VOCAL_LU if np.isfinite(vocal_lufs) else LOUDNESS_WITHOUT_VOCAL_LUFS
    gain_db = target_lufs - instrumental_lufs if np.isfinite(instrumental_lufs) else 0.0
    stem = instrumental * np.float32(10 ** (min(gain_db, MAX_INSTRUMENTAL_GAIN_DB) / 20))

    audio = vocal + stem
    peak = max(np.abs(audio).max(initial=0.0), np.abs(stem).max(initial=0.0))
    vocal_gain = np.float32(min(1.0, 10 ** (PEAK_LIMIT_DBFS / 20) / peak)) if peak > 0 else np.float32(1.0)
    return Mix(audio * vocal_gain, stem * vocal_gain, float(vocal_gain))
