"""Sets of one make agree; whatever is changed in tokens.json is noticed."""

from __future__ import annotations

import hashlib
import json

import pytest
from helpers import write_token_set

from hafm_jax.common.errors import InputError
from hafm_jax.dataset import fingerprint, layout, records, tfrecord

MADE_BY = {"semantic": {"centroids_sha256": "5ea"}, "codec": {"weights_sha256": "c0d"}, "seed": 0}


@pytest.fixture
def make_set(tmp_path):
    def make(name: str, num_songs: int = 2, made_by: dict = MADE_BY, seed: int = 0):
        numbers = {"num_train": num_songs, "num_validation": 1, "num_cells": 2, "num_shards": 8}
        return write_token_set(tmp_path / name, seed, made_by, **numbers)

    return make


def test_sets_of_the_same_tokenizers_agree(make_set):
    facts = fingerprint.check_compatible([make_set("a"), make_set("b", 3, MADE_BY | {"seed": 7})])
    assert facts["centroids_sha256"] == "5ea" and facts["codec_sha256"] == "c0d"
    assert facts["format_version"] == "1.0.0"
    assert facts["fields"]["acoustic"] == {"frames_per_cell": 3, "codebooks": 8, "vocabulary": 1024}


@pytest.mark.parametrize(
    "other, found",
    [
        (MADE_BY | {"semantic": {"centroids_sha256": "999"}}, "centroids_sha256 999; .* has 5ea"),
        (MADE_BY | {"codec": {"weights_sha256": "999"}}, "codec_sha256 999; .* has c0d"),
        ({"seed": 0}, "centroids_sha256 None; .* has 5ea"),
    ],
)
def test_sets_of_other_tokenizers_are_refused(make_set, other, found):
    with pytest.raises(InputError, match=found):
        fingerprint.check_compatible([make_set("a"), make_set("b"), make_set("c", made_by=other)])


def test_tokenizers_that_did_not_make_the_tokens_are_refused(tokenizers):
    (weights,) = (tokenizers / "codec").glob("*.safetensors")
    config = json.loads((tokenizers / "semantic" / "config.json").read_text())
    codec_sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    own = {"centroids_sha256": config["centroids_sha256"], "codec_sha256": codec_sha256}
    unknown = dict.fromkeys(own)  # what sets from before they were written have
    fingerprint.check_made_by(tokenizers, {"a": own, "b": unknown, "c": {}})
    for name, found in own.items():
        with pytest.raises(InputError, match=f"has the {name} {found}; b has 999"):
            fingerprint.check_made_by(tokenizers, {"a": own, "b": own | {name: "999"}})


def test_another_format_is_refused(make_set):
    folder = make_set("a")
    document = layout.read_tokens_json(folder)
    other_fields = document["fields"] | {"acoustic": document["fields"]["acoustic"] | {"vocabulary": 2048}}
    for change, found in (
        ({"fields": other_fields}, r"fields .*2048.*; this hafm_jax reads .*1024"),
        ({"format_version": "2.0.0"}, r"format_version 2\.0\.0; this hafm_jax reads 1\.0\.0"),
        ({"fields": None}, "has the fields None"),
    ):
        changed = document | change
        (folder / layout.TOKENS_FILE).write_text(json.dumps(changed | {"sha256": layout.tokens_sha256(changed)}))
        with pytest.raises(InputError, match=found):
            fingerprint.check_compatible([folder])
        (folder / layout.TOKENS_FILE).write_text(json.dumps(changed))
        with pytest.raises(InputError, match="not those of its sha256"):
            fingerprint.check_compatible([folder])


def test_descriptions_of_different_data_differ(make_set):
    a = records.TokenRecords(make_set("a"), "train")
    same = records.TokenRecords(make_set("same"), "train")
    b = records.TokenRecords(make_set("b", 3, seed=9), "train")
    describe = fingerprint.describe_data
    alone = describe([(a, 1)])
    assert alone == describe([(same, 1)]) == json.loads(json.dumps(alone))
    assert (alone["records"], alone["fingerprint"]) == (2, a.fingerprint)
    assert alone["tokenizers"] == {"centroids_sha256": "5ea", "codec_sha256": "c0d"}
    mixtures = [[(a, 1), (b, 1)], [(a, 1), (b, 2)], [(b, 1), (a, 1)]]
    assert len({describe(sets)["fingerprint"] for sets in [*mixtures, [(a, 1)], [(b, 1)]]}) == 5
    assert describe(mixtures[0])["records"] == 5
    with pytest.raises(InputError, match="codec_sha256"):
        other = make_set("other", made_by=MADE_BY | {"codec": {"weights_sha256": "999"}})
        describe([(a, 1), (records.TokenRecords(other, "train"), 1)])


def test_a_set_that_lost_songs_is_refused(make_set):
    folder = make_set("a", 9)
    shard = folder / layout.shard_name("train", 0, 8)  # of nine songs in eight shards it has two
    shard.write_bytes(shard.read_bytes()[: list(tfrecord.walk_records(shard))[1][0]])
    with pytest.raises(InputError, match="has 8 songs of train; expected 9"):
        fingerprint.describe_data([(records.TokenRecords(folder, "train"), 1)])
