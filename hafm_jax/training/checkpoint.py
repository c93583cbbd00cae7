"""Save, find and restore training state. The only file that imports Orbax."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from hafm_jax.common.errors import InputError
from hafm_jax.training import hosts


class Checkpoints:
    """The last `keep` checkpoints of one training run, in `workdir/checkpoints`, a folder for each step.

    They are saved in the background.
    """

    def __init__(self, workdir: str | Path, keep: int):
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.LatestN(keep), enable_async_checkpointing=True
        )
        self.directory = Path(workdir).absolute() / "checkpoints"
        handler = ocp.StandardCheckpointHandler()  # set before the first save, so that shapes can be read
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handler)

    def latest(self) -> int | None:
        """The last step whose checkpoint is complete, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Start to save `state` (a pytree of arrays) as `step`; returns before the files are complete."""
        self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, step: int, like: Any) -> Any:
        """The state of `step`, in the shapes, dtypes and shardings of `like`.

        An array without a sharding goes to one device, wherever it was when it was saved. Raises InputError where the
        checkpoint holds other arrays, and Orbax's exceptions where files are damaged.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here), like
        )
        self._check_shapes(step, abstract)
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """(step, state) of the last readable checkpoint, or None where there is no checkpoint at all.

        A torn one is renamed to `torn-STEP` and reported. Raises InputError where a checkpoint holds other arrays, or
        where every checkpoint is torn.
        """
        torn = []
        while (step := self.latest()) is not None:
            state = problem = None
            try:
                state = self.restore(step, like)
            except InputError:
                raise
            except Exception as error:  # Orbax and its storage have no common exception for damage
                problem = error
            if hosts.all_of(problem is None):
                return step, state
            torn.append(step)
            if hosts.is_first():
                reason = (str(problem).splitlines() or [type(problem).__name__])[0].split(" [")[0]
                print(f"checkpoint {step} in {self.directory} is torn and skipped: {reason}", file=sys.stderr)
                (self.directory / str(step)).rename(self.directory / f"torn-{step}")
            hosts.all_of(True)  # no process looks again before it is renamed
            self._manager.reload()
        if torn:
            raise InputError(
                f"every checkpoint in {self.directory} is torn ({', '.join(map(str, torn))}): restore the folder from "
                "a copy, or start again with another --workdir"
            )
        return None

    def _check_shapes(self, step: int, abstract: Any) -> None:
        try:
            metadata = self._manager.item_metadata(step).tree
        except Exception:
            return  # damaged: reading it raises
        # Orbax names the fields of tuples as those of dicts, and leaves out empty ones: compare only the arrays.
        found, expected = (
            sorted((tuple(x.shape), str(x.dtype)) for x in jax.tree.leaves(tree)) for tree in (metadata, abstract)
        )
        if found != expected:
            odd = sorted(set(found) ^ set(expected))[:2]
            raise InputError(
                f"checkpoint {step} in {self.directory} does not fit this configuration (arrays such as {odd} are in "
                "one of them only): train with the same model fields, or into a new --workdir"
            )

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
