"""The same voice through another microphone, in another room: a model must not depend on these.

Pitch and time stay as they are, since the band that goes with the vocal does not change.

Axes: S samples, B frequency bins.
"""

from __future__ import annotations

import numpy as np

# All ours.
EQUALISER_HZ = (60, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # an octave apart, straight lines between them
EQUALISER_DB = 4.0  # standard deviation at each of them
TELEPHONE_SHARE, TELEPHONE_HZ = 0.08, (300.0, 3400.0)  # the share of vocals that pass this narrow band only
ROOM_SHARE = 0.5
DECAY_S = (0.03, 0.25)  # time constant of the room's reverberation: 60 dB take 6.9 times as long
ROOM_DB = (-24.0, -9.0)  # its energy relative to the direct sound's


def augment_vocal(vocal: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Vocal float32 [S] -> float32 [S] with a random equaliser and room, both drawn from `rng`."""
    reach = int(6 * DECAY_S[1] * rate_hz)
    size = 1 << (len(vocal) + reach - 1).bit_length()
    f_hz = np.fft.rfftfreq(size, 1 / rate_hz)
    equaliser_db = rng.normal(0, EQUALISER_DB, len(EQUALISER_HZ))
    response = 10 ** (np.interp(np.log(np.maximum(f_hz, 1)), np.log(EQUALISER_HZ), equaliser_db) / 20)  # [B]
    if rng.random() < TELEPHONE_SHARE:
        low_hz, high_hz = TELEPHONE_HZ
        response = response * f_hz**2 / (f_hz**2 + low_hz**2) / np.sqrt(1 + (f_hz / high_hz) ** 8)
    if rng.random() < ROOM_SHARE:
        t_s = np.arange(reach) / rate_hz
        room = rng.standard_normal(reach) * np.exp(-t_s / rng.uniform(*DECAY_S))
        room *= 10 ** (rng.uniform(*ROOM_DB) / 20) / np.sqrt(np.sum(room**2))
        response = response * (1 + np.fft.rfft(room, size))
    return np.fft.irfft(np.fft.rfft(vocal, size) * response, size)[: len(vocal)].astype(np.float32)
