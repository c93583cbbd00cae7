"""Nested dicts of arrays <-> safetensors files. Both networks keep their weights this way."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes


def flatten(tree: dict) -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a.b": x}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(str(p.key) for p in path): leaf for path, leaf in leaves}


def save(path: Path, tree: dict, dtype: str) -> None:
    """Write a nested dict of arrays, each rounded to `dtype`. Raises InputError where a value does not survive that."""
    arrays = {}
    for name, leaf in flatten(tree).items():
        arrays[name] = np.ascontiguousarray(np.asarray(leaf).astype(jnp.dtype(dtype)))
        if not np.isfinite(arrays[name].astype(np.float32)).all():
            raise InputError(f"{name} holds values that are not finite in {dtype}; train again or export as float32")
    write_bytes(path, safetensors.numpy.save(arrays))


def load(path: Path, like: dict) -> dict:
    """Read a file of `save` as float32, in the structure and shapes of `like`, nested arrays or abstract ones.

    Raises InputError where the file is missing, damaged, or holds other arrays.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; expected the weights there: copy the directory again, whole")
    try:
        arrays = safetensors.numpy.load_file(path)
    except Exception as error:  # safetensors raises its own error, and bare ones from its header parser
        raise InputError(f"{path} is no safetensors file ({error}); copy the directory again, whole") from error
    expected = {name: leaf.shape for name, leaf in flatten(like).items()}
    found = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path} holds {name} {found.get(name, 'not at all')}; its config.json expects "
                f"{expected.get(name, 'no such array')}: the two are not of one model"
            )
    values = {name: array.astype(np.float32) for name, array in arrays.items()}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not finite; copy the directory again, whole")
    names = iter(flatten(like))
    return jax.tree.map(lambda _: values[next(names)], like)
