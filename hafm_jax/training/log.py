"""The log of a training run: metrics.jsonl, TensorBoard beside it, and rates such as tokens a second.

Only the first process writes; on the others every call does nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from hafm_jax.audio.files import write_audio
from hafm_jax.common.files import write_bytes
from hafm_jax.common.resume import whole_lines
from hafm_jax.training.storage import writing

METRICS_FILE = "metrics.jsonl"

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


def read_metrics(workdir: Path, last_step: float = math.inf) -> list[dict[str, Any]]:
    """The records of metrics.jsonl up to `last_step`, in order: numbers and lists of numbers by name, with `step`.

    Where a step was made again after a kill, the later records hold. [] where there is no file; a line that is torn,
    empty or damaged is left out.
    """
    return [record for line in whole_lines(workdir / METRICS_FILE) if (record := _record(line, last_step))]


def _record(line: str, last_step: float) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int) or record["step"] > last_step:
        return None
    values = [x for value in record.values() for x in (value if isinstance(value, list) else [value])]
    return record if all(type(x) in (int, float) for x in values) else None


class RunLog:
    """Lines of metrics.jsonl, TensorBoard events and sounds in `workdir`.

    What is logged there of steps after `first_step`, or damaged, is removed: those steps are made again. Rates are over
    the time between two calls of `log`, without the time spent in `paused` (evaluation, checkpoints). Raises
    OutputError where the files cannot be written.
    """

    def __init__(self, workdir: Path, first_step: int, tokens_per_step: int, flops_per_step: float, writes: bool):
        self._tokens, self._flops, self._peak = tokens_per_step, flops_per_step, peak_flops()
        self._writes, self._workdir = writes, workdir
        if writes:
            before = "".join(json.dumps(record) + "\n" for record in read_metrics(workdir, first_step))
            write_bytes(workdir / METRICS_FILE, before.encode())
            with writing(workdir):
                (workdir / "tensorboard").mkdir(exist_ok=True)
                # Not SummaryWriter: it writes in a thread, which dies on a full disk, and then waits for it for ever.
                self._board = EventsWriter(str(workdir.absolute() / "tensorboard" / "events"), f".{first_step}")
                self._show(first_step + 1, session_log=SessionLog(status=SessionLog.START))  # replaces those after it
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
        if not self._writes:
            return
        plain = {name: np.asarray(value).tolist() for name, value in values.items()}
        with writing(self._workdir):
            with (self._workdir / METRICS_FILE).open("a") as file:
                file.write(json.dumps({"step": step} | plain) + "\n")
            for name, value in plain.items():
                for suffix, number in enumerate(value) if isinstance(value, list) else [("", value)]:
                    self._show(step, summary=summary.scalar(name + (f"/{suffix}" if suffix != "" else ""), number))
            self._board.flush()

    def _show(self, step: int, **content: Any) -> None:
        self._board.write_event(Event(step=step, wall_time=time.time(), **content))

    def audio(self, step: int, name: str, samples: np.ndarray, rate_hz: int) -> None:
        """Write float samples [N], clipped to -1..1, to TensorBoard and as sounds/NAME-STEP.wav."""
        if not self._writes:
            return
        samples = np.clip(samples, -1.0, 1.0)
        path = self._sounds / f"{name}-{step}.wav"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, samples, rate_hz)
            self._show(step, summary=summary.audio(name, samples, rate_hz))
            self._board.flush()

    def close(self) -> None:
        if self._writes:
            with writing(self._workdir):
                self._board.close()
