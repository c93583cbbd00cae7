"""A program that keeps the training command's contract with a launcher and does nothing else.

    python stand_in.py WORKDIR NUM_STEPS [EXIT_CODE]

A step takes 0.1 s, saving 2 s. It joins the other processes, resumes after the last step in WORKDIR/steps.jsonl, and
saves and exits with 75 on SIGTERM. With EXIT_CODE it ends with that code at its first step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

SAVE_S = 2.0


def main() -> None:
    workdir, num_steps, *exit_code = Path(sys.argv[1]), *map(int, sys.argv[2:])
    if int(os.environ["SLURM_NTASKS"]) > 1:
        jax.distributed.initialize()
    # Not before: initialize takes SIGTERM for JAX's own preemption notifier.
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    path = workdir / "steps.jsonl"
    done = len(path.read_text().splitlines()) if path.exists() else 0
    print(f"process {jax.process_index()} of {jax.process_count()}, from step {done}", flush=True)
    if exit_code:
        sys.exit(exit_code[0])
    for step in range(done, num_steps):
        time.sleep(0.1)
        # All stop at the same step, whichever of them received the signal.
        stop = bool(np.any(multihost_utils.process_allgather(np.array(bool(stopped)))))
        if jax.process_index() == 0:
            line = {
                "step": step,
                "processes": jax.process_count(),
                "start": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
            }
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if stop:
            time.sleep(SAVE_S)
            print(f"saved after step {step}", flush=True)
            sys.exit(75)


if __name__ == "__main__":
    main()
