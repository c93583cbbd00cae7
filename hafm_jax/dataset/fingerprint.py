"""What made the tokens of a set: the facts of tokens.json that must agree if equal ids are to mean equal sounds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hafm_jax.common.errors import InputError
from hafm_jax.dataset.layout import FIELDS, TOKENS_FILE, VERSION, read_tokens_json
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.tokenizers.codecs import codec_sha256, load_codec
from hafm_jax.tokenizers.semantic import load_semantic

OURS = {"format_version": VERSION, "fields": {name: field._asdict() for name, field in FIELDS.items()}}


def token_facts(directory: str | os.PathLike) -> dict[str, Any]:
    """format_version, fields, centroids_sha256 and codec_sha256 of a token set, None where tokens.json lacks them.

    Raises InputError where there is no tokens.json, or where its format or its fields are not those of this hafm_jax.
    """
    document = read_tokens_json(directory)
    made_by = document.get("made_by", {})
    facts = {
        "format_version": document.get("format_version"),
        "fields": document.get("fields"),
        "centroids_sha256": made_by.get("semantic", {}).get("centroids_sha256"),
        "codec_sha256": made_by.get("codec", {}).get("weights_sha256"),
    }
    for name, expected in OURS.items():
        if facts[name] != expected:
            raise InputError(
                f"{Path(directory) / TOKENS_FILE} has the {name} {facts[name]}; this hafm_jax reads {expected}: "
                "extract the tokens again"
            )
    return facts


def check_compatible(directories: Sequence[str | os.PathLike]) -> dict[str, Any]:
    """The facts that all these token sets share. Raises InputError unless one pair of tokenizers made them all."""
    first, *others = directories
    expected = token_facts(first)
    for other in others:
        found = token_facts(other)
        differing = [name for name in expected if found[name] != expected[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"{other} has the {name} {found[name]}; {first} has {expected[name]}: their ids mean different sounds; "
                "extract both with the same --tokenizers"
            )
    return expected


def check_made_by(tokenizers: Path, made: Mapping[str, Mapping[str, str | None]]) -> None:
    """Raises InputError unless the tokenizers of a folder made all these tokens: owner of the tokens -> their
    centroids_sha256 and codec_sha256, None where they are not known.
    """
    hashes = {
        "centroids_sha256": load_semantic(tokenizers / "semantic").centroids_sha256,
        "codec_sha256": codec_sha256(tokenizers / "codec", load_codec(tokenizers / "codec")),
    }
    for name, found in hashes.items():
        for whose, facts in made.items():
            if facts.get(name) not in (None, found):
                raise InputError(
                    f"{tokenizers} has the {name} {found}; {whose} has {facts[name]}: its ids mean other sounds; give "
                    "the tokenizers that extract_tokens.py was given"
                )


def describe_data(sets: Sequence[tuple[TokenRecords, float]]) -> dict[str, Any]:
    """The description of the data in a run's config.json: equal for equal data, wherever it is stored.

    Holds the records and the fingerprint of all sets together (of one set: its own), the sha256 of centroids and codec,
    and every set's weight. Raises InputError as `check_compatible`, and where a set lacks songs that were written.
    """
    facts = check_compatible([records.directory for records, _ in sets])
    for records, _ in sets:
        expected = read_tokens_json(records.directory)["splits"].get(records.split, {}).get("songs")
        if len(records) != expected:
            raise InputError(
                f"{records.directory} has {len(records)} songs of {records.split}; expected {expected}, as its "
                f"{TOKENS_FILE} states: a shard is not whole, copy the set again"
            )
    each = [{"fingerprint": r.fingerprint, "records": len(r), "weight": float(weight)} for r, weight in sets]
    together = hashlib.sha256(json.dumps(each).encode()).hexdigest()
    return {
        "records": sum(entry["records"] for entry in each),
        "fingerprint": each[0]["fingerprint"] if len(each) == 1 else together,
        "tokenizers": {name: facts[name] for name in ("centroids_sha256", "codec_sha256")},
        "sets": each,
    }
