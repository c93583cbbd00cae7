from __future__ import annotations

import base64
import json
import pickle
import random

import numpy as np
import pytest
from helpers import contents, random_record
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.dataset import examples, layout, records, tfrecord, writer


def make_record(name: str, num_cells: int, seed: int = 0) -> dict:
    """int64, as NumPy has integers by default."""
    return {"id": name, **{name: tokens.astype(int) for name, tokens in random_record(num_cells, seed).items()}}


def assert_same(found: dict, expected: dict) -> None:
    assert found["id"] == expected["id"] and set(found) == set(expected)
    for name in layout.FIELDS:
        assert found[name].dtype == np.int32
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.fixture
def folder(tmp_path):
    songs = [make_record(f"song_{k}", k + 1, k) for k in range(5)]
    train = writer.write_split(tmp_path, "train", songs, num_shards=2)
    test = writer.write_split(tmp_path, "test", [make_record("näive/7", 3, 9)], num_shards=8)
    writer.write_metadata(tmp_path, [train, test], {"features": "chroma", "seed": 3})
    return tmp_path


# ----------------------------------------------------------------------------------------------------------- framing


def test_crc_against_published_vectors():
    # RFC 3720, appendix B.4: CRC-32C of 32 zeros, 32 ones, and 0..31
    for data, crc in [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)]:
        assert tfrecord.masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_file_against_one_that_tensorflow_wrote(tmp_path):
    # the records "foo" and "bar" as TensorFlow writes them: the constants of Apache Beam's tfrecordio_test.py
    expected = base64.b64decode("AwAAAAAAAACwmUkOZm9vYYq+/gMAAAAAAAAAsJlJDmJhckYA5cg=")
    assert tfrecord.frame(b"foo") + tfrecord.frame(b"bar") == expected
    (tmp_path / "x").write_bytes(expected)
    assert [row[:2] for row in tfrecord.walk_records(tmp_path / "x")] == [(0, 3), (19, 3)]


def test_example_is_tensorflows_message():
    from tensorflow_datasets.proto import tf_example_pb2

    record = make_record("a", 2)
    payload = examples.encode_example(record)
    theirs = tf_example_pb2.Example.FromString(payload)
    assert theirs.features.feature["id"].bytes_list.value == [b"a"]
    assert list(theirs.features.feature["acoustic"].int64_list.value) == record["acoustic"].ravel().tolist()
    assert theirs.SerializeToString(deterministic=True) == payload


# ------------------------------------------------------------------------------------------------------- round trips


@settings(max_examples=20)
@given(
    cells=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    num_shards=st.integers(1, 8),
    name=st.text(max_size=20),
)
def test_written_records_are_read_back(tmp_path_factory, cells, num_shards, name):
    folder = tmp_path_factory.mktemp("tokens")
    songs = [make_record(f"{seed} {name}", n, seed) for seed, n in enumerate(cells)]
    summary = writer.write_split(folder, "train", iter(songs), num_shards)
    assert summary.num_examples == len(songs) and summary.num_cells == sum(cells)
    assert len(list(folder.glob("*.tfrecord-*"))) == len(summary.shard_lengths) == min(num_shards, len(songs))
    source = records.TokenRecords(folder, "train")
    found = {record["id"]: record for record in (source[k] for k in range(len(source)))}
    assert len(source) == len(found) == len(songs)
    for song in songs:
        assert_same(found[song["id"]], song)
    assert_same(source[-1], source[len(source) - 1])
    with pytest.raises(IndexError):
        source[len(source)]


