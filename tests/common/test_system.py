"""Other operating systems by stand-ins on this one: what they lack is hidden, what they refuse is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from hafm_jax.common import system
from hafm_jax.common.files import write_bytes
from hafm_jax.common.resume import claim


@pytest.fixture
def windows_locks(monkeypatch) -> set:
    """No fcntl, and a msvcrt that locks a byte of a file for one descriptor; the locked (inode, byte)."""
    locked = {}

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        key = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        holder = locked.setdefault(key, descriptor)
        if holder != descriptor:
            try:
                os.fstat(holder)
            except OSError:  # closed: the system has let go of its locks
                locked[key] = descriptor
            else:
                raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    return locked


def test_a_claim_is_one_processs_alone_with_either_lock(windows_locks, tmp_path, monkeypatch):
    for fallback in (True, False):
        if not fallback:
            monkeypatch.setattr(system, "fcntl", fcntl)
        with claim(tmp_path / "lock") as first, claim(tmp_path / "lock") as second:
            assert (first, second) == (True, False)
        with claim(tmp_path / "lock") as third:
            assert third
    assert all(byte >= 1 << 30 for _, byte in windows_locks)  # not one that others read


def test_shared_locks_that_windows_lacks_are_an_error(windows_locks, tmp_path):
    with (tmp_path / "lock").open("a") as file, pytest.raises(OSError, match="no shared locks"):
        system.lock(file, shared=True)


def test_parts_of_a_file_are_read_by_several_threads_without_pread(tmp_path, monkeypatch):
    data = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "data").write_bytes(data)
    monkeypatch.delattr(os, "pread")
    with (tmp_path / "data").open("rb") as file, ThreadPoolExecutor(8) as pool:
        spans = [(int(a), int(n)) for a, n in np.random.default_rng(1).integers(0, 50_000, (400, 2))]
        parts = pool.map(lambda span: system.read_at(file.fileno(), span[1], span[0]), spans)
        assert all(part == data[a : a + n] for part, (a, n) in zip(parts, spans, strict=True))


def test_files_are_written_where_only_what_may_write_can_be_synced(tmp_path, monkeypatch):
    """As on Windows: no descriptor of a folder, and FlushFileBuffers wants write access."""
    synced = []

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced.append(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(sys, "platform", "win32")
    write_bytes(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole" and len(synced) == 1
