"""A transformers model from a local folder or the Hugging Face Hub; torch devices, number types and tensors.

What looks like a path (`is_local`) never touches the network. Only safetensors are read, and files of `torch.save`,
from whose pickle torch makes tensors and nothing else (weights_only=True). A Hub id goes to transformers and not to
hafm_jax.common.download: transformers also finds the safetensors that the Hub keeps beside a repository of .bin files.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.errors import InputError, first_line, install, needed_for
from hafm_jax.common.files import read_json
from hafm_jax.tokenizers.choices import DTYPES

INSTALL = f"install the extra: {install('torch')}"


def import_torch() -> tuple[Any, Any]:
    """(torch, transformers). Raises InputError where they are not installed."""
    with needed_for("this needs torch and transformers", INSTALL):
        import torch
        import transformers
    return torch, transformers


def choose_device(torch: Any, name: str | None) -> Any:
    """`find_device`, for networks whose results become tokens or figures: in TF32, convolutions would change codes."""
    device = find_device(torch, name)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # the setting is the process's, since threads share it
    return device


def find_device(torch: Any, name: str | None) -> Any:
    """The torch.device called `name`; without a name CUDA where there is one, else the CPU.

    Raises InputError where this machine has no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used ({first_line(error)}); expected cpu, or cuda or cuda:N where torch sees "
            "a GPU: name another device"
        ) from error
    return device


def choose_dtype(torch: Any, name: str | None, device: Any) -> Any:
    """The torch.dtype called `name`; without a name float16 on CUDA (HuBERT was trained in it), else float32.

    Raises InputError on another name than those of DTYPES.
    """
    if name is None:
        name = "float16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}; expected float32, float16 or bfloat16: name one of them")
    return getattr(torch, name)


def is_local(source: str | os.PathLike) -> bool:
    """A folder, or what looks like a path: a Hub id is NAME or OWNER/NAME and never starts with a dot or a slash."""
    text = str(source)
    return Path(text).exists() or text.startswith((".", "/", "~")) or text.count("/") > 1


def load_pretrained(kind: Any, source: str | os.PathLike, name: str) -> Any:
    """The model of class `kind` in a folder or under a Hub id, float32, in eval mode; errors call it `name`.

    Raises InputError where it cannot be loaded or lacks weights.
    """
    local = is_local(source)
    if local and not (Path(source) / "config.json").is_file():
        raise InputError(
            f"{source} has no config.json; expected a folder that holds a {name} model, or a Hub id: check the path"
        )
    if local:
        read_json(Path(source) / "config.json", f"the config of a {name} model: check the folder")
    try:
        model, report = kind.from_pretrained(
            source, local_files_only=local, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers checks few values of a config, and fails on the others in its own ways
        where = "the folder" if local else "the name and the network, or give a local folder"
        raise InputError(
            f"{source} cannot be loaded as a {name} model ({first_line(error)}); expected config.json and "
            f"model.safetensors: check {where}"
        ) from error
    # `masked_spec_embed` serves only HuBERT's training, and some published checkpoints leave it out.
    missing = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} weights of a {name} model, {missing[0]} first; expected all of them: "
            "use a checkpoint of that kind"
        )
    return model.float().eval()


def read_tensors(path: str | os.PathLike, remedy: str) -> dict[str, Any]:
    """The tensors of a file of `torch.save`, by name. No code in the file is run (weights_only).

    Raises InputError, which ends on the `remedy`, where the file cannot be read or holds anything else.
    """
    torch, _ = import_torch()
    try:
        if not Path(path).is_file():
            raise ValueError("it is not a regular file")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever a file that is none makes of its stack and memo
        raise InputError(f"{path} cannot be read ({first_line(error)}); expected tensors by name: {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds a {type(state).__name__}; expected tensors by name and nothing else: {remedy}")
    return state


def fold_weight_norm(torch: Any, model: Any) -> None:
    """Compute weight-normalised weights once, in place, and not in every call."""
    parametrize = torch.nn.utils.parametrize
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def sha256_of_weights(model: Any) -> str:
    """SHA-256 of the names and values of all weights, whichever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
