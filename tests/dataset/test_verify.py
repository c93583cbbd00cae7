"""Verification against what was written, and against damage done at known places."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from helpers import random_record
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.dataset import layout, tfrecord, verify, writer
from hafm_jax.dataset.verify import verify_tokens

NUM_SONGS, NUM_SHARDS = 12, 3


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A whole token set, and what was written into it."""
    folder = tmp_path_factory.mktemp("written")
    songs = [{"id": f"song {k}"} | random_record(1 + k % 4, k) for k in range(NUM_SONGS)]
    splits = (("train", songs, NUM_SHARDS), ("validation", songs[:2], 1))
    summaries = [writer.write_split(folder, *split) for split in splits]
    writer.write_metadata(folder, summaries, {})
    return folder, summaries


@pytest.fixture
def folder(written, tmp_path):
    """A copy of the set, to be damaged."""
    return shutil.copytree(written[0], tmp_path / "tokens")


def places(folder) -> list[tuple]:
    """(shard's path, offset, payload's length) of every record."""
    shards = sorted(folder.glob("*.tfrecord-*"))
    return [(path, int(offset), int(length)) for path in shards for offset, length, _ in tfrecord.walk_records(path)]


def flip(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def named(error) -> set[tuple[str, int]]:
    """(shard's name, byte) of every place that an error names."""
    found = re.findall(r"([\w-]+\.tfrecord-\d{5}-of-\d{5}) at byte (\d+)", str(error.value))
    return {(name, int(at)) for name, at in found}


def test_an_undamaged_set_has_the_written_summaries(written):
    folder, summaries = written
    assert verify_tokens(folder) == summaries
    assert verify_tokens(folder, ["validation"]) == summaries[1:]


@settings(max_examples=15)
@given(damaged=st.sets(st.integers(0, NUM_SONGS + 1), min_size=1, max_size=10), where=st.floats(0, 1, exclude_max=True))
def test_every_damaged_payload_is_named_and_no_other(written, tmp_path_factory, damaged, where):
    folder = shutil.copytree(written[0], tmp_path_factory.mktemp("damaged") / "tokens")
    all_places = places(folder)
    for k in damaged:
        path, offset, length = all_places[k]
        flip(path, offset + tfrecord.HEADER.size + int(where * (length + tfrecord.FOOTER.size)))
    with pytest.raises(InputError, match=f"has {len(damaged)} damaged") as error:
        verify_tokens(folder)
    assert named(error) == {(all_places[k][0].name, all_places[k][1]) for k in damaged}


@settings(max_examples=80)
@given(data=st.data())
def test_a_flipped_bit_of_any_file_is_named(written, tmp_path_factory, data):
    folder = shutil.copytree(written[0], tmp_path_factory.mktemp("flipped") / "tokens")
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))  # shards, lists, tokens.json and both descriptions
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
    with pytest.raises(InputError, match=rf"has 1 damaged(.|\n)*{re.escape(path.name)}"):
        verify_tokens(folder)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "card.html"])
def test_descriptions_that_are_gone_are_named(written, tmp_path, name):
    folder = shutil.copytree(written[0], tmp_path / "tokens")
    (folder / "card.html").write_text("<p>")
    writer.write_metadata(folder, written[1], {})
    verify_tokens(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"has 1 damaged(.|\n)*{name} cannot be read \(No such file"):
        verify_tokens(folder)


def test_a_set_without_checksums_of_its_descriptions_is_said_to_have_none(folder, written, capsys):
    path = folder / layout.TOKENS_FILE
    document = json.loads(path.read_text())
    del document["sha256"], document["files_sha256"]  # as hafm_jax wrote it before
    path.write_text(json.dumps(document))
    (folder / "features.json").write_text("{}")
    assert verify_tokens(folder) == written[1]
    assert "tokens.json is of an earlier hafm_jax and has no checksums" in capsys.readouterr().err


def test_many_damaged_places_are_counted(folder):
    for path, offset, length in places(folder)[:NUM_SONGS]:
        flip(path, offset + tfrecord.HEADER.size + length)
    with pytest.raises(InputError, match=r"has 12 damaged places(.|\n)*and 2 more$") as error:
        verify_tokens(folder)
    assert len(named(error)) == 10


def test_a_broken_frame_hides_the_rest_of_its_shard_alone(folder):
    all_places = places(folder)
    of_second = [place for place in all_places if "train.tfrecord-00001" in place[0].name]
    path, offset, _ = of_second[1]
    flip(path, offset)  # the length
    flip(path, of_second[0][1] + 20)  # before it: found
    flip(path, of_second[2][1] + 20)  # behind it: hidden
    other, at, _ = all_places[-1]
    flip(other, at + 20)  # in another shard: found
    with pytest.raises(InputError, match="nothing behind it in this shard") as error:
        verify_tokens(folder)
    assert named(error) == {(path.name, of_second[0][1]), (path.name, offset), (other.name, at)}


def test_contents_are_checked_where_the_checksum_is_right(folder):
    path = folder / layout.shard_name("validation", 0, 1)
    example = tfrecord.example_class().FromString(path.read_bytes()[12 : 12 + places(folder)[-2][2]])
    example.features.feature["acoustic"].int64_list.value[3] = 1024
    path.write_bytes(tfrecord.frame(example.SerializeToString()) * 2)
    with pytest.raises(InputError, match="has 2 damaged") as error:
        verify_tokens(folder)
    assert str(error.value).count("1024; expected ids in 0..1023") == 2


def test_missing_songs_shards_and_splits_are_found(folder):
    path, offset, _ = places(folder)[NUM_SONGS - 1]
    for damage, found in (
        (lambda: os.truncate(path, offset), r"'songs': 11, .*states {'songs': 12"),  # no frame is broken
        (lambda: os.truncate(path, 0), r"'songs': 8, .*states {'songs': 12"),
        (path.unlink, "00002-of-00003 is missing"),
        (path.mkdir, "00002-of-00003 cannot be opened"),
        ((folder / layout.shard_name("validation", 0, 1)).unlink, "no split validation"),
    ):
        damage()
        with pytest.raises(InputError, match=found):
            verify_tokens(folder)


def test_an_unfinished_set_and_a_list_of_other_lengths_are_named(folder):
    path = folder / layout.index_name("train")
    listed = path.read_text()
    document = json.loads(listed)
    document["length_crc_cells"][0][0][1] ^= 1
    document["sha256"] = layout.index_sha256(document["length_crc_cells"])
    for other, found in (
        (listed.replace(",1]", ",2]"), "cannot be read .*its sha256.*delete it"),
        (json.dumps(document), "is not of these shards: delete it"),
    ):
        path.write_text(other)
        with pytest.raises(InputError, match=rf"train\.index\.json {found}"):
            verify_tokens(folder)
    verify_tokens(folder, ["validation"])
    path.unlink()
    verify_tokens(folder)
    (folder / layout.TOKENS_FILE).unlink()
    with pytest.raises(InputError, match=r"tokens\.json cannot be read"):
        verify_tokens(folder)


def test_a_read_that_the_disk_refuses_is_named(folder, monkeypatch):
    path, offset, _ = places(folder)[5]
    check = verify.check_payload

    def refuse(payload, length, crc, where):
        if where == f"{path} at byte {offset}":
            raise OSError(5, "Input/output error")
        check(payload, length, crc, where)

    monkeypatch.setattr(verify, "check_payload", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Input/output error\)") as error:
        verify_tokens(folder)
    assert named(error) == {(path.name, offset)}
