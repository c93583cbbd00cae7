"""The log of a training run: metrics.jsonl, TensorBoard beside it, and rates such as tokens a second.

Only the first process writes; on the others every call does nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from hafm_jax.audio.files import write_audio

# Start of the device kind -> FLOP/s of dense bfloat16 products of one device: the makers' data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices of the run together; None where their kind is not in the table, as with CPUs."""
    kind = jax.devices()[0].device_kind
    known = sorted((name for name in PEAK_FLOPS if kind.startswith(name)), key=len)
    return PEAK_FLOPS[known[-1]] * jax.device_count() if known else None


class RunLog:
    """Lines of metrics.jsonl, TensorBoard events and sounds in `workdir`.

    Rates are over the time between two calls of `log`, without the time spent in `paused` (evaluation, checkpoints).
    """

    def __init__(self, workdir: Path, first_step: int, tokens_per_step: int, flops_per_step: float, writes: bool):
        self._tokens, self._flops, self._peak = tokens_per_step, flops_per_step, peak_flops()
        self._file = (workdir / "metrics.jsonl").open("a") if writes else None
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1) if writes else None
        self._sounds = workdir / "sounds"
        self._last_step = first_step
        self._started_s = time.monotonic()
        self._waited_s = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as time in which a step waited for its batch."""
        started_s = time.monotonic()
        yield
        self._waited_s += time.monotonic() - started_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of the rates: the run does not train in it."""
        started_s = time.monotonic()
        yield
        self._started_s += time.monotonic() - started_s

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Write a training step's metrics with the rates since the last ones.

        seconds, tokens_per_s, tflops_per_s, input_wait (the share of the time in which a step waited for its batch)
        and, where the device's bfloat16 peak is known, mfu, the share of that peak.
        """
        seconds = time.monotonic() - self._started_s
        steps = step - self._last_step
        rates = {
            "seconds": seconds,
            "tokens_per_s": steps * self._tokens / seconds,
            "tflops_per_s": steps * self._flops / seconds / 1e12,
            "input_wait": self._waited_s / seconds,
        }
        if self._peak:
            rates["mfu"] = steps * self._flops / seconds / self._peak
        self.write(step, values | rates)
        self._last_step, self._started_s, self._waited_s = step, time.monotonic(), 0.0

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write values, numbers or arrays [N], as a line of metrics.jsonl and as TensorBoard scalars."""
        if self._file is None:
            return
        plain = {name: np.asarray(value).tolist() for name, value in values.items()}
        self._file.write(json.dumps({"step": step} | plain) + "\n")
        self._file.flush()
        for name, value in plain.items():
            for suffix, number in enumerate(value) if isinstance(value, list) else [("", value)]:
                self._board.add_scalar(name + (f"/{suffix}" if suffix != "" else ""), number, step)
        self._board.flush()

    def audio(self, step: int, name: str, samples: np.ndarray, rate_hz: int) -> None:
        """Write float samples [N], clipped to -1..1, to TensorBoard and as sounds/NAME-STEP.wav."""
        if self._board is not None:
            self._board.add_audio(name, np.clip(samples, -1.0, 1.0), step, sample_rate=rate_hz)
            path = self._sounds / f"{name}-{step}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, samples, rate_hz)
            self._board.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._board.close()
