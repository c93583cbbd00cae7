"""Training steps at full size: time, share of the machine's matrix products, memory, and ratio to a torch model.

    python -m benchmarks.train [--quick] [--large] [--stages coarse semantic fine] [--dtype float32] [--batch 1]
        [--out benchmarks/results/train.json]

Size `base`, windows of 250 cells: sequences of 1,000 (semantic), 4,000 (coarse) and 6,000 (fine) random tokens, on a
GPU where JAX and torch see one (of several, CUDA_VISIBLE_DEVICES chooses). `--dtype bfloat16` is our compute dtype, and
torch's autocast. Each figure is from a process of its own, which makes one step to warm up and then those that count.
All take turns, round by round, since machines drift and ratios hold. `ours` is what configs/base.py trains: positions
by `clock`, remat `attention`. `cores` is CPU time over time: well below the number of cores, something else ran at the
same time. The share is of the rate of a large matrix product in the dtype, the better of XLA's and torch's, measured at
the end of each process. MFU is of the device's bfloat16 peak, where it is known. FLOPs are those of `train_flops`,
without what remat computes again. Peak memory is the device's where it has its own, else the process's high-water mark,
libraries and compiler included.

The peer is transformers' Qwen3 of the same width, depth, heads and feed-forward (three matrices, tanh GELU), with
RMSNorm and QK-norm: its layers have as many parameters, and embeddings and heads are alike. Its rotary embedding is
removed, which saves it time. Its step is ours: forward, cross-entropy of as many targets, backward, clipping, AdamW
(fused). With `bias` it learns what our `index` mode learns: T5's buckets of distances, a table, and a float mask
[heads, T, T] that needs a gradient, made in the cheapest of four ways tried, for torch's scaled dot product attention.
Without `bias` that function takes its fast causal path: not a model like ours, but a mark of what attention could cost.
`layers again` is gradient checkpointing layer by layer, as our remat `layer`.

All processes run with the settings of configs/demo.mk, which trains the demo model: an allocator that keeps huge pages,
and XLA's reductions not fused. `as is` is without them, as a plain command runs. An allocator that gives nothing back
can raise a peak: compare memory with the lower of the peer's two.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks._common import begin_result, in_a_process, make_parser, markdown, random_tokens, spread
from benchmarks._peers import SIZE, qwen3_step, torch_device
from hafm_jax.common.errors import run_command
from hafm_jax.common.work import environment

WINDOW_CELLS = 250
ROUNDS = 2
STEPS = 2  # of a process, after one that does not count
GEMM_WIDTH = 4096
GEMM_REPEATS = 3

# As in configs/demo.mk.
TUNED = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184",
    "XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


class Subject(NamedTuple):
    name: str
    kind: str  # ours or torch
    options: dict
    tuned: bool = True


OURS = Subject("ours", "ours", {"position": "clock", "remat": "attention"})
PEER = Subject("torch, bias, layers again", "torch", {"bias": True, "again": True})
OURS_AS_IS = OURS._replace(name="ours, as is", tuned=False)
PEER_AS_IS = PEER._replace(name=f"{PEER.name}, as is", tuned=False)
MARK = Subject("torch, no bias", "torch", {"bias": False, "again": False})
MARK_AGAIN = Subject("torch, no bias, layers again", "torch", {"bias": False, "again": True})
VARIANTS = [
    Subject("ours, index", "ours", {"position": "index", "remat": "attention"}),
    Subject("ours, remat layer", "ours", {"position": "clock", "remat": "layer"}),
    Subject("ours, remat none", "ours", {"position": "clock", "remat": "none"}),
    Subject("ours, index, as is", "ours", {"position": "index", "remat": "attention"}, tuned=False),
    Subject("ours, remat layer, as is", "ours", {"position": "clock", "remat": "layer"}, tuned=False),
    OURS_AS_IS,
    PEER_AS_IS,
]
SUBJECTS = {
    "coarse": [OURS, PEER, MARK, MARK_AGAIN, *VARIANTS],
    "semantic": [OURS, PEER, MARK, MARK_AGAIN],
    "fine": [OURS, MARK_AGAIN],
}
# Only with --large: at 6,000 tokens the peer's bias, its scores and their gradients need 2.25 times the memory that
# they need at 4,000.
LARGE = {"fine": [OURS_AS_IS, PEER_AS_IS]}


def ours_step(
    stage: str, window_cells: int, dtype: str, batch: int, position: str, remat: str
) -> tuple[Callable[[], float], dict[str, Any]]:
    """(a training step of ours, which returns its loss; facts)."""
    import jax
    import numpy as np

    from configs.base import get_config
    from hafm_jax.model import sharding
    from hafm_jax.training.step import ShardedStep

    training = get_config()
    training.update(stage=stage, size=SIZE, window_cells=window_cells, compute_dtype=dtype, batch_size=batch)
    training.update(position=position, remat=remat)
    sharded = ShardedStep(training, sharding.make_mesh(1, 1, 1))
    tokens = sharded.place(random_tokens(sharded.config.stage, batch, window_cells, np.random.default_rng(0)))
    started_s = time.perf_counter()
    compiled = sharded.compile(batch)
    compile_s = time.perf_counter() - started_s
    state = sharded.init()
    parameters = jax.tree.map(lambda x: x.size, state["params"])
    plan = compiled.memory_analysis()

    def step() -> float:
        nonlocal state
        state, metrics = jax.block_until_ready(compiled(state, tokens))
        return float(metrics["loss"])

    return step, {
        "compile_s": compile_s,
        "planned_bytes": plan.argument_size_in_bytes + plan.temp_size_in_bytes,
        "layer_parameters": sum(jax.tree.leaves(parameters["blocks"])) // sharded.config.num_layers,
        "parameters": sum(jax.tree.leaves(parameters)),
    }


def gemm_flops_per_s(kind: str, dtype: str) -> float:
    """The rate of a matrix product in the library of `kind`, on the device that it trains on."""
    if kind == "ours":
        import jax

        a = jax.random.normal(jax.random.key(0), (GEMM_WIDTH, GEMM_WIDTH), dtype)
        matmul = jax.jit(jax.numpy.matmul)
    else:
        import torch

        a = torch.randn(GEMM_WIDTH, GEMM_WIDTH, device=torch_device(), dtype=getattr(torch, dtype))
        matmul = torch.matmul
    seconds = []
    for _ in range(1 + GEMM_REPEATS):
        started_s = time.perf_counter()
        float(matmul(a, a)[0, 0])
        seconds.append(time.perf_counter() - started_s)
    return 2 * GEMM_WIDTH**3 / statistics.median(seconds[1:])


def peak_bytes(kind: str) -> int:
    """Peak memory of the device that the library of `kind` trains on, where it has its own; else of this process."""
    of_device = 0
    if kind == "ours":
        import jax

        of_device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    elif torch_device() == "cuda":
        import torch

        of_device = torch.cuda.max_memory_allocated()
    return of_device or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def timed_steps(kind: str, options: dict) -> dict:
    """In a fresh process: seconds of each step, peak memory, rate of products, and the subject's own facts."""
    step, facts = {"ours": ours_step, "torch": qwen3_step}[kind](window_cells=WINDOW_CELLS, **options)
    first_loss = step()
    seconds, cpu_s = [], time.process_time()
    for _ in range(STEPS):
        started_s = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started_s)
    return {
        "seconds": seconds,
        "cores_used": (time.process_time() - cpu_s) / sum(seconds),
        "peak_bytes": peak_bytes(kind),
        "gemm_flops_per_s": gemm_flops_per_s(kind, options["dtype"]),
        "first_loss": first_loss,
        **facts,
    }


