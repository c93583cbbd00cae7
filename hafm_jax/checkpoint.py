"""Save, find and restore training state. The only file that imports Orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from hafm_jax.errors import InputError


class Checkpoints:
    """The checkpoints of one training run, in `workdir/checkpoints`: saved in the background, the last `keep` stay."""

    def __init__(self, workdir: str | Path, keep: int):
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep), enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(Path(workdir).absolute() / "checkpoints", options=options)

    def latest(self) -> int | None:
        """The last complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Start to save `state` (a pytree of arrays) as `step`; returns before the files are complete."""
        self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, step: int, like: Any) -> Any:
        """The state of `step`, in the shapes, dtypes and shardings of `like`.

        Raises InputError where the checkpoint holds other arrays.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint {step} in {self._manager.directory} does not fit this configuration "
                f"({str(error).splitlines()[0]}): train with the same model fields, or into a new --workdir"
            ) from error

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
