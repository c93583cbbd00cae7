"""The model directory: config.json, the stages' weights, the tokenizer and the codec.

config.json                    format version; of each stage its StageConfig, Sampling, training and weights' sha256
semantic.safetensors, coarse.safetensors, fine.safetensors
semantic/  codec/              the tokenizers, as tokenize/ writes them
README.md                      the model card
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from hafm_jax.common import safetensors_io
from hafm_jax.common.download import from_hub
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import make_folder, read_json, reading, sealed, sha256_of, write_bytes, write_json
from hafm_jax.common.options import from_fields
from hafm_jax.model import transformer
from hafm_jax.model.config import StageConfig
from hafm_jax.model.sampling import Sampling
from hafm_jax.model.transformer import Params
from hafm_jax.streams import STAGES

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WHOLE = "a model directory as `hafm export` writes it: copy it again, whole"
TOKENIZERS = ("semantic", "codec")
PARTS = (".json", ".safetensors", ".npy")  # suffixes of what a model directory is read from
DEMO = Path(__file__).parents[1] / "demo"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # it does not begin with a dot, a slash or a tilde


@dataclass(frozen=True)
class StageWeights:
    """One trained stage. `facts`: figures of its training (steps, losses, minutes, ...), JSON-able; `sampling`: its
    default for drawing tokens."""

    config: StageConfig
    params: Params
    facts: dict[str, Any]
    sampling: Sampling = Sampling()  # noqa: RUF009 - immutable


@dataclass(frozen=True)
class Pretrained:
    """A model directory in memory; `directory` still holds `semantic/` and `codec/`."""

    directory: Path
    stages: dict[str, StageWeights]


def check_tokenizers(directory: Path) -> None:
    """Raises InputError where `directory` is not a folder of tokenizers."""
    for part in TOKENIZERS:
        if not (directory / part / CONFIG_FILE).is_file():
            raise InputError(f"{directory} has no {part}/config.json; expected a folder of tokenizers: see tokenize/")


def save_model(directory: Path, stages: dict[str, StageWeights], tokenizers: Path, card: str, dtype: str) -> None:
    """Write a model directory; weights are stored in `dtype`. Raises InputError where it cannot be written."""
    check_tokenizers(tokenizers)
    for part in TOKENIZERS:
        make_folder(directory / part, "--out")
        if not (tokenizers / part).samefile(directory / part):
            for path in (tokenizers / part).rglob("*"):
                if path.is_file() and path.suffix != ".jsonl":  # training logs stay behind
                    copy = directory / part / path.relative_to(tokenizers / part)
                    make_folder(copy.parent, "--out")
                    write_bytes(copy, path.read_bytes())
    described = {}
    for name, stage in stages.items():
        described[name] = {
            "config": asdict(stage.config),
            "sampling": stage.sampling._asdict(),
            "training": stage.facts,
            "sha256": safetensors_io.save(directory / f"{name}.safetensors", stage.params, dtype),
        }
    write_bytes(directory / "README.md", card.encode())
    write_json(directory / CONFIG_FILE, sealed({"format_version": FORMAT_VERSION, "stages": described}))


def find_model(source: str) -> Path:
    """A local directory, or the downloaded snapshot of a Hugging Face Hub id OWNER/NAME or OWNER/NAME@REVISION (a
    branch, a tag or a commit); "demo" is the shipped one.

    Raises InputError where there is neither, or where a downloaded model names a file of this machine as the weights of
    a tokenizer: a stranger's model opens nothing but itself and the Hub.
    """
    path = DEMO if source == "demo" else Path(source)
    with reading(path, "a folder with config.json"):  # a name too long, or with a NUL
        if path.is_dir():
            return path
        there = path.exists()
    if there or not (hub := re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)):
        raise InputError(
            f"no model directory at {source}; expected demo, a folder with config.json, or a Hub id OWNER/NAME or "
            "OWNER/NAME@REVISION"
        )
    directory = from_hub(hub[1], [*(f"*{suffix}" for suffix in PARTS), "README.md"], hub[2])
    for part in TOKENIZERS:
        config = directory / part / CONFIG_FILE
        named = read_json(config, WHOLE).get("source")
        if named is not None and not (isinstance(named, str) and HUB_ID.fullmatch(named)):
            raise InputError(
                f"{config} has the source {named!r}; expected a Hub id OWNER/NAME, since the model is from the Hub: to "
                "use a folder of this machine, copy the model to a folder and name that as --model"
            )
    return directory


def digest_of(directory: Path) -> str:
    """SHA-256 of a model directory's config.json, which holds the digests of the stages' weights, and of the
    tokenizers. Raises InputError where they cannot be read."""
    parts = [path for part in TOKENIZERS for path in sorted((directory / part).rglob("*"))]
    files = [path for path in parts if path.suffix in PARTS]
    with reading(directory, WHOLE):
        return sha256_of([directory / CONFIG_FILE, *files])


def load_model(source: str, names: Collection[str] = tuple(STAGES)) -> Pretrained:
    """Read a model directory (or Hub id) with the stages `names`. Raises InputError where a part is missing, damaged or
    does not fit."""
    directory = find_model(source)
    path = directory / CONFIG_FILE
    config = read_json(path, WHOLE)
    with reading(path, WHOLE):
        version = config["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"{path} has format version {version}; this hafm_jax reads {FORMAT_VERSION}: export again")
        stages = {
            name: (
                from_fields(StageConfig, entry["config"], f"{path}: the {name} stage"),
                entry["training"],
                from_fields(Sampling.checked, entry["sampling"], f"{path}: the {name} stage's sampling"),
            )
            for name, entry in config["stages"].items()
        }
        digests = {name: entry.get("sha256") for name, entry in config["stages"].items()}
    if missing := STAGES.keys() - stages.keys():
        raise InputError(f"{path} has no {' and no '.join(sorted(missing))} stage; expected {', '.join(STAGES)}")
    loaded = {}
    for name in names:
        stage_config, *rest = stages[name]
        shapes = jax.eval_shape(lambda c=stage_config: transformer.init(c, jax.random.key(0)))
        params = safetensors_io.load(directory / f"{name}.safetensors", shapes, digests[name])
        loaded[name] = StageWeights(stage_config, params, *rest)
    return Pretrained(directory, loaded)
