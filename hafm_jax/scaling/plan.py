"""The plan of a sweep: from its configuration (configs/scaling.py) to the runs, how each is trained and what they cost.

Axes: N parameters, D target tokens, C FLOPs of training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from hafm_jax.common.errors import InputError
from hafm_jax.common.files import read_json, reading, sealed, write_json
from hafm_jax.model.config import forward_flops, num_layer_parameters, num_parameters, train_flops
from hafm_jax.scaling.estimates import si
from hafm_jax.scaling.rules import WARMUP_SHARE, batch_windows, learning_rate
from hafm_jax.scaling.runs import Run
from hafm_jax.streams import STAGES
from hafm_jax.training.settings import check_config
from hafm_jax.training.step import stage_config, step_flops

PLAN_FILE = "plan.json"
LOGS = 50  # ours: lines that a run logs; its progress is read from them


@dataclass(frozen=True)
class Plan:
    """The request of `sweep plan`. `data` are the arguments --data, their folders absolute."""

    config: ConfigDict
    data: list[str]

    def write(self, workdir: Path) -> None:
        """As WORKDIR/plan.json. Raises InputError where it cannot be written."""
        document = {"format_version": 1, "config": self.config.to_dict(), "data": self.data}
        write_json(workdir / PLAN_FILE, sealed(document))

    @classmethod
    def read(cls, workdir: Path) -> Plan:
        """Raises InputError where WORKDIR/plan.json is missing or damaged, or plans no runs."""
        path = workdir / PLAN_FILE
        expected = "the file that `sweep plan` writes: plan first"
        document = read_json(path, expected)
        with reading(path, expected):
            if not isinstance(data := document["data"], list) or not all(isinstance(name, str) for name in data):
                raise TypeError(f"data is {data!r}")
            plan = cls(ConfigDict(document["config"]), data)
            try:
                for run in plan.runs():
                    plan.training(run)
            except InputError as error:
                raise ValueError(str(error)) from error
        return plan

    def runs(self) -> list[Run]:
        """All runs, by index, as if none had begun. Raises InputError where the configuration is out of range."""
        return _Runs(self.config).all()

    def training(self, run: Run) -> ConfigDict:
        """A run's configuration for hafm_jax.training.loop. Raises InputError where it is out of range."""
        training = ConfigDict(self.config.training)
        window_cells = self.config.stages[run.stage].window_cells
        steps = run.tokens // (run.batch_size * target_tokens(run.stage, window_cells))
        training.update(stage=run.stage, size=run.size, window_cells=window_cells, seed=run.seed)
        training.update(batch_size=run.batch_size, steps=steps, learning_rate=run.learning_rate)
        training.update(warmup_steps=math.ceil(WARMUP_SHARE * steps), log_every=max(1, steps // LOGS))
        every = math.ceil(steps / self.config.evaluations)
        training.update(eval_every=every, checkpoint_every=every)
        training.update(eval_batches=self.config.validation_windows // run.batch_size)
        check_config(training)
        return training

    def seconds(self, run: Run, device: str) -> float:
        """The estimated time of a run on a device of the configuration, evaluations included."""
        d = self.config.devices[device]
        training = self.training(run)
        stage = stage_config(training)
        evaluations = math.ceil(training.steps / training.eval_every) * self.config.validation_windows
        evaluations *= forward_flops(stage, stage.window_cells)
        of_steps = training.steps * max(d.least_step_s, step_flops(stage, run.batch_size) / d.flops_per_s)
        return d.start_s + of_steps + evaluations / d.flops_per_s


def target_tokens(stage: str, window_cells: int) -> int:
    return window_cells * STAGES[stage].target.tokens_per_cell


class _Runs:
    """The runs of a configuration: each size, length, rate and seed once."""

    def __init__(self, config: ConfigDict):
        self._config = config
        self._found: dict[tuple, Run] = {}
        if bad := [w for w in (config.validation_windows,) if w & (w - 1)]:
            raise InputError(f"validation_windows is {bad[0]}; expected a power of two, as the batches are")

    def all(self) -> list[Run]:
        for stage, of_stage in self._config.stages.items():
            for seed in self._config.seeds:
                for flops in of_stage.budgets_flops:
                    for size in self._config.sizes:
                        self._add(stage, size, seed, flops=flops, isoflop=f"{stage} {flops:.3g} FLOPs, seed {seed}")
                for tokens in of_stage.tokens:
                    for size in self._config.sizes:
                        self._add(stage, size, seed, tokens=tokens)
            rates = self._config.rates
            for size in rates.sizes if stage in rates.stages else ():
                for factor in rates.factors:
                    self._add(stage, size, self._config.seeds[0], tokens=rates.tokens, factor=factor)
            held_out = self._config.held_out
            for size in held_out.sizes:
                self._add(stage, size, self._config.seeds[0], flops=held_out.budget_flops, held_out=True)
        return list(self._found.values())

    def _add(self, stage, size, seed, *, tokens=0.0, flops=0.0, factor=1.0, isoflop=None, held_out=False) -> None:
        """A run of `tokens`, or of as many tokens as `flops` can buy."""
        of_stage = self._config.stages[stage]
        training = ConfigDict(self._config.training)
        training.update(stage=stage, size=size, window_cells=of_stage.window_cells)
        config = stage_config(training)
        per_window = target_tokens(stage, config.window_cells)
        flops_per_window = train_flops(config, config.window_cells)
        tokens = tokens or flops * per_window / flops_per_window
        batch_size = batch_windows(tokens, per_window)
        if batch_size > self._config.validation_windows:
            raise InputError(
                f"a run of {tokens:.3g} tokens has batches of {batch_size} windows; expected at most "
                f"validation_windows, {self._config.validation_windows}: raise it"
            )
        windows = max(1, round(tokens / (batch_size * per_window))) * batch_size
        rate = learning_rate(config.d_model) * factor
        run = Run(
            len(self._found), stage, size, config.d_model, config.num_layers, num_layer_parameters(config),
            num_parameters(config), windows * per_window, float(windows * flops_per_window), seed, rate, factor,
            batch_size, "unfinished", None, [], [], isoflop, held_out,
        )  # fmt: skip
        self._found.setdefault((stage, size, run.tokens, seed, factor), run)


def folder(run: Run) -> str:
    """The name of a run's work directory, unlike that of any other run of the sweep."""
    rate = "" if run.learning_rate_factor == 1 else f"-rate{run.learning_rate_factor:g}"
    return f"{run.stage}-{run.size}-{run.tokens}{rate}-seed{run.seed}"


def plan_rows(plan: Plan, runs: Sequence[Run], device: str) -> list[list[str]]:
    """The table that a terminal shows of a plan: column heads, a row for each run, the sum of each stage, the total."""
    price = plan.config.devices[device].usd_per_hour
    seconds = {run.index: plan.seconds(run, device) for run in runs}

    def costs(of: Sequence[Run]) -> list[str]:
        s = sum(seconds[run.index] for run in of)
        return [f"{sum(run.flops for run in of):.3g}", duration(s), f"{s / 3600 * price:.2f}"]

    rows = [["run", "stage", "size", "N", "D", "steps x windows", "rate", "FLOPs", "time", "USD", ""]]
    for run in runs:
        kind = "held out" if run.held_out else run.isoflop or ""
        if run.learning_rate_factor != 1:
            kind = f"{run.learning_rate_factor:g} x the rule's rate"
        steps = f"{plan.training(run).steps} x {run.batch_size}"
        asked = [str(run.index), run.stage, run.size, si(run.parameters), si(run.tokens), steps]
        rows.append([*asked, f"{run.learning_rate:.2g}", *costs([run]), kind])
    for stage in dict.fromkeys(run.stage for run in runs):
        rows.append(["", stage, "", "", "", "", "", *costs([run for run in runs if run.stage == stage]), ""])
    return [*rows, ["", "all", "", "", "", "", "", *costs(runs), ""]]


def duration(seconds: float) -> str:
    """12 s, 34 min, 5.6 h, 7.8 d."""
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.0f} s"
