from __future__ import annotations

import errno
import json
import os
import stat
from functools import partial
from pathlib import Path

import pytest
from helpers.full_disk import REASON, files_of_at_most
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.common.files import (
    CHECKSUM,
    MOST_JSON_BYTES,
    make_folder,
    read_json,
    replacing,
    sealed,
    unsealed,
    write_bytes,
    write_json,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


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


@given(room=st.integers(0, 300), length=st.integers(0, 300), old=st.none() | st.binary(max_size=300))
def test_on_a_full_disk_the_file_is_whole_or_as_it_was(tmp_path_factory, room, length, old):
    folder = tmp_path_factory.mktemp("full")
    path = folder / "file"
    if old is not None:
        path.write_bytes(old)
    with files_of_at_most(room):
        if length > room:
            with pytest.raises(OutputError, match=rf"cannot write .*/file \({REASON}\); expected .*: make room"):
                write_bytes(path, bytes(length))
        else:
            write_bytes(path, bytes(length))
    left = {found.name: found.read_bytes() for found in folder.iterdir()}
    assert left == ({"file": bytes(length)} if length <= room else {} if old is None else {"file": old})


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "close"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("read_only", [False, True])
def test_the_reason_is_kept_whichever_call_fails(tmp_path, monkeypatch, call, code, read_only):
    """Also where the unfinished file cannot be removed, for a reason of its own."""
    (tmp_path / "file").write_bytes(b"old")

    def fail(*_, code=code, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    if read_only:
        monkeypatch.setattr(Path, "unlink", partial(fail, code=errno.EROFS))
    with pytest.raises(OutputError) as raised:
        write_bytes(tmp_path / "file", b"new")
    monkeypatch.undo()
    assert f"({os.strerror(code)})" in str(raised.value)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert read_only or len(list(tmp_path.iterdir())) == 1


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


def test_json_is_read_back_and_ends_with_a_newline(tmp_path):
    document = {"name": "é", "values": [1, 2.5, None], "nested": {"a": True}}
    write_json(tmp_path / "x.json", document)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == document and text.endswith("}\n")


def test_a_folder_is_made_with_those_above_it_and_may_be_there(tmp_path):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b", "--out")
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot make the folder .*file.*: choose another --out"):
        make_folder(tmp_path / "file", "--out")
    with pytest.raises(InputError, match=r"cannot make the folder .*file/below"):
        make_folder(tmp_path / "file" / "below", "--out")
    with files_of_at_most(0), pytest.raises(OutputError, match=rf"cannot write in the folder .*a \({REASON}\)"):
        make_folder(tmp_path / "a", "--out")
    assert not any(path.is_file() for path in (tmp_path / "a").rglob("*"))


# ------------------------------------------------------------------------------------------------------------ reading


def refusal(path) -> str:
    with pytest.raises(InputError, match=rf"{path.name} cannot be read .*; expected a thing: do that") as caught:
        read_json(path, "a thing: do that")
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"[1]", "it holds a list, not an object"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b'{"a":' * 200_000, "it is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_json_object_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert reason in refusal(path)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    """A pipe without a writer would wait for ever, /dev/zero never ends, and blanks of 300 MB are JSON."""
    pipe, device, folder, large = (tmp_path / name for name in ("pipe", "device", "folder", "large"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    folder.mkdir()
    large.touch()
    os.truncate(large, 300_000_000)
    assert "not a regular file" in refusal(pipe) and "not a regular file" in refusal(device)
    assert "Is a directory" in refusal(folder) and "No such file" in refusal(tmp_path / "none")
    assert f"300,000,000 bytes, more than {MOST_JSON_BYTES:,}" in refusal(large)


@given(st.dictionaries(st.text(), JSON))
def test_a_sealed_document_comes_back_whatever_the_order_and_the_blanks(document):
    document.pop(CHECKSUM, None)
    text = json.dumps(sealed(document), indent=3)
    assert unsealed(json.loads(text)) == document == unsealed(document)
    turned = dict(reversed(json.loads(text).items()))
    assert unsealed(turned) == document


@given(st.dictionaries(st.text(), JSON, min_size=1), st.data())
def test_a_sealed_document_with_another_value_is_refused(document, data):
    document.pop(CHECKSUM, None)
    name = data.draw(st.sampled_from([*document, "new"]))
    other = data.draw(JSON.filter(lambda value: json.dumps(value) != json.dumps(document.get(name, ...), default=str)))
    with pytest.raises(ValueError, match="does not fit the rest"):
        unsealed(sealed(document) | {name: other})
