"""Steps of a tiny stage on eight simulated devices, for test_sharding.py: JSON on stdout.

python tests/helpers/sharded_steps.py STAGE POSITION PARTS WORKDIR

On the meshes a batch goes through in PARTS (accumulate_steps); on one device it goes whole.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
from jax.sharding import AxisType

from configs.base import get_config
from hafm_jax.dataset import loader
from hafm_jax.model import sharding
from hafm_jax.model.config import SIZES, Size
from hafm_jax.training.checkpoint import Checkpoints
from hafm_jax.training.step import ShardedStep
from helpers import Songs, random_record

MESHES = ((1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2))
STEPS, BATCH = 4, 16


def planned_bytes(program: jax.stages.Compiled) -> int:
    """Of one device, by the compiler's plan."""
    plan = program.memory_analysis()
    made = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return plan.argument_size_in_bytes + plan.temp_size_in_bytes + made


def main() -> None:
    stage, position, parts, workdir = sys.argv[1:]
    SIZES["tiny"] = Size(64, 8, 2)  # deep: what is kept of all layers outweighs what one works with
    config = get_config()
    config.update(stage=stage, position=position, size="tiny", window_cells=2, compute_dtype="float32")
    config.update(steps=STEPS, batch_size=BATCH, learning_rate=6e-3, warmup_steps=2)
    records = Songs(random_record(10 + i, i) for i in range(BATCH))
    found = {}
    states = {}
    for shape in MESHES:
        devices = jax.devices()[: int(np.prod(shape))]
        config.accumulate_steps = int(parts) if len(devices) > 1 else 1
        mesh = jax.make_mesh(shape, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
        sharded = ShardedStep(config, mesh)
        batches = loader.train_batches([(records, 1)], sharded.config.stage, config.window_cells, BATCH, 0)
        step, state, losses = sharded.compile(BATCH), sharded.init(), []
        with jax.set_mesh(mesh):
            init = sharded._init.lower(sharded.key).compile()
        weights = jax.tree.leaves(state)
        here = sum(x.addressable_shards[0].data.nbytes for x in weights) / sum(x.nbytes for x in weights)
        for i in range(STEPS):
            state, metrics = step(state, sharded.place(batches[i]))
            losses.append(float(metrics["loss"]))
        validation = sharded.evaluate(state["params"], [sharded.place(batches[0])])
        found[str(shape)] = {"losses": losses, "validation": validation.tolist(), "share_of_state": here}
        found[str(shape)] |= {"step_bytes": planned_bytes(step), "init_bytes": planned_bytes(init)}
        states[shape] = (sharded, state)

    # What one mesh saves another one restores, bit for bit.
    checkpoints = Checkpoints(Path(workdir), keep=1)
    checkpoints.save(STEPS, states[1, 8, 1][1])
    saved = jax.device_get(states[1, 8, 1][1])
    sharded = states[2, 2, 2][0]
    step, restored = checkpoints.restore_latest(sharded.state_shapes)
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == b).all()), restored, saved)
    placed = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), restored, sharded.state_shardings)
    found["restored"] = {"step": step, "same": all(jax.tree.leaves(same)), "placed": all(jax.tree.leaves(placed))}
    checkpoints.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