def summary(stage: str, batch: int, runs: dict[str, list[dict]]) -> dict:
    """The figures of a stage. runs: subject -> the results of its processes, one a round."""
    from hafm_jax.model.config import StageConfig, train_flops
    from hafm_jax.training.log import peak_flops

    config = StageConfig.of_size(stage, SIZE, window_cells=WINDOW_CELLS)
    num_tokens, flops = config.stage.num_tokens(WINDOW_CELLS), batch * train_flops(config, WINDOW_CELLS)
    peak = peak_flops()
    rates = {"ours": [], "torch": []}
    for name, by_round in runs.items():
        rates["ours" if name.startswith("ours") else "torch"] += [run["gemm_flops_per_s"] for run in by_round]
    rates = {library: spread(values) for library, values in rates.items() if values}
    gemm = max(rate["median"] for rate in rates.values())
    found = {}
    for name, by_round in runs.items():
        seconds = spread([s for run in by_round for s in run["seconds"]])
        found[name] = by_round[0] | {
            "seconds": seconds,
            "cores_used": statistics.median(run["cores_used"] for run in by_round),
            "peak_bytes": max(run["peak_bytes"] for run in by_round),
            "tokens_per_s": batch * num_tokens / seconds["median"],
            "flops_per_s": flops / seconds["median"],
            "share_of_gemm": flops / seconds["median"] / gemm,
            **({"mfu": flops / seconds["median"] / peak} if peak else {}),
            "rounds": by_round,
        }
    return {
        "stage": stage,
        "num_tokens": num_tokens,
        "flops_per_step": flops,
        "gemm_flops_per_s": rates,
        "subjects": found,
    }


