"""The demo model as a newcomer meets it: cold start, and time and memory from 10 s to 10 min of singing.

    python -m benchmarks.length [--quick] [--out benchmarks/results/length.json]

Each figure is from a process of its own. Cold: the caches of XLA and of the kernels are empty; warm: they are full. The
first tokens are there at the semantic stage's first report of progress, after its first second of music.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time

from tqdm import tqdm

from benchmarks._common import begin_result, in_a_process, make_parser, markdown
from hafm_jax.common.errors import run_command

LENGTHS_S = (10, 30, 60, 120, 300, 600)
STARTS = 3


def accompany(seconds: float, started_s: float) -> dict:
    """In a fresh process: accompany singing of `seconds`. started_s: the clock when the process was started."""
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
    # The singing is synthesised here; the times leave that out.
    making_s = time.time()
    piece = synthesize_song(song_seed("test", 0, base_seed=0), 10.0).vocals
    vocal = np.tile(piece, -(-round(seconds) // 10))[None, : round(seconds * CODEC_SAMPLE_RATE_HZ)]
    started_s += time.time() - making_s
    accompanist.compile(round(seconds * CELLS_PER_S))
    mark("compiled_s")
    out = accompanist((vocal, CODEC_SAMPLE_RATE_HZ), progress=lambda *done: mark("first_tokens_s")).instrumental
    mark("done_s")
    assert out.shape[-1] == vocal.shape[-1]
    return clock | {
        "generate_s": clock["done_s"] - clock["compiled_s"],
        "real_time_factor": (clock["done_s"] - clock["compiled_s"]) / seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "stated_gb": accompanist.needed_bytes(SamplingOptions(), vocal.shape, CODEC_SAMPLE_RATE_HZ) / 1e9,
        "audio_gb": out.nbytes / 1e9,
    }


def run_with_cache(seconds: float, cache: str) -> dict:
    return in_a_process(accompany, seconds, time.time(), XDG_CACHE_HOME=cache)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one start of each kind, 10 s alone")
    arguments = parser.parse_args()
    write = begin_result(arguments.out)
    num_starts, lengths_s = (1, LENGTHS_S[:1]) if arguments.quick else (STARTS, LENGTHS_S)
    starts, lengths = {"cold": [], "warm": []}, {}
    with tqdm(total=2 * num_starts + len(lengths_s), unit="run") as bar, tempfile.TemporaryDirectory() as warm:
        for _ in range(num_starts):
            with tempfile.TemporaryDirectory() as cold:
                starts["cold"].append(run_with_cache(10, cold))
            bar.update()
        run_with_cache(10, warm)
        for _ in range(num_starts):
            starts["warm"].append(run_with_cache(10, warm))
            bar.update()
        for seconds in lengths_s:
            run_with_cache(min(seconds, 30), warm)  # compiles what a song of several windows needs
            lengths[seconds] = run_with_cache(seconds, warm)
            bar.update()

    medians = {
        how: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for how, runs in starts.items()
    }
    write({"starts": starts, "medians": medians, "lengths": lengths})
    rows = medians | {
        f"{seconds} s" if seconds < 60 else f"{seconds // 60} min": run for seconds, run in lengths.items()
    }
    print(
        markdown([["", *medians["warm"]], *([name, *map("{:.2f}".format, run.values())] for name, run in rows.items())])
    )


if __name__ == "__main__":
    run_command(main)
