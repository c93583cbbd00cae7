"""Steps of cached decoding at full size: time, share of the memory floor, and ratio to MusicGen's decoder.

    python -m benchmarks.decode [--quick] [--batches 1 8] [--peers 0] [--out benchmarks/results/decode.json]

Weights are random, of the size `base`. Each subject runs in a process of its own, and all take turns, round by round:
machines drift, ratios hold. The floor of a step is the time that the same machine, in the same minutes, takes to move
the step's bytes: to read all weights (one codebook's head) and the filled cache, and to write one token to the cache.

The peer is transformers' MusicgenForCausalLM of the same width, depth, vocabulary and codebooks. Its feed-forward is as
wide as makes its layers as large as ours. It uses its own cache, guidance and top-k; the cache is filled by hand, since
its `generate` drops all of a prompt but the last token. One of its steps gives the four tokens of a frame, one of ours
gives one token: the table compares steps of one size, not music.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import NamedTuple

from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, markdown, new_process, spread
from benchmarks._peers import SIZE, MusicGen
from hafm_jax.common.errors import run_command

ROUNDS = 3
MAX_STEPS = 96  # a round
SHORTEST_WINDOW_CELLS = 12  # half a second: the context "near 0" is its conditions


class Case(NamedTuple):
    stage: str
    batch: int
    guided: bool
    context: int  # tokens in the cache at the first step, at least

    @property
    def rows(self) -> int:
        return self.batch * (2 if self.guided else 1)


def cases(quick: bool, batches: list[int]) -> list[Case]:
    stages, contexts = ("semantic", "coarse", "fine"), (0, 2000, 6000)
    if quick:
        stages, batches, contexts = ("coarse",), (1,), (0, 2000)
    return [Case(s, b, g, c) for s in stages for b in batches for g in (True, False) for c in contexts]


def layout(case: Case) -> tuple[int, int, int]:
    """(cells of a window with room for the context and the steps, given frames, tokens before the first step)."""
    from hafm_jax.streams import STAGES

    stage = STAGES[case.stage]
    cells = max(SHORTEST_WINDOW_CELLS, -(-(case.context + 256) // stage.num_tokens(1)))
    prefix = stage.num_tokens(cells) - cells * stage.target.tokens_per_cell
    start = max(0, case.context - prefix) // stage.target.codebooks
    return cells, start, prefix + start * stage.target.codebooks


class Ours:
    """Our sampler at one case; `kernels` False for XLA's products."""

    def __init__(self, case: Case, dtype: str, kernels: bool):
        import jax
        import jax.numpy as jnp

        from hafm_jax.model import decode, transformer
        from hafm_jax.model.config import StageConfig
        from hafm_jax.model.sampling import Sampling
        from hafm_jax.model.weights import Weights
        from hafm_jax.streams import STAGES

        target = STAGES[case.stage].target
        cells, self.start, context = layout(case)
        config = StageConfig.of_size(case.stage, SIZE, window_cells=cells, compute_dtype=dtype)
        params = jax.jit(transformer.init, static_argnums=0)(config, jax.random.key(0))
        self.weights = Weights.prepare(config, params, None if kernels else False)
        del params
        self.codebooks = target.codebooks
        self.frames = cells * target.frames_per_cell
        # Random numbers: their values do not change the time, but zeros would.
        capacity = decode._capacity(config, self.weights, min(self.frames, self.start + 64))
        shape = (case.rows, config.num_heads, capacity, config.head_dim)
        self.cache = [
            tuple(self.weights.stored(jax.random.normal(jax.random.key(2 * i + j), shape, dtype)) for j in range(2))
            for i in range(config.num_layers)
        ]
        self.target = jnp.zeros((case.batch, self.frames, target.codebooks), jnp.int32)
        keys = jax.random.split(jax.random.key(0), case.batch)
        sampling = Sampling(guidance_scale=3.0 if case.guided else 1.0)

        def extend(cache, target, start, stop):
            return decode._extend(config, self.weights, cache, target, start, stop, keys, 0, sampling, sampling.rows)

        self.extend = extend
        jax.block_until_ready(self.cache)
        started_s = time.perf_counter()
        self.cache, self.target = extend(self.cache, self.target, 0, 0)
        self.target.block_until_ready()
        item = jnp.dtype(dtype).itemsize
        head = config.d_model * target.vocabulary
        weights = sum(x.size for x in jax.tree.leaves(self.weights.blocks)) + head
        self.facts = {
            "compile_s": time.perf_counter() - started_s,
            "context": context,
            "rows": case.rows,
            "weights_bytes": weights * item,
            "cache_bytes_per_token": 2 * config.num_layers * case.rows * config.d_model * item,
            "packed": self.weights.packed,
        }

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, steps made)."""
        stop = min(self.frames, self.start + -(-steps // self.codebooks))
        started_s = time.perf_counter()
        self.cache, self.target = self.extend(self.cache, self.target, self.start, stop)
        self.target.block_until_ready()
        return time.perf_counter() - started_s, (stop - self.start) * self.codebooks


class Bandwidth:
    """Reads of memory, by the fastest of several ways."""

    NUM_BYTES = 1 << 29

    def __init__(self):
        import jax
        import jax.numpy as jnp

        rows = jnp.ones((self.NUM_BYTES // 4 // 1024, 1024), jnp.float32)
        row = jnp.ones((1024,), jnp.float32)
        reads = (jnp.max, jnp.sum, lambda x: x @ row)
        self.reads = [jax.jit(read) for read in reads]
        self.rows = rows
        self.facts = {}
        self.run(1)

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, reads) of the way with the best median."""
        totals = []
        for read in self.reads:
            seconds = []
            for _ in range(steps):
                started_s = time.perf_counter()
                read(self.rows).block_until_ready()
                seconds.append(time.perf_counter() - started_s)
            totals.append(statistics.median(seconds))
        return min(totals), 1


