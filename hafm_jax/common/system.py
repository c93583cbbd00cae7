"""What differs between operating systems: locks, reads at an offset, waiting for the disk, the standard input.

The tests run on Linux. Windows and macOS are met only by stand-ins (tests/common/test_system.py).
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STANDARD_INPUT = "/dev/stdin"
NONBLOCK, BINARY = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_BINARY", 0)  # of POSIX, of Windows
RETRY_S = 0.1
_LOCKED_BYTE = 1 << 30  # beyond what a lock file holds: Windows locks bytes for readers too
_seeking = threading.Lock()


def lock(file: IO, *, wait: bool = False, shared: bool = False) -> bool:
    """Lock an open file until it is closed or the process ends. False where another has it and `wait` is false.

    Raises OSError where the file system cannot lock, as Windows where the lock is shared.
    """
    if fcntl is None:
        return _lock_on_windows(file, wait, shared)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _lock_on_windows(file: IO, wait: bool, shared: bool) -> bool:
    import msvcrt

    if shared:
        raise OSError(errno.ENOTSUP, "Windows has no shared locks")
    os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
    while True:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                raise
            if not wait:
                return False
            time.sleep(RETRY_S)
        else:
            return True


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """`length` bytes of a file from `offset` on, fewer at its end; several threads may read from one descriptor."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, offset)
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk. Windows syncs no folders, and files only through
    a descriptor that may write."""
    is_folder = path.is_dir()
    if is_folder and sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
