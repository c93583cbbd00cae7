"""Loudness after ITU-R BS.1770-4, and the part of it that depends on no absolute level.

Axes: C channels, S samples, N blocks.
"""

from __future__ import annotations

import numpy as np

# ITU-R BS.1770-4: 400 ms blocks every 100 ms; gates at -70 LUFS and 10 LU below the mean; offset of its equation 2.
HOP_S = 0.1
HOPS_PER_BLOCK = 4
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE = 0.1
LOUDNESS_OFFSET_LUFS = -0.691
SILENT_LUFS = -90.0  # ours: a step of 16 bits. What is fainter is the rounding or the dither of silence
HOPS_AT_ONCE = 100  # bounds memory


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


def block_powers(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Weighted power of [S] or [C, S] in each block, float64 [N] (all channels weighted 1). Audio shorter than a block
    is one block."""
    from scipy.signal import sosfilt  # here, since its import takes 0.3 s

    audio = np.atleast_2d(audio)  # [C, S]
    hop, num_hops = round(HOP_S * sample_rate_hz), HOPS_PER_BLOCK
    if audio.shape[-1] < hop * num_hops:
        hop, num_hops = max(audio.shape[-1], 1), 1
    sections = _k_weighting(sample_rate_hz)
    energy = np.zeros(max(audio.shape[-1] // hop, 1))  # of each hop
    for channel in audio:
        state = np.zeros((len(sections), 2))
        for first in range(0, audio.shape[-1] // hop, HOPS_AT_ONCE):
            part = energy[first : first + HOPS_AT_ONCE]
            weighted, state = sosfilt(sections, channel[first * hop : (first + len(part)) * hop], zi=state)
            part += np.square(weighted).reshape(-1, hop).sum(axis=1)
    return np.lib.stride_tricks.sliding_window_view(energy, num_hops).sum(axis=1) / (num_hops * hop)


def sounding(powers: np.ndarray) -> np.ndarray:
    """Which blocks are above the relative gate: bool [N]. No level counts, so that a gain changes nothing."""
    return powers > RELATIVE_GATE * powers.mean()


def mean_power(powers: np.ndarray) -> float:
    """Their mean; 0 for no blocks."""
    return float(powers.mean()) if powers.size else 0.0


def lufs(power: float) -> float:
    """The loudness of a weighted power; -inf for 0."""
    return LOUDNESS_OFFSET_LUFS + 10 * np.log10(power) if power > 0 else -np.inf


def power_of(loudness_lufs: float) -> float:
    """The inverse of `lufs`."""
    return 10 ** ((loudness_lufs - LOUDNESS_OFFSET_LUFS) / 10)


def loudness_lufs(audio: np.ndarray, sample_rate_hz: int) -> float:
    """Integrated loudness of [S] or [C, S] after ITU-R BS.1770-4 (all channels weighted 1); -inf for silence."""
    powers = block_powers(audio, sample_rate_hz)
    powers = powers[powers > power_of(ABSOLUTE_GATE_LUFS)]
    return float(lufs(mean_power(powers[sounding(powers)]))) if powers.size else -np.inf
