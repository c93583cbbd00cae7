"""Eight simulated devices against one: do the losses agree, and what does a step move between the devices?

    python -m benchmarks.sharding [--quick] [--out benchmarks/results/sharding.json]

Losses: a few steps of size `demo` in float32, on each mesh and on one device, with the same seed and batches. The
figure is the greatest difference. The learning rate is at its peak from the second step on, so that gradients count.

Bytes: the program of a step of size `small` is compiled, not run, for a batch of 64 windows of 250 cells. Its text
names every collective, its shape and its groups of devices; one in a loop counts as often as the loop runs. A device's
bytes are those that it sends when n devices pass parts around in a ring: 2 (n - 1) / n of the array for an all-reduce,
(n - 1) / n for a gather or scatter. The mesh axes that a group spans show its purpose: parameters are gathered over
`fsdp`, gradients are summed over `data` and `fsdp`, and activations move over `tensor`. Anything else is waste.

Theory needs: each split parameter gathered once, those of the layers once more, since remat computes these again; each
gradient summed once, into its parts where it is split (reduce-scatter); two sums of activations a layer forward, two
backward, one that remat repeats, and one after the heads. XLA has no reduce-scatter for CPUs: there it sums the whole
array and cuts it, at twice the cost over `fsdp`; the column `all-reduced` has the need in that case.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from typing import NamedTuple

NUM_DEVICES = 8
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={NUM_DEVICES}"  # before JAX is imported

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks._common import begin_result, make_parser, markdown, random_tokens  # noqa: E402
from configs.base import get_config  # noqa: E402
from hafm_jax.common.errors import run_command  # noqa: E402
from hafm_jax.model import sharding  # noqa: E402
from hafm_jax.training.step import ShardedStep  # noqa: E402

MESHES = ((8, 1, 1), (1, 8, 1), (2, 2, 2))
LOSSES = {"size": "demo", "window_cells": 50, "batch_size": NUM_DEVICES, "warmup_steps": 1}
STEPS = 4
BYTES = {"size": "small", "window_cells": 250, "batch_size": 64}
LARGEST = 12  # collectives of a program that are named

ITEM_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
# Bytes that a device sends over the bytes of the result, with n devices in a ring.
SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
INSTRUCTION = re.compile(rf" = (?P<shape>.*?) (?P<kind>{'|'.join(SENT)})\(")
CALLED = re.compile(r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    kind: str
    axes: str  # mesh axes that its groups span, joined by +
    name: str  # the operation of our code that made it
    times: int  # a step
    result_bytes: int
    sent_bytes: float  # by one device, all times together


def training(stage: str, position: str, **fields) -> ConfigDict:
    config = get_config()
    config.update(stage=stage, position=position, compute_dtype="float32", **fields)
    return config


def losses(config: ConfigDict, mesh: jax.sharding.Mesh) -> list[float]:
    """The losses of the first STEPS steps, on random tokens."""
    sharded = ShardedStep(config, mesh)
    compiled, state = sharded.compile(config.batch_size), sharded.init()
    rng = np.random.default_rng(0)
    found = []
    for _ in range(STEPS):
        rows = random_tokens(sharded.config.stage, config.batch_size, config.window_cells, rng)
        state, metrics = compiled(state, sharded.place(rows))
        found.append(float(metrics["loss"]))
    return found


def device_groups(line: str) -> np.ndarray:
    """Devices [groups, members] of a collective, from the three ways in which XLA writes them."""
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", line):
        return np.array(json.loads(f"[{found[1]}]".replace("{", "[").replace("}", "]")))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape, source, order = ([int(i) for i in x.split(",")] if x else None for x in found.groups())
        return np.arange(math.prod(source)).reshape(source).transpose(order).reshape(shape)
    found = re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\]T\(([\d,]+)\)\))? \{(.*?)\}", line)
    if not found:
        raise ValueError(f"XLA writes groups of devices in a new way: {line}; expected one of the three read here")
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
    source, order = ([int(i) for i in x.split(",")] if x else None for x in found.groups()[1:3])
    devices = np.arange(math.prod(axes.values()))
    if source:
        devices = devices.reshape(source).transpose(order)
    over = re.findall(r"'(\w+)'", found[4])
    members = math.prod(axes[a] for a in over)
    last = sorted(range(len(axes)), key=lambda i: list(axes)[i] in over)
    return devices.reshape(list(axes.values())).transpose(last).reshape(-1, members)


def axes_of(groups: np.ndarray, mesh: jax.sharding.Mesh) -> str:
    """The mesh axes along which the members of the groups differ, joined by +."""
    places = np.stack(np.unravel_index(groups, mesh.devices.shape))  # [axes, groups, members]
    return "+".join(a for a, place in zip(mesh.axis_names, places, strict=True) if np.ptp(place, axis=-1).any())


def num_bytes(shape: str) -> int:
    """The size of an array of this XLA shape, or of all arrays of a tuple."""
    parts = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(ITEM_BYTES[kind] * math.prod(int(n) for n in size.split(",") if n) for kind, size in parts)


def collectives(program: str, mesh: jax.sharding.Mesh) -> list[Collective]:
    """The collectives of one run of a compiled program, from its text, the largest first."""
    lines, computation, entry = defaultdict(list), "", ""
    for line in program.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            computation = header[2]
            entry = computation if header[1] else entry
        lines[computation].append(line)

    found = []

    def visit(computation: str, times: int) -> None:
        for line in lines[computation]:
            trips = TRIPS.search(line)
            called = CALLED.findall(line) + [n.strip(" %") for x in BRANCHES.findall(line) for n in x.split(",")]
            before = len(found)
            for name in called:
                visit(name, times * (int(trips[1]) if trips else 1))
            if " while(" in line and not trips and len(found) > before:
                raise ValueError(f"a loop of unknown length moves data between devices: {line}")
            if instruction := INSTRUCTION.search(line):
                kind, result_bytes, groups = instruction["kind"], num_bytes(instruction["shape"]), device_groups(line)
                name = re.search(r'op_name="(.*?)"', line)
                sent = times * SENT[kind](groups.shape[1]) * result_bytes
                name = name[1] if name else ""
                found.append(Collective(kind, axes_of(groups, mesh), name, times, result_bytes, sent))

    visit(entry, 1)
    return sorted(found, key=lambda c: -c.sent_bytes)


def purpose(collective: Collective) -> str:
    if "tensor" in collective.axes:
        return "activations" if collective.axes == "tensor" else "other"
    if collective.kind in ("all-reduce", "reduce-scatter"):
        return "gradients"
    return "parameters" if (collective.kind, collective.axes) == ("all-gather", "fsdp") else "other"


def needed_bytes(sharded: ShardedStep, batch_size: int) -> dict[str, float]:
    """The bytes that a device has to send, by purpose."""
    data, fsdp, tensor = sharded.mesh.devices.shape
    config = sharded.config
    needed = dict.fromkeys(("parameters", "gradients", "gradients all-reduced", "activations"), 0.0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(sharded.state_shapes["params"]):
        split = [axis for axis in leaf.sharding.spec if axis is not None]
        part = 4 * leaf.size / (tensor if "tensor" in split else 1)
        if "fsdp" in split:
            gathers = 2 if path[0].key == "blocks" else 1
            needed["parameters"] += gathers * SENT["all-gather"](fsdp) * part
            shares = SENT["all-reduce"](data) * part / fsdp
            needed["gradients"] += SENT["reduce-scatter"](fsdp) * part / fsdp + shares
            needed["gradients all-reduced"] += SENT["all-reduce"](fsdp) * part + shares
        else:
            whole = SENT["all-reduce"](data * fsdp) * part
            needed["gradients"] += whole
            needed["gradients all-reduced"] += whole
    rows = batch_size // (data * fsdp)
    tokens = 5 * config.num_layers * config.stage.num_tokens(config.window_cells)
    tokens += config.window_cells * config.stage.target.tokens_per_cell  # after the heads
    needed["activations"] = SENT["all-reduce"](tensor) * 4 * rows * config.d_model * tokens
    return needed


def moved(stage: str, position: str, shape: tuple[int, int, int]) -> dict:
    config = training(stage, position, **BYTES)
    sharded = ShardedStep(config, sharding.make_mesh(*shape))
    found = collectives(sharded.compile(config.batch_size).as_text(), sharded.mesh)
    by_purpose = dict.fromkeys(("parameters", "gradients", "activations", "other"), 0.0)
    by_kind = defaultdict(float)
    for collective in found:
        by_purpose[purpose(collective)] += collective.sent_bytes
        by_kind[f"{collective.kind} over {collective.axes}"] += collective.sent_bytes
    return {
        "sent_bytes": by_purpose,
        "needed_bytes": needed_bytes(sharded, config.batch_size),
        "sent_bytes_by_kind": by_kind,
        "largest": [{"purpose": purpose(c), **c._asdict()} for c in found[:LARGEST]],
    }


def table(results: list[dict]) -> str:
    """MB that a device sends a step / MB that theory needs."""
    header = ["stage", "position", "data x fsdp x tensor", "greatest difference of losses", "parameters"]
    header += ["gradients", "all-reduced", "activations", "other"]
    rows = [header]
    for result in results:
        sent, needed = ({k: f"{v / 1e6:.1f}" for k, v in result[f"{w}_bytes"].items()} for w in ("sent", "needed"))
        rows.append(
            [
                result["stage"],
                result["position"],
                " x ".join(map(str, result["mesh"])),
                f"{result['loss_difference']:.1e}",
                f"{sent['parameters']} / {needed['parameters']}",
                f"{sent['gradients']} / {needed['gradients']}",
                needed["gradients all-reduced"],
                f"{sent['activations']} / {needed['activations']}",
                sent["other"],
            ]
        )
    return markdown(rows)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="only the semantic stage with clock")
    arguments = parser.parse_args()
    write = begin_result(arguments.out)

    models = [(stage, position) for stage in ("semantic", "coarse") for position in ("clock", "index")]
    models = models[:1] if arguments.quick else models
    bar = tqdm(total=len(models) * (1 + 2 * len(MESHES)), unit="program")
    results = []
    for stage, position in models:
        config = training(stage, position, **LOSSES)
        types = (AxisType.Auto,) * len(sharding.MESH_AXES)
        alone = losses(config, jax.make_mesh((1, 1, 1), sharding.MESH_AXES, types, devices=jax.devices()[:1]))
        bar.update()
        for shape in MESHES:
            together = losses(config, sharding.make_mesh(*shape))
            bar.update()
            difference = max(abs(a - b) for a, b in zip(alone, together, strict=True))
            facts = {"mesh": shape, "losses": together, "losses_alone": alone, "loss_difference": difference}
            results.append({"stage": stage, "position": position, **facts, **moved(stage, position, shape)})
            bar.update()
    bar.close()
    write({"losses": {**LOSSES, "steps": STEPS}, "bytes": BYTES, "results": results})
    print(table(results))


if __name__ == "__main__":
    run_command(main)