def table(stages: list[dict]) -> str:
    """One row a subject; `takes` and `of ours` are its time and its memory as multiples of ours."""
    header = ["stage", "tokens", "", "s a step", "low-high", "takes", "cores", "tokens/s", "GFLOP/s"]
    header += ["share of GEMM", "MFU", "peak GB", "of ours", "planned GB", "M parameters a layer"]
    rows = [header]
    for stage in stages:
        reference = stage["subjects"][OURS.name]
        for name, found in stage["subjects"].items():
            seconds = found["seconds"]
            rows.append(
                [
                    stage["stage"],
                    f"{stage['num_tokens']:,}",
                    name,
                    f"{seconds['median']:.2f}",
                    f"{seconds['low']:.2f}-{seconds['high']:.2f}",
                    f"{seconds['median'] / reference['seconds']['median']:.2f}",
                    f"{found['cores_used']:.1f}",
                    f"{found['tokens_per_s']:.0f}",
                    f"{found['flops_per_s'] / 1e9:.0f}",
                    f"{found['share_of_gemm']:.2f}",
                    f"{found['mfu']:.2f}" if "mfu" in found else "",
                    f"{found['peak_bytes'] / 1e9:.2f}",
                    f"{found['peak_bytes'] / reference['peak_bytes']:.2f}",
                    f"{found['planned_bytes'] / 1e9:.2f}" if "planned_bytes" in found else "",
                    f"{found['layer_parameters'] / 1e6:.3f}",
                ]
            )
    return markdown(rows)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of ours and of the peer with bias")
    parser.add_argument("--stages", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="default: all")
    parser.add_argument("--large", action="store_true", help="the fine peer with bias too: 18.4 GB of memory, or more")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="default: float32")
    parser.add_argument("--batch", type=int, default=1, help="windows a step (default: 1)")
    arguments = parser.parse_args()
    with environment(XLA_PYTHON_CLIENT_PREALLOCATE="false"):  # this process only asks for the device's name
        write = begin_result(arguments.out, "torch", "transformers")
    plans = {stage: SUBJECTS[stage][: 2 if arguments.quick else None] for stage in arguments.stages}
    if arguments.large:
        plans = {stage: [*subjects, *LARGE.get(stage, [])] for stage, subjects in plans.items()}
    turns = [
        (stage, subject)
        for stage, subjects in plans.items()
        for _ in range(1 if arguments.quick else ROUNDS)
        for subject in subjects
    ]
    work = {"dtype": arguments.dtype, "batch": arguments.batch}
    runs = {}  # stage -> subject -> a result a round
    stages = []
    for stage, subject in tqdm(turns, unit="process"):
        options = {"stage": stage, **work, **subject.options}
        found = in_a_process(timed_steps, subject.kind, options, **(TUNED if subject.tuned else {}))
        runs.setdefault(stage, {}).setdefault(subject.name, []).append(found)
        stages = [summary(name, arguments.batch, of_stage) for name, of_stage in runs.items()]
        write({"size": SIZE, **work, "tuned": TUNED, "stages": stages})
    print(table(stages))


if __name__ == "__main__":
    run_command(main)
