"""Nested dicts of arrays <-> safetensors files, the form in which both networks keep their weights."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes


def save(path: Path, tree: dict, dtype: str) -> None:
    """Write a nested dict of arrays, each rounded to `dtype`. Raises InputError where a value is not finite in it."""
    arrays = {}
    for name, leaf in flatten_dict(tree, sep=".").items():
        arrays[name] = np.ascontiguousarray(np.asarray(leaf).astype(jnp.dtype(dtype)))
        if not np.isfinite(arrays[name].astype(np.float32)).all():
            raise InputError(f"{name} holds values that are not finite in {dtype}; train again or export as float32")
    write_bytes(path, safetensors.numpy.save(arrays))


def load(path: Path, like: dict) -> dict:
    """Read a file of `save` as float32, in the structure and shapes of `like`, a nested dict of arrays or shapes.

    Raises InputError where the file is missing, damaged, or holds other arrays.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; expected the weights there: copy the directory again, whole")
    try:
        arrays = safetensors.numpy.load_file(path)
    except Exception as error:  # safetensors raises its own error, and bare ones from its header parser
        raise InputError(f"{path} is not a safetensors file ({error}): copy the directory again, whole") from error
    expected = {name: leaf.shape for name, leaf in flatten_dict(like, sep=".").items()}
    found = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path} holds {name} {found.get(name, 'not at all')}; its config.json expects "
                f"{expected.get(name, 'no such array')}: the two are not of one model"
            )
    values = {name: arrays[name].astype(np.float32) for name in expected}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not finite; copy the directory again, whole")
    return unflatten_dict(values, sep=".")
