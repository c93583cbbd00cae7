"""The training command in processes of their own, for tests that end them as machines do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from helpers import CACHE, ROOT, read_lines, write_token_set

STEPS = 20
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}


def token_set_of(directory: Path, tokenizers: Path) -> Path:
    """A token set with its tokenizers in it."""
    (directory / "tokenizers").symlink_to(tokenizers)
    return write_token_set(directory, num_train=9, num_validation=4, num_shards=2)


def training(token_set: Path, workdir: Path, *flags: str) -> list:
    """The training command."""
    fields = {"stage": "semantic", "size": "demo", "window_cells": 4, "compute_dtype": "float32", "steps": STEPS}
    fields |= {"batch_size": 4, "warmup_steps": 2, "log_every": 1, "eval_every": 10, "eval_batches": 1}
    fields |= {"checkpoint_every": 5, "remat": "none"}
    fields |= {"embeddings": "tokenizers", "tokenizers": f"{token_set}/tokenizers"}
    command = [sys.executable, "-m", "hafm_jax.train", f"--config={ROOT}/configs/base.py"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    return [*command, f"--data={token_set}", f"--workdir={workdir}", *flags]


def start(token_set: Path, workdir: Path, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        training(token_set, workdir, *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start_two(token_set: Path, workdir: Path, *flags: str) -> list[subprocess.Popen]:
    address = free_address()
    return [
        start(token_set, workdir, f"--coordinator={address}", "--num-processes=2", f"--process-id={i}", *flags)
        for i in range(2)
    ]


def finish(*processes: subprocess.Popen, code: int = 0) -> list[str]:
    """What the processes printed, once all have ended with this exit code."""
    printed = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), "\n\n".join(printed)
    return printed


def losses(workdir: Path) -> dict[int, float]:
    """step -> loss, the last one where a step was made twice."""
    return {line["step"]: line["loss"] for line in read_lines(workdir / "metrics.jsonl") if "loss" in line}


def wait_for_step(workdir: Path, step: int, *processes: subprocess.Popen) -> None:
    while max(losses(workdir), default=0) < step:
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.02)