@settings(max_examples=30)
@given(
    values=st.lists(st.one_of(st.integers(0, 1023), st.integers(-(2**63), 2**63 - 1)), max_size=50),
    window=st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_varints_are_protobufs(values, window):
    example = tfrecord.example_class()()
    example.features.feature["x"].int64_list.value.extend(values)
    parsed = tfrecord.example_class(packed=True).FromString(example.SerializeToString())
    varints = tfrecord.Varints(b"".join(parsed.features.feature["x"].int64_list.value))
    assert len(varints) == len(values)
    assert varints[slice(*window)].tolist() == values[slice(*window)]


@pytest.mark.parametrize("packed", [b"\x01\x80", b"\xff" * 10 + b"\x01"])
def test_broken_varints_are_refused(packed):
    with pytest.raises(ValueError, match="an integer"):
        tfrecord.Varints(packed)[:]


@pytest.mark.parametrize("first_cell, num_cells", [(0, 1), (0, 5), (2, 2), (4, 1)])
def test_a_window_is_a_part_of_the_record(folder, first_cell, num_cells):
    source = records.TokenRecords(folder, "train")
    song = source[2]  # of 5 cells
    window = source.window(2, first_cell, num_cells)
    for name, form in layout.FIELDS.items():
        part = slice(first_cell * form.frames_per_cell, (first_cell + num_cells) * form.frames_per_cell)
        np.testing.assert_array_equal(window[name], song[name][part])
    for beyond in ((-1, 2), (3, 3), (2, 0)):
        with pytest.raises(IndexError, match="of 5"):
            source.window(2, *beyond)


def test_a_source_can_be_pickled_and_has_one_fingerprint(folder, tmp_path_factory):
    source = records.TokenRecords(folder, "train")
    assert_same(source[1], source[1])
    copy = pickle.loads(pickle.dumps(source))
    assert_same(copy[1], source[1])
    assert copy.fingerprint == source.fingerprint == records.TokenRecords(folder, "train").fingerprint
    assert records.TokenRecords(folder, "test").fingerprint != source.fingerprint

    other = tmp_path_factory.mktemp("other")
    songs = [make_record(f"song_{k}", k + 1, k) for k in range(5)]
    writer.write_split(other, "train", songs, num_shards=2)
    assert records.TokenRecords(other, "train").fingerprint == source.fingerprint
    songs[3]["acoustic"][2, 5] ^= 1
    writer.write_split(other, "train", songs, num_shards=2)
    assert records.TokenRecords(other, "train").fingerprint != source.fingerprint


def test_tensorflow_datasets_loads_the_folder(folder):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    assert builder.info.splits["train"].num_examples == 5 and builder.info.splits["test"].num_examples == 1
    assert builder.info.splits["train"].shard_lengths == [3, 2]
    assert builder.info.splits["test"].filenames == ["hafm_tokens-test.tfrecord-00000-of-00001"]
    source = records.TokenRecords(folder, "train")
    # The builder's datasets need TensorFlow, and its data sources another file format; its decoder needs neither.
    payload = source._read(0, 12, int(source._index[0, 0]))
    example = builder.info.features.deserialize_example_np(payload)
    assert example["id"] == b"song_0"
    for name in layout.FIELDS:
        np.testing.assert_array_equal(example[name], source[0][name])


def test_tokens_json_holds_what_made_the_tokens(folder):
    document = layout.read_tokens_json(folder)
    assert document["fields"]["acoustic"] == {"frames_per_cell": 3, "codebooks": 8, "vocabulary": 1024}
    assert document["made_by"] == {"features": "chroma", "seed": 3}
    assert document["splits"]["train"] == {"songs": 5, "cells": 15, "hours": pytest.approx(15 / 25 / 3600, abs=1e-6)}
    assert json.loads((folder / "tokens.json").read_text()) == document
    for damaged in ("[]", "{}", '{"splits": [], '):
        (folder / "tokens.json").write_text(damaged)
        with pytest.raises(InputError, match=r"tokens\.json cannot be read"):
            layout.read_tokens_json(folder)


# ------------------------------------------------------------------------------------------------------------ lengths


def lengths_read(folder, monkeypatch) -> tuple[list[int], int]:
    """The lengths of the songs of train, and the number of songs that were read for them."""
    reads = []
    decode = records.decode_example
    monkeypatch.setattr(records, "decode_example", lambda *arguments: reads.append(1) or decode(*arguments))
    return records.TokenRecords(folder, "train").num_cells.tolist(), len(reads)


def test_a_set_is_opened_without_touching_its_shards(folder, monkeypatch, capsys):
    fingerprint, index = records.TokenRecords(folder, "train").fingerprint, folder / "hafm_tokens-train.index.json"
    index.rename(folder / "aside")
    assert records.TokenRecords(folder, "train").fingerprint == fingerprint
    (folder / "aside").rename(index)
    monkeypatch.setattr(records, "walk_records", lambda path: pytest.fail("a shard was read"))
    capsys.readouterr()
    assert lengths_read(folder, monkeypatch) == ([1, 3, 5, 2, 4], 0)  # songs are dealt out to two shards in turn
    assert not capsys.readouterr().err


@pytest.mark.parametrize("damage", ["absent", "another length", "no JSON", "of other shards"])
def test_lengths_of_an_untrusted_index_are_found_by_reading_and_it_is_said(folder, monkeypatch, capsys, damage):
    path = folder / "hafm_tokens-train.index.json"
    listed = path.read_text()
    expected = [1, 3, 5, 2, 4]
    if damage == "absent":
        path.unlink()
    elif damage == "another length":
        path.write_text(listed.replace(",3]", ",9]"))
    elif damage == "no JSON":
        path.write_text(listed[:-5])
    else:
        writer.write_split(folder, "train", [make_record(f"{k}", 7, k) for k in range(5)], num_shards=2)
        path.write_text(listed)
        expected = [7] * 5
    capsys.readouterr()
    assert lengths_read(folder, monkeypatch) == (expected, 5)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "index.json" in line]
    assert line.startswith(f"{path} cannot be read (") and line.endswith(
        "the shards are read instead, which takes longer"
    )


