"""The demo model as a newcomer meets it: cold start, and time and memory from 10 s to 10 min of singing.

    python -m benchmarks.length [--lengths 10 60] [--out benchmarks/results/length.json]

Each figure is from a process of its own. Cold: the caches of XLA and of the kernels are empty; warm: they are full. The
first tokens are there at the semantic stage's first report of progress, after its first second of music.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time

from tqdm import tqdm

from benchmarks._common import begin_result, make_parser, run_worker
from hafm_jax.common.errors import run_command

LENGTHS_S = (10, 30, 60, 120, 300, 600)
STARTS = 3


def accompany(seconds: float, started_s: float) -> dict:
    """In a fresh process: accompany so much singing; started_s is the clock when the process was asked for."""
    import numpy as np

    from hafm_jax.accompany import Accompanist, SamplingOptions
    from hafm_jax.common.cache import use_compilation_cache
    from hafm_jax.model.pretrained import DEMO
    from hafm_jax.streams import CELLS_PER_S, CODEC_SAMPLE_RATE_HZ
    from hafm_jax.synthesis.song import song_seed, synthesize_song

    clock = {}

    def mark(name: str) -> None:
        clock.setdefault(name, time.time() - started_s)

    use_compilation_cache()
    accompanist = Accompanist.load(str(DEMO))
    mark("loaded_s")
    # The singing is made, not read; its making is taken out of the times.
    making_s = time.time()
    piece = synthesize_song(song_seed("test", 0, base_seed=0), 10.0).vocals
    vocal = np.tile(piece, -(-round(seconds) // 10))[None, : round(seconds * CODEC_SAMPLE_RATE_HZ)]
    started_s += time.time() - making_s
    accompanist.compile(round(seconds * CELLS_PER_S))
    mark("compiled_s")
    out = accompanist(vocal, CODEC_SAMPLE_RATE_HZ, progress=lambda *done: mark("first_tokens_s"))
    mark("done_s")
    assert out.shape[-1] == vocal.shape[-1]
    return clock | {
        "generate_s": clock["done_s"] - clock["compiled_s"],
        "real_time_factor": (clock["done_s"] - clock["compiled_s"]) / seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "stated_gb": accompanist.needed_bytes(SamplingOptions(), vocal.shape, CODEC_SAMPLE_RATE_HZ) / 1e9,
        "audio_gb": out.nbytes / 1e9,
    }


def in_a_process(seconds: float, cache: Path) -> dict:
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, __file__, "--accompany", str(seconds), str(time.time())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/length.json"))
    parser.add_argument("--accompany", nargs=2, type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.accompany:
        print(json.dumps(accompany(*arguments.accompany)))
        return

    bar = tqdm(total=2 * STARTS + len(LENGTHS_S), unit="run")
    starts = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as warm:
        for _ in range(STARTS):
            with tempfile.TemporaryDirectory() as cold:
                starts["cold"].append(in_a_process(10, Path(cold)))
            bar.update()
        in_a_process(10, Path(warm))
        for _ in range(STARTS):
            starts["warm"].append(in_a_process(10, Path(warm)))
            bar.update()
        lengths = {}
        for seconds in LENGTHS_S:
            in_a_process(min(seconds, 30), Path(warm))  # what a song of several windows compiles besides
            lengths[seconds] = in_a_process(seconds, Path(warm))
            bar.update()
    bar.close()

    medians = {
        how: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for how, runs in starts.items()
    }
    for how, run in medians.items():
        print(f"{how}: " + ", ".join(f"{name} {value:.2f}" for name, value in run.items()))
    for seconds, run in lengths.items():
        print(f"{seconds} s: " + ", ".join(f"{name} {value:.2f}" for name, value in run.items()))
    document = {"machine": machine(), "starts": starts, "medians": medians, "lengths": lengths}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
