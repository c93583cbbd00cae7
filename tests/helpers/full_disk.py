"""A disk that is full, without root: files may grow to so many bytes and no further."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

REASON = "File too large"  # the system's words for EFBIG, as "No space left on device" for a disk that is full


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """In the block, a write beyond `num_bytes` of a file fails, after it has written what still fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
