"""The mix of a vocal with its instrumental.

Axes: C channels, S samples, N blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hafm_jax.audio.loudness import SILENT_LUFS, block_powers, loudness_lufs, lufs, mean_power, power_of, sounding

# All ours. At two LU a lead voice is clearly in front of its band, and the band still clear.
BALANCE_LU = 2.0  # loudness of the vocal above the instrumental's, while both sound
LOUDNESS_WITHOUT_VOCAL_LUFS = -20.0  # of the instrumental where the vocal is silent
FAINTEST_VOCAL_LUFS = -30.0  # a fainter vocal is raised to it: 7 LU below EBU R128's programmes, 68 dB above 16 bits
MAX_INSTRUMENTAL_GAIN_DB = 30.0  # more would raise a nearly silent instrumental's noise
PEAK_LIMIT_DBFS = -1.0  # highest sample of a mix, the usual headroom for lossy encoders
NOTICED_DB = 1.0  # the least change of level that listeners notice
LEAST_OFFSET = 0.01  # of the peak: a vocal's DC above it is removed, since it would take the headroom of the sound


class Mix(NamedTuple):
    """`audio` = `vocal_gain` * (vocal - `vocal_offset`) + `instrumental`, exactly as it is written to a file.

    audio: float32 [C, S]; instrumental: float32 [C, S], the stem as it is in the mix; vocal_gain: linear;
    vocal_offset: float32 [C, 1], nearly always 0; vocal_lufs: loudness of the vocal before its gain, -inf for silence;
    limited_lufs: the loudness of the mix where its peak allows no more, and more was asked for, else None.
    """

    audio: np.ndarray
    instrumental: np.ndarray
    vocal_gain: float
    vocal_offset: np.ndarray
    vocal_lufs: float
    sample_rate_hz: int
    limited_lufs: float | None = None


def mix(
    vocal: np.ndarray,
    instrumental: np.ndarray,
    sample_rate_hz: int,
    balance_lu: float = BALANCE_LU,
    target_lufs: float | None = None,
) -> Mix:
    """Put the instrumental behind the vocal and sum them; both [S] or [C, S], of one length and rate.

    The instrumental is set `balance_lu` below the vocal in loudness while both sound, whatever the level of either, or
    to LOUDNESS_WITHOUT_VOCAL_LUFS where the vocal is silent; a silent instrumental stays as it is. A vocal below
    FAINTEST_VOCAL_LUFS is raised to it. The mix has the integrated loudness `target_lufs` where one is given. Where it
    or its stem would peak above PEAK_LIMIT_DBFS, one gain over its whole length prevents it: linear, so no distortion.
    One channel beside several is copied into all of them. Raises ValueError where lengths or channels do not fit.
    """
    vocal, instrumental = (np.atleast_2d(np.asarray(a, np.float32)) for a in (vocal, instrumental))
    if vocal.shape[-1] != instrumental.shape[-1]:
        raise ValueError(f"vocal has {vocal.shape[-1]} samples, instrumental {instrumental.shape[-1]}; trim one first")
    offset = _offset(vocal)
    if offset.any():
        vocal = vocal - offset
    vocal, instrumental = np.broadcast_arrays(vocal, instrumental)  # [C, S]
    offset = np.broadcast_to(offset, (len(vocal), 1))

    vocal_power, instrumental_power = _powers(vocal, instrumental, sample_rate_hz)
    vocal_lufs = lufs(vocal_power)
    limit = np.float32(10 ** (PEAK_LIMIT_DBFS / 20))
    if vocal_lufs < SILENT_LUFS:
        vocal_lufs, vocal_gain, target = -np.inf, 1.0, power_of(LOUDNESS_WITHOUT_VOCAL_LUFS)
    else:
        faintest = np.sqrt(power_of(FAINTEST_VOCAL_LUFS) / vocal_power)
        vocal_gain = max(faintest, min(1.0, limit / _peak(vocal)))
        target = vocal_gain**2 * vocal_power / 10 ** (balance_lu / 10)
    gain = 1.0
    if lufs(instrumental_power) >= SILENT_LUFS:
        gain = min(np.sqrt(target / instrumental_power), 10 ** (MAX_INSTRUMENTAL_GAIN_DB / 20))

    stem = instrumental * np.float32(gain)
    audio = vocal * np.float32(vocal_gain)
    audio += stem
    wanted, found_lufs = np.float32(1.0), -np.inf
    if target_lufs is not None:
        found_lufs = loudness_lufs(audio, sample_rate_hz)
        if found_lufs > -np.inf:
            wanted = np.float32(10 ** ((target_lufs - found_lufs) / 20))
    peak = max(_peak(audio), _peak(stem))
    common = min(wanted, limit / peak) if peak else wanted
    audio *= common
    stem *= common
    limited = float(found_lufs + 20 * np.log10(common)) if target_lufs is not None and common < wanted else None
    gain = float(np.float32(vocal_gain) * common)
    return Mix(audio, stem, gain, offset, float(vocal_lufs), sample_rate_hz, limited)


def describe_loudness(mixed: Mix, target_lufs: float | None) -> str:
    """A line where the mix is fainter than was asked for, else ""."""
    if mixed.limited_lufs is None:
        return ""
    return (
        f"the mix is at {mixed.limited_lufs:.1f} LUFS and not at {target_lufs:.1f}: more would lift its peak above "
        f"{PEAK_LIMIT_DBFS:.0f} dBFS"
    )


def describe_voice(mixed: Mix) -> str:
    """A line on what was done to the vocal, "" where nothing was that could be noticed."""
    if mixed.vocal_lufs == -np.inf:
        return ""
    gain_db = 20 * np.log10(mixed.vocal_gain)
    done = [f"{'raised' if gain_db > 0 else 'lowered'} by {abs(gain_db):.1f} dB"] if abs(gain_db) >= NOTICED_DB else []
    if mixed.vocal_offset.any():
        done.append(f"freed of a DC offset of {np.abs(mixed.vocal_offset).max():.3g}")
    return f"the voice is at {mixed.vocal_lufs:.1f} LUFS: {' and '.join(done)} in the mix" if done else ""


def _powers(vocal: np.ndarray, instrumental: np.ndarray, rate_hz: int) -> tuple[float, float]:
    """Weighted powers of both while both sound: the instrumental's intro does not count, nor a rest of either. Where
    they never sound together, each has its own."""
    of_vocal, of_instrumental = (block_powers(audio, rate_hz) for audio in (vocal, instrumental))  # [N]
    sung = sounding(of_vocal)
    both = sung.copy()
    if sung.any():
        both[sung] = sounding(of_instrumental[sung])
    if both.any():
        return mean_power(of_vocal[both]), mean_power(of_instrumental[both])
    return mean_power(of_vocal[sung]), mean_power(of_instrumental[sounding(of_instrumental)])


def _offset(vocal: np.ndarray) -> np.ndarray:
    """The mean of each channel, float32 [C, 1]; 0 where it is less than LEAST_OFFSET of the peak."""
    offset = vocal.mean(axis=-1, dtype=np.float64, keepdims=True) if vocal.size else np.zeros((len(vocal), 1))
    return np.where(np.abs(offset) < LEAST_OFFSET * _peak(vocal), 0, offset).astype(np.float32)


def _peak(audio: np.ndarray) -> np.float32:
    return np.float32(max(audio.max(initial=0.0), -audio.min(initial=0.0)))
