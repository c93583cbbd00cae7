"""The two tokenizers of a folder. Of many workers, all make the same tokens, or fail with the difference named.

Axes: K codebooks, V ids of a codebook, D dimensions of a vector.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json
from hafm_jax.common.outputs import check_apart, check_folder
from hafm_jax.tokenizers.codecs import CONFIG_FILE, Codec, codec_sha256, load_codec, read_config
from hafm_jax.tokenizers.semantic import SemanticTokenizer, load_semantic

# The same for any number of workers: the order in which torch's threads add decides the last bits of a sum, and these
# a token now and then. Two, since a worker has two cores by default.
TORCH_THREADS = 2


class Tokenizers(NamedTuple):
    """`facts` for tokens.json decide which tokens are made, by kind (semantic, codec) and name."""

    semantic: SemanticTokenizer
    codec: Codec
    facts: dict[str, dict[str, Any]]


def check_out(out: Path, part: str, songs: Path | None, inputs: Mapping[str, Path | None]) -> None:
    """Raises InputError where the tokenizer `part` (semantic, codec) cannot be written in the folder `out`, or would
    replace songs that it is made of, one of `inputs` (as of `check_apart`), or the tokenizer of a model, whose stages
    know no other."""
    for split in ("train", "validation"):
        check_apart([out / part], {**inputs, "--songs": songs and songs / split})
    check_folder(out)
    if (out / "config.json").exists():
        raise InputError(
            f"{out} has a config.json, so it is a model or a tokenizer itself; expected a new folder, or one of "
            "tokenizers: choose another --out"
        )


@functools.lru_cache(maxsize=1)
def load_tokenizers(folder: Path, dtype: str | None) -> Tokenizers:
    """The tokenizers of a folder, HuBERT in `dtype`; loaded once in each process. Raises InputError as the loaders."""
    use_compilation_cache()
    semantic, codec = load_semantic(folder / "semantic", dtype=dtype), load_codec(folder / "codec")
    names = ("features", "source", "layer", "clusters", "centroids_sha256")
    facts = {name: semantic.config[name] for name in names if name in semantic.config}
    facts["dtype"] = semantic.extractor.dtype
    if semantic.extractor.weights_sha256 is not None:
        facts["weights_sha256"] = semantic.extractor.weights_sha256
    codec_facts = {k: v for k, v in read_config(folder / "codec").items() if not isinstance(v, (dict, list))}
    codec_facts["weights_sha256"] = codec_sha256(folder / "codec", codec)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(TORCH_THREADS)
    return Tokenizers(semantic, codec, {"semantic": facts, "codec": codec_facts})


def token_vectors(folder: Path) -> dict[str, np.ndarray]:
    """The vector of each id of a tokenizers folder, by tokenizer (Stream.tokenizer), each float32 [K, V, D]: the
    centroids, and the vectors of the codebooks."""
    semantic, codec = load_semantic(folder / "semantic"), load_codec(folder / "codec")
    return {"semantic": semantic.centroids[None], "codec": codec.codebooks}


def check_planned(found: dict[str, dict[str, Any]], planned: dict[str, dict[str, Any]]) -> None:
    """Raises InputError where a worker's tokenizers would make other tokens than planned: a GPU has another dtype than
    a CPU by default, and a path or Hub id may lead to other weights."""
    for kind, facts in planned.items():
        for name, expected in facts.items():
            if found[kind].get(name) != expected:
                raise InputError(
                    f"a worker's {kind} tokenizer has the {name} {found[kind].get(name)!r}; expected {expected!r}, as "
                    "planned: give all machines the same files, and devices of one kind or --dtype"
                )


MADE_WITH = "made_with"  # of a tokenizer's config: the arguments of the command that made it


def is_made(folder: Path, arguments: Mapping[str, Any]) -> bool:
    """Whether `folder` holds a tokenizer that a command made with the same arguments. Raises InputError where it holds
    another one: token sets and models may be made with it, and mean nothing without it."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return False
    made_with = read_json(path, "a tokenizer's config: choose another --out").get(MADE_WITH)
    what = "a tokenizer, and no word of the arguments that made it"
    if isinstance(made_with, dict):
        names = [name for name in sorted(arguments.keys() | made_with) if arguments.get(name) != made_with.get(name)]
        if not names:
            return True
        what = f"a tokenizer made with {names[0]} {made_with.get(names[0])!r}, this run has {arguments.get(names[0])!r}"
    raise InputError(
        f"{folder} holds {what}; expected none, or one of the same arguments: choose another --out, or delete this "
        "folder"
    )


def names_sha256(folders: Iterable[Path]) -> str:
    """Of the splits and ids of songs, which are in a config that others may read: their paths are not."""
    names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