def musicgen(case: Case, dtype: str, compiled: bool) -> MusicGen:
    *_, context = layout(case)
    return MusicGen(case.stage, case.rows, case.guided, context, MAX_STEPS, dtype, compiled)


KINDS = {"ours": Ours, "musicgen": musicgen, "bandwidth": Bandwidth}
_subject: Ours | MusicGen | Bandwidth  # that this process holds


def hold(kind: str, arguments: dict) -> dict:
    """In a worker: make its subject and return the subject's facts."""
    global _subject
    _subject = KINDS[kind](**arguments)
    return _subject.facts


def run_subject(steps: int) -> tuple[float, int]:
    return _subject.run(steps)


class Worker:
    """A process that holds one subject and runs it on request."""

    def __init__(self, kind: str, **arguments):
        self._process = new_process()
        self.facts = self._process.submit(hold, kind, arguments).result()

    def run(self, steps: int) -> float:
        """Seconds a step."""
        seconds, made = self._process.submit(run_subject, steps).result()
        return seconds / made

    def close(self) -> None:
        self._process.shutdown()


def measure(case: Case, bandwidth: Worker, workers: dict[str, Worker]) -> dict:
    """Milliseconds a step of each of the workers, which take turns, and the bandwidth of the same minutes."""
    # A round takes about a second, and at least eight steps, which are whole frames.
    steps = {name: max(8, min(MAX_STEPS, 8 * round(1.0 / worker.run(8) / 8))) for name, worker in workers.items()}
    reads, seconds = [], {name: [] for name in workers}
    for _ in range(ROUNDS):
        reads.append(bandwidth.run(5))
        for name, worker in workers.items():
            seconds[name].append(worker.run(steps[name]))
    bytes_per_s = spread([Bandwidth.NUM_BYTES / s for s in reads])
    result = {**case._asdict(), "bandwidth_bytes_per_s": bytes_per_s, "subjects": {}}
    for name, values in seconds.items():
        ms = spread([1000 * s for s in values])
        entry = {"ms_per_step": ms, **workers[name].facts}
        if "weights_bytes" in entry:
            context = entry["context"] + steps[name] / 2
            moved = entry["weights_bytes"] + entry["cache_bytes_per_token"] * (context + 1)
            floor_ms = 1000 * moved / bytes_per_s["median"]
            entry |= {"bytes_per_step": moved, "floor_ms": floor_ms, "share_of_floor": floor_ms / ms["median"]}
            entry["tokens_per_s"] = 1000 * case.batch / ms["median"]
        result["subjects"][name] = entry
    return result


def table(results: list[dict]) -> str:
    """One row a case: milliseconds a step; in brackets, each of the others as a multiple of ours in float32."""
    others = ["ours, XLA's products", "ours, bfloat16"]
    others += [f"MusicGen {dtype}{mode}" for dtype in ("float32", "bfloat16") for mode in ("", ", compiled")]
    header = ["stage", "batch", "guided", "context", "ms", "low-high", "tokens/s", "share of floor"]
    header += [*others, "GB/s", "compile s"]
    rows = [header]
    for result in results:
        ours = result["subjects"]["ours"]
        ms = ours["ms_per_step"]
        medians = {name: found["ms_per_step"]["median"] for name, found in result["subjects"].items()}
        compared = {name: f"{median:.1f} ({median / ms['median']:.2f})" for name, median in medians.items()}
        rows.append(
            [
                result["stage"],
                str(result["batch"]),
                "yes" if result["guided"] else "no",
                str(ours["context"]),
                f"{ms['median']:.1f}",
                f"{ms['low']:.1f}-{ms['high']:.1f}",
                f"{ours['tokens_per_s']:.0f}",
                f"{ours['share_of_floor']:.2f}",
                *(compared.get(name, "") for name in others),
                f"{result['bandwidth_bytes_per_s']['median'] / 1e9:.1f}",
                f"{ours['compile_s']:.1f}",
            ]
        )
    return markdown(rows)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="two contexts of the coarse stage at batch 1")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="voices at once (default: 1 8)")
    parser.add_argument("--peers", type=int, default=1, help="0 leaves MusicGen out (default: 1)")
    parser.add_argument("--dtype", default="float32", help="compute dtype of `ours` (default: float32)")
    arguments = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # all processes share a GPU
    write = begin_result(arguments.out, "torch", "transformers")
    alone = {"ours": {"dtype": arguments.dtype, "kernels": True}}
    compared = {"ours, XLA's products": {"dtype": "float32", "kernels": False}}
    compared["ours, bfloat16"] = {"dtype": "bfloat16", "kernels": True}
    if arguments.peers:
        for dtype in ("float32", "bfloat16"):
            compared[f"MusicGen {dtype}"] = {"dtype": dtype, "compiled": False}
            compared[f"MusicGen {dtype}, compiled"] = {"dtype": dtype, "compiled": True}
    results = []
    bandwidth = Worker("bandwidth")
    for case in tqdm(cases(arguments.quick, arguments.batches), unit="case"):
        subjects = alone | (compared if case.batch == 1 and case.guided else {})
        # New processes for each case: the memory that a library still holds of one case is missing in the next.
        workers = {
            name: Worker(name.split()[0].strip(",").lower(), case=case, **given) for name, given in subjects.items()
        }
        results.append(measure(case, bandwidth, workers))
        for worker in workers.values():
            worker.close()
        write({"size": SIZE, "rounds": ROUNDS, "cases": results})
    bandwidth.close()
    print(table(results))


if __name__ == "__main__":
    run_command(main)
