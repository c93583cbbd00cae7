"""Is generation stuck in a loop, repeating one frame of codes or a few?

Axes: F frames, K codebooks.
"""

from __future__ import annotations

import numpy as np

LONGEST_LOOP_S = 0.25  # ours: a bar that repeats is music, a quarter of a second is not


def longest_loop_s(codes: np.ndarray, rate_hz: float, where: np.ndarray | None = None) -> float:
    """Seconds of the longest stretch of codes int [F, K] that repeats a loop of LONGEST_LOOP_S or less: each of its
    frames equals, in all codebooks, the frame one loop earlier. A held chord can be such a loop: compare with the true
    band's codes. `where` bool [F]: a stretch ends where it is False.
    """
    inside = np.ones(len(codes), bool) if where is None else np.asarray(where, bool)
    longest = 0
    for period in range(1, int(LONGEST_LOOP_S * rate_hz) + 1):
        same = (codes[period:] == codes[:-period]).all(axis=1) & inside[period:]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]])))
        runs = edges[1::2] - edges[::2]
        if runs.size and runs.max() > period:  # more than once round
            longest = max(longest, int(runs.max()) + period)
    return longest / rate_hz
