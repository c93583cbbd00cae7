"""A torch model from a local folder, the Hugging Face Hub or EnCodec's original checkpoint; devices and number types.

A folder (as `save_pretrained` writes it) and what looks like a path touch no network. Only safetensors are read, and
EnCodec's original checkpoint, of whose pickle torch makes tensors and nothing else (weights_only=True).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.errors import InputError

DTYPES = ("float32", "float16", "bfloat16")
INSTALL = 'install the extra: pip install "hafm_jax[torch]"'


def import_torch() -> tuple[Any, Any]:
    """(torch, transformers). Raises InputError where they are not installed."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(f"this needs torch and transformers ({error}): {INSTALL}") from error
    return torch, transformers


def choose_device(torch: Any, name: str | None) -> Any:
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
            f"device {name!r} cannot be used ({_first_line(error)}); expected cpu, or cuda or cuda:N where torch sees "
            "a GPU: name another device"
        ) from error
    if device.type == "cuda":
        # float32 is to stay float32: convolutions in TF32 would move codes. For the process, since threads share it.
        torch.backends.cudnn.allow_tf32 = False
    return device


def choose_dtype(torch: Any, name: str | None, device: Any) -> Any:
    """The torch.dtype called `name`; without a name float16 on CUDA (HuBERT was trained in it), else float32.

    Raises InputError on another name than float32, float16 and bfloat16.
    """
    if name is None:
        name = "float16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}; expected float32, float16 or bfloat16: name one of them")
    return getattr(torch, name)


def load_pretrained(kind: Any, source: str | os.PathLike, name: str) -> Any:
    """The model of class `kind` in a folder or behind a Hub id, float32, in eval mode; `name` it has in errors.

    Raises InputError where it cannot be loaded or lacks weights.
    """
    local = is_local(source)
    if local and not (Path(source) / "config.json").is_file():
        raise InputError(
            f"{source} has no config.json; expected a folder that holds a {name} model, or a Hub id: check the path"
        )
    try:
        model, report = kind.from_pretrained(
            source, local_files_only=local, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        where = "the folder" if local else "the name and the network, or give a local folder"
        raise InputError(
            f"{source} cannot be loaded as a {name} model ({_first_line(error)}); expected config.json and "
            f"model.safetensors: check {where}"
        ) from error
    missing = sorted(report["missing_keys"])
    # `masked_spec_embed` serves HuBERT's training only, and some published checkpoints leave it out
    missing = [key for key in missing if key != "masked_spec_embed"]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} weights of a {name} model, {missing[0]} first; expected all of them: "
            "use a checkpoint of that kind"
        )
    return model.float().eval()


def load_original_encodec(torch: Any, transformers: Any, path: str | os.PathLike) -> Any:
    """The 24 kHz model of the `encodec` package (encodec_24khz-d7cc33bc.th) as a transformers EncodecModel.

    Raises InputError where the file is no such checkpoint.
    """
    use = "use encodec_24khz-*.th of the encodec package, or facebook/encodec_24khz"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        raise InputError(f"{path} cannot be read ({_first_line(error)}); expected tensors by name: {use}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds a {type(state).__name__}; expected tensors by name and nothing else: {use}")
    model = transformers.EncodecModel(transformers.EncodecConfig())  # its defaults are the 24 kHz model
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tensors = {transformers_name(name): value for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path} holds {name} {found.get(name, 'not at all')}; expected {expected.get(name, 'no such tensor')} "
                f"of the 24 kHz model: {use}"
            )
    model.load_state_dict(tensors)
    return model.float().eval()


def transformers_name(original: str) -> str:
    """What transformers calls a tensor of the `encodec` package's model. Both number the layers alike."""
    name = original.replace(".model.", ".layers.").replace("vq.layers.", "layers.").replace("._codebook.", ".codebook.")
    name = re.sub(r"\.(conv|convtr)\.\1\.", ".conv.", name)
    return name.replace(".weight_g", ".parametrizations.weight.original0").replace(
        ".weight_v", ".parametrizations.weight.original1"
    )


def fold_weight_norm(torch: Any, model: Any) -> None:
    """Compute weight-normalised weights once, in place, and not in every call."""
    parametrize = torch.nn.utils.parametrize
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def is_local(source: str | os.PathLike) -> bool:
    """A folder, or what looks like a path: a Hub id is NAME or OWNER/NAME and never starts with a dot or a slash."""
    text = str(source)
    return Path(text).exists() or text.startswith((".", "/", "~")) or text.count("/") > 1


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def sha256_of_weights(model: Any) -> str:
    """SHA-256 over the names and values of all weights, whichever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
