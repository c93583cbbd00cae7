"""Nested dicts of arrays <-> safetensors files, the form in which both networks keep their weights."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import sha256_of, write_bytes

DTYPES = ("F32", "F16", "BF16")  # safetensors' names; float32 holds every value of them
AGAIN = "copy the directory again, whole"


def save(path: Path, tree: dict, dtype: str) -> str:
    """Write a nested dict of arrays, each rounded to `dtype`. Returns the file's SHA-256, for a config beside it.

    Raises InputError where a value is not finite in `dtype`, or the place cannot be written.
    """
    arrays = {}
    for name, leaf in flatten_dict(tree, sep=".").items():
        arrays[name] = np.ascontiguousarray(np.asarray(leaf).astype(jnp.dtype(dtype)))
        if not np.isfinite(arrays[name].astype(np.float32)).all():
            raise InputError(f"{name} holds values that are not finite in {dtype}; train again or export as float32")
    write_bytes(path, safetensors.numpy.save(arrays))
    return sha256_of([path])


def load(path: Path, like: dict, sha256: str | None = None) -> dict:
    """Read a file of `save` as float32, in the structure and shapes of `like`, a nested dict of arrays or shapes.

    `sha256` is what the config beside the file says of it; None where it says nothing, as of files that others made.
    Raises InputError where the file is missing, damaged, or holds other arrays.
    """
    return unflatten_dict(read_arrays(path, shapes_of(like), sha256), sep=".")


def shapes_of(like: dict) -> dict[str, tuple[int, ...]]:
    """The names in the file -> the shapes of `like`, a nested dict of arrays or shapes."""
    return {name: tuple(leaf.shape) for name, leaf in flatten_dict(like, sep=".").items()}


def read_arrays(
    path: Path,
    expected: dict[str, tuple[int, ...]],
    sha256: str | None = None,
    owner: str = "its config.json",
    remedy: str = AGAIN,
) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file as float32, by name.

    The header is checked before anything is read or hashed, so that what is read is never more than `expected`, the
    shapes that `owner` asks for. Raises InputError, which ends on the `remedy`, where the file is missing, is not a
    regular file, is damaged, or holds other arrays, other types than floats, or values that are not finite.
    """
    if not path.exists():
        raise InputError(f"{path} is missing; expected the weights there: {remedy}")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; expected the weights there: {remedy}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: part.get_dtype() for name, part in slices.items()}
            _check_header(path, found, dtypes, expected, owner, remedy)
            if sha256 is not None and (digest := sha256_of([path])) != sha256:
                raise InputError(
                    f"{path} has the SHA-256 {digest}; expected {sha256}, as the config.json beside it states: it is "
                    f"damaged, or of another model: {remedy}"
                )
            values = {name: file.get_tensor(name).astype(np.float32) for name in expected}
    except InputError:
        raise
    except Exception as error:  # safetensors raises its own error, and bare ones from its header parser
        reason = "it is empty" if path.stat().st_size == 0 else error
        raise InputError(f"{path} is not a safetensors file ({reason}): {remedy}") from error
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not finite; {remedy}")
    return values


def _check_header(
    path: Path,
    found: dict[str, tuple[int, ...]],
    dtypes: dict[str, str],
    expected: dict[str, tuple[int, ...]],
    owner: str,
    remedy: str,
) -> None:
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path} holds {name} {found.get(name, 'not at all')}; {owner} expects "
                f"{expected.get(name, 'no such array')}: the two are not of one model: {remedy}"
            )
        if dtypes[name] not in DTYPES:
            raise InputError(f"{path} holds {name} as {dtypes[name]}; expected one of {', '.join(DTYPES)}: {remedy}")
