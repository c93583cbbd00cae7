from __future__ import annotations

import os
import stat

import pytest

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import replacing, write_bytes


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(InputError, match=r"cannot write .*none/file"):
        write_bytes(path, b"x")
    assert not list(tmp_path.iterdir())


def test_bytes_are_on_the_disk_before_their_name(tmp_path, monkeypatch):
    """Without it a power failure may leave the name of a file, but not what it held."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*arguments, name=name, real=real):
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            calls.append("folder" if is_folder else name)
            return real(*arguments)

        monkeypatch.setattr(os, name, noted)
    write_bytes(tmp_path / "file", b"new")
    assert calls == ["fsync", "replace", "folder"]
