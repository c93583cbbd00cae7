"""Save, find and restore training state. The only file that imports Orbax.

A checkpoint is complete when its folder is renamed to its step. Its metadata have the form of every array and a
checksum of its values, computed on the devices that hold it when it is saved, and again when it is restored: on
however many devices and processes. So a bit that storage has changed is found, whatever file it is in.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from hafm_jax.common.errors import InputError, first_line
from hafm_jax.training import hosts
from hafm_jax.training.storage import claim_workdir, writing

logging.getLogger("absl").addFilter(lambda record: not record.exc_info)  # Orbax also raises what it logs with a stack


class Damaged(InputError):
    """A checkpoint is not what was saved."""


class Checkpoints:
    """The last `keep` checkpoints of one training run, in `workdir/checkpoints`, a folder for each step.

    They are saved in the background. Until it is closed or the process ends, no other process can save there: raises
    InputError where one does already. With `keep` None they are only read, and nothing is changed.
    """

    def __init__(self, workdir: str | Path, keep: int | None):
        self.directory = Path(workdir).absolute() / "checkpoints"
        self._claim = ExitStack()
        # Metadata that are damaged must not keep the whole checkpoints from being read.
        self._options = ocp.CheckpointManagerOptions(create=False, lightweight_initialize=True)
        self._writes = keep is not None
        if self._writes:
            self._claim.enter_context(claim_workdir(self.directory.parent))
            self._options.create = True
            self._options.cleanup_tmp_directories = True  # what a kill or a full disk left
            self._options.preservation_policy = managers.LatestN(keep)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        handler = ocp.StandardCheckpointHandler()  # set before the first save, so that metadata can be read
        with writing(self.directory):
            return ocp.CheckpointManager(self.directory, options=self._options, item_handlers=handler)

    def latest(self) -> int | None:
        """The last step whose checkpoint is complete, or None."""
        return max(self._steps(), default=None)

    def _steps(self) -> list[int]:
        return [int(path.name) for path in self.directory.glob("[0-9]*") if path.name.isdigit()]

    def save(self, step: int, state: Any) -> None:
        """Start to save `state` (a pytree of arrays) as `step`; returns before the files are complete.

        Raises OutputError, also where the checkpoint before this one could not be completed.
        """
        arrays = _forms(state)
        for name, checksum in _checksums(state).items():
            arrays[name] += f" {checksum:08x}"
        record = {"arrays": arrays, "sha256": _sha256(arrays)}
        with writing(self.directory):
            self._manager.save(step, args=ocp.args.StandardSave(state), custom_metadata=record, force=True)

    def restore(self, step: int, like: Any) -> Any:
        """The state of `step`, in the shapes, dtypes and shardings of `like`.

        An array without a sharding goes to one device, wherever it was when it was saved. Raises InputError where the
        checkpoint holds other arrays, Damaged where it is not what was saved: on all processes, which all call it.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here), like
        )
        state, reason = None, ""
        try:
            expected = self._saved_arrays(step, abstract)
            state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except InputError:
            raise
        except Exception as error:  # Orbax and its storage have no common exception for damage
            reason = first_line(error).split(" [")[0]
            if isinstance(error, (PermissionError, jax.errors.JaxRuntimeError)) or "PERMISSION_DENIED" in reason:
                raise InputError(f"checkpoint {step} in {self.directory} cannot be read ({reason})") from error
        if not hosts.all_of(not reason):
            raise Damaged(reason or "another process cannot read it")
        for name, checksum in _checksums(state).items():
            if expected[name].split()[-1] != f"{checksum:08x}":
                raise Damaged(f"{name} holds other values than were saved")
        return state

    def _saved_arrays(self, step: int, abstract: Any) -> dict[str, str]:
        """Name -> form and checksum of the arrays of `step`. Raises InputError where `abstract` has others."""
        record = self._manager.metadata(step).custom_metadata or {}
        if record.get("sha256") != _sha256(arrays := record.get("arrays", {})):
            raise Damaged("its checksums are missing or damaged")
        found, expected = {name: text.rsplit(" ", 1)[0] for name, text in arrays.items()}, _forms(abstract)
        if found != expected:
            name = min(name for name in found | expected if found.get(name) != expected.get(name))
            raise InputError(
                f"checkpoint {step} in {self.directory} does not fit this configuration ({name} is "
                f"{found.get(name, 'missing')}, expected {expected.get(name, 'no such array')}): train with the same "
                "model fields, or into a new --workdir"
            )
        return arrays

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """(step, state) of the last whole checkpoint, or None where there is no checkpoint at all.

        A damaged one is reported, and renamed to `damaged-STEP` unless checkpoints are only read. Raises InputError
        where a checkpoint holds other arrays, or where every checkpoint is damaged.
        """
        damaged = []
        with writing(self.directory):
            self._manager.wait_until_finished()  # one may still be being saved
        for step in sorted(self._steps(), reverse=True):
            try:
                return step, self.restore(step, like)
            except Damaged as error:
                damaged.append(f"{step}: {error}")
                if hosts.is_first():
                    print(f"checkpoint {step} in {self.directory} is damaged and skipped: {error}", file=sys.stderr)
                if self._writes:
                    self._set_aside(step)
        if damaged:
            raise InputError(
                f"every checkpoint in {self.directory} is damaged ({'; '.join(damaged)}): restore the folder from a "
                "copy, or start again with another --workdir"
            )
        return None

    def _set_aside(self, step: int) -> None:
        if hosts.is_first():
            names = (f"damaged-{step}{f'-{number}' * (number > 1)}" for number in itertools.count(1))
            free = next(path for path in map(self.directory.joinpath, names) if not path.exists())
            with writing(free):
                (self.directory / str(step)).rename(free)
        hosts.all_of(True)  # no process looks again before it is renamed
        self._manager.close()
        self._manager = self._open()

    def close(self) -> None:
        """Wait until everything is on disk. Raises OutputError where that fails."""
        with self._claim, writing(self.directory):
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()


def _named(tree: Any) -> dict[str, Any]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def _forms(tree: Any) -> dict[str, str]:
    """Name -> dtype and shape of each array."""
    return {name: f"{x.dtype}[{','.join(map(str, x.shape))}]" for name, x in _named(tree).items()}


def _sha256(arrays: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(arrays, sort_keys=True).encode()).hexdigest()


def _checksums(tree: Any) -> dict[str, int]:
    """Name -> checksum of each array, the same however it is split among devices."""
    return {name: int(x) for name, x in jax.device_get(_checksums_on_device(_named(tree))).items()}


@jax.jit
def _checksums_on_device(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(_checksum, arrays)


def _checksum(x: jax.Array) -> jax.Array:
    """uint32 []: the sum, modulo 2^32, of a hash of each value's bits and place. One changed value always changes it,
    several changed values all but once in 2^32."""
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, length in enumerate(x.shape):
        place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(_mixed(bits ^ _mixed(place + 1)), dtype=jnp.uint32)


def _mixed(x: jax.Array) -> jax.Array:
    """A one-to-one hash of uint32: C. Wellons's lowbias32 [code], https://nullprogram.com/blog/2018/07/31/."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
