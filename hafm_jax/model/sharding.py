"""Which device holds which part of an array: one mesh, one table.

The mesh has three axes. `data` and `fsdp` split the examples of a batch; `fsdp` also splits the parameters and
optimiser moments, which are gathered where they are used; `tensor` splits heads, feed-forward and vocabulary.

The mesh is the ambient one (`jax.set_mesh`). Without a mesh, as in the sampler, these functions change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hafm_jax.common.errors import InputError

MESH_AXES = ("data", "fsdp", "tensor")

# Name of an array's axis -> the mesh axes that it is split over.
RULES = {"batch": ("data", "fsdp"), "width": "fsdp", "heads": "tensor", "hidden": "tensor", "vocabulary": "tensor"}

# Parameter -> its axes, for those that are split; the others are small. `conditions` holds a table for each stream.
PARAMETERS = {
    "query_key_value": ("layer", "width", None, "heads", None),
    "attention_out": ("layer", "heads", None, "width"),
    "ffn_in": ("layer", "width", None, "hidden"),
    "ffn_out": ("layer", "hidden", "width"),
    "conditions": ("codebook", None, "width"),
    "target": ("codebook", None, "width"),
    "heads": ("codebook", "width", "vocabulary"),
}


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh of all devices of all processes; data -1 means as many as the other axes leave. Raises InputError where
    the product is not the number of devices."""
    devices = jax.device_count()
    if data == -1 and fsdp * tensor > 0:
        data = devices // (fsdp * tensor)
    if min(data, fsdp, tensor) < 1 or data * fsdp * tensor != devices:
        raise InputError(
            f"the mesh data {data} x fsdp {fsdp} x tensor {tensor} does not make {devices} devices: set "
            "--config.mesh.data, .fsdp and .tensor so that their product does (data -1: as many as the others leave)"
        )
    return jax.make_mesh((data, fsdp, tensor), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def _split(mesh: Any, axis: str | None, length: int) -> tuple[str, ...] | str | None:
    """The mesh axes that an array's axis is split over; None where its length is not a multiple of theirs."""
    over = RULES.get(axis)
    return over if over and length % math.prod(mesh.shape[a] for a in np.atleast_1d(over)) == 0 else None


def parameter_sharding(mesh: Mesh, path: tuple, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of one leaf of the training state: a parameter, or a moment, which has a parameter's name."""
    names = [str(getattr(p, "key", getattr(p, "name", ""))) for p in path]
    axes = next((PARAMETERS[name] for name in reversed(names) if name in PARAMETERS), ())
    if len(axes) != len(shape):
        axes = ()
    return NamedSharding(mesh, P(*(_split(mesh, axis, n) for axis, n in zip(axes, shape, strict=True)) if axes else ()))


def state_shardings(mesh: Mesh, shapes: Any) -> Any:
    """A tree of arrays or their shapes -> the tree of their shardings."""
    return jax.tree_util.tree_map_with_path(lambda path, x: parameter_sharding(mesh, path, x.shape), shapes)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, P(RULES["batch"]))


def batch_shards(mesh: Any = None) -> int:
    """The number of parts that the mesh (None: the ambient one) splits a batch into."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    return math.prod(mesh.shape[a] for a in RULES["batch"]) if not mesh.empty else 1


def rows_of_process(mesh: Mesh, batch_size: int) -> tuple[int, int]:
    """(index, count): the devices of this process hold part `index` of the batch cut into `count` parts.

    Processes that only split tensors among themselves hold the same part.
    """
    by_process: dict[int, set] = {}
    for device, (rows,) in batch_sharding(mesh).devices_indices_map((batch_size,)).items():
        by_process.setdefault(device.process_index, set()).add(rows.indices(batch_size))
    parts = sorted({tuple(sorted(rows)) for rows in by_process.values()})
    return parts.index(tuple(sorted(by_process[jax.process_index()]))), len(parts)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """x with its first axes split by RULES, the rest not."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, P(*(_split(mesh, a, n) for a, n in zip(axes, x.shape, strict=False))))


def map_shards(f: Callable[..., jax.Array], axes: tuple[str, ...], *arrays: jax.Array) -> jax.Array:
    """f on each device's part of arrays whose first axes are `axes`; so are those of its result."""
    if jax.sharding.get_abstract_mesh().empty:
        return f(*arrays)
    spec = P(*(RULES[axis] for axis in axes))
    return jax.shard_map(f, in_specs=(spec,) * len(arrays), out_specs=spec, check_vma=False)(*arrays)