# ------------------------------------------------------------------------------------------------------------ damage


@settings(max_examples=40)
@given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_changed_byte_is_always_found(tmp_path_factory, where, change):
    folder = tmp_path_factory.mktemp("damaged")
    writer.write_split(folder, "train", [make_record(f"{k}", 2, k) for k in range(3)], num_shards=1)
    path = folder / layout.shard_name("train", 0, 1)
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= change
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"00000-of-00001 at byte \d+"):
        source = records.TokenRecords(folder, "train")
        for k in range(len(source)):
            source[k]


def test_a_file_cut_anywhere_is_found(folder):
    path = folder / layout.shard_name("train", 1, 2)
    data = path.read_bytes()
    boundary = tfrecord.framed_size(next(tfrecord.walk_records(path))[1])
    for size in random.Random(0).sample(range(1, len(data)), 40):
        path.write_bytes(data[:size])
        if size == boundary:
            continue  # a whole record less is a shorter file, not a broken one
        with pytest.raises(InputError, match="ends"):
            records.TokenRecords(folder, "train")


def test_a_file_cut_after_the_index_was_made_is_found(folder):
    source = records.TokenRecords(folder, "train")
    path = folder / layout.shard_name("train", 0, 2)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="bytes are left"):
        source[0]


@pytest.mark.parametrize(
    "field, values, found",
    [
        ("vocal_semantic", np.zeros(5, int), "shape"),
        ("vocal_semantic", np.zeros(0, int), "shape"),
        ("instrumental_semantic", np.zeros(2, int), "shape"),
        ("acoustic", np.zeros((6, 7), int), "shape"),
        ("acoustic", np.zeros((5, 8), int), "shape"),
        ("acoustic", np.full((6, 8), 1024), "1024"),
        ("vocal_semantic", np.array([0, 1, 2, 500]), "500"),
        ("vocal_semantic", np.array([0, 1, 2, 2**32]), "0..499"),
        ("instrumental_semantic", np.array([0, 1, 2, -1]), "-1"),
    ],
)
def test_wrong_arrays_are_neither_written_nor_read(tmp_path, monkeypatch, field, values, found):
    record = {**make_record("a", 2), field: values}
    with pytest.raises(InputError, match=found):
        writer.write_split(tmp_path, "train", [make_record("b", 2), record])
    assert not list(tmp_path.iterdir())
    check = examples.check_record
    monkeypatch.setattr(examples, "check_record", lambda *_: None)
    writer.write_split(tmp_path, "train", [record])
    monkeypatch.setattr(examples, "check_record", check)
    with pytest.raises(InputError, match="00000-of-00001 at byte 0"):
        records.TokenRecords(tmp_path, "train")[0]


def test_a_payload_that_is_not_a_token_example(tmp_path):
    path = tmp_path / layout.shard_name("train", 0, 1)
    example = tfrecord.example_class()()
    example.features.feature["id"].bytes_list.value.append(b"a")
    for payload in (b"\xff\xff\xff", example.SerializeToString()):
        path.write_bytes(tfrecord.frame(payload))
        with pytest.raises(InputError, match="at byte 0"):
            records.TokenRecords(tmp_path, "train")[0]


def test_missing_shards_and_splits_are_named(folder, tmp_path_factory):
    with pytest.raises(InputError, match="it has test, train"):
        records.TokenRecords(folder, "validation")
    with pytest.raises(InputError, match="no tokens at all"):
        records.TokenRecords(tmp_path_factory.mktemp("empty"), "train")
    with pytest.raises(InputError, match="extract_tokens"):
        layout.read_tokens_json(folder / "absent")
    (folder / layout.shard_name("train", 0, 2)).unlink()
    with pytest.raises(InputError, match="00000-of-00002 is missing"):
        records.TokenRecords(folder, "train")


def test_an_interrupted_split_leaves_the_old_one(folder):
    before = contents(folder)

    def songs():
        yield make_record("new", 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write_split(folder, "train", songs())
    with pytest.raises(InputError, match="at least one"):
        writer.write_split(folder, "train", [])
    assert contents(folder) == before


def test_a_second_run_replaces_all_shards_of_its_split(folder):
    writer.write_split(folder, "train", [make_record("new", 2)], num_shards=1)
    assert [record["id"] for record in records.TokenRecords(folder, "train")] == ["new"]
    assert len(records.TokenRecords(folder, "test")) == 1
