"""Runs of a sweep without training: their losses follow a known law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hafm_jax.model.config import StageConfig, num_layer_parameters, train_flops
from hafm_jax.scaling.runs import Run
from hafm_jax.streams import STAGES

LAWS = {"semantic": (1.0, 60.0, 0.45, 300.0, 0.42), "coarse": (5.4, 30.0, 0.40, 150.0, 0.38)}  # E, A, alpha, B, beta
SIZES = ((48, 1, 2), (64, 2, 2), (96, 2, 4), (144, 3, 6), (192, 4, 8))  # width, layers, heads
CELLS = 64


def known_loss(law: tuple, parameters, tokens):
    e, a, alpha, b, beta = law
    return e + a / parameters**alpha + b / tokens**beta


def make_run(index: int, **changes) -> Run:
    """A finished semantic run of 32 k parameters and 1 M tokens at 6 N D, except for the changes."""
    run = Run(
        index=index, stage="semantic", size="small", d_model=48, num_layers=1, parameters=32_000,
        parameters_total=100_000, tokens=1_000_000, flops=6 * 32_000 * 1e6, seed=0, learning_rate=1e-3,
        learning_rate_factor=1.0, batch_size=8, status="finished", loss=2.0, loss_per_codebook=[2.0],
        curve=[[500_000, 2.5], [1_000_000, 2.0]], isoflop=None, held_out=False,
    )  # fmt: skip
    return replace(run, **changes)


def make_sweep(noise: float, seed: int = 0, stages=tuple(LAWS)) -> list[Run]:
    """For each stage: a grid, IsoFLOP rows, one held-out run, learning rates at three widths (the best is the rule's at
    each), a diverged and an unfinished run. `noise` is the standard deviation of log losses."""
    random = np.random.default_rng(seed)
    runs: list[Run] = []

    def add(stage, size, tokens, factor=1.0, **changes):
        width, layers, heads = size
        config = StageConfig(stage, width, layers, heads, CELLS)
        target = STAGES[stage].target
        parameters = num_layer_parameters(config)
        cost = train_flops(config, CELLS) / (CELLS * target.tokens_per_cell)
        tokens = int(tokens(cost) if callable(tokens) else tokens)
        at = np.geomspace(tokens / 20, tokens, 12).tolist()
        losses = known_loss(LAWS[stage], parameters, np.array(at)) + 0.02 * np.log(factor) ** 2
        losses *= np.exp(noise * random.normal()) * (1 + 0.02 * (1 - np.array(at) / tokens))
        changes = {"status": "finished", **changes}
        done = changes["status"] == "finished"
        share = np.linspace(0.9, 1.1, target.codebooks) if target.codebooks > 1 else np.ones(1)
        run = make_run(
            len(runs), stage=stage, size="x".join(map(str, size)), d_model=width, num_layers=layers,
            parameters=parameters, parameters_total=parameters + 1000 * width, tokens=tokens, flops=cost * tokens,
            learning_rate=0.2 / width * factor, learning_rate_factor=factor, loss=float(losses[-1]) if done else None,
            loss_per_codebook=(losses[-1] * share).tolist() if done else [],
            curve=[[t, float(x)] for t, x in zip(at, losses, strict=True)][: None if done else 4],
            **changes,
        )  # fmt: skip
        runs.append(run)

    for stage in stages:
        for size in SIZES:
            for tokens in (2e5, 4e5, 8e5, 1.6e6):
                add(stage, size, tokens)
            for flops in (1.5e12, 3.5e12, 8e12):
                add(stage, size, lambda cost, flops=flops: flops / cost, isoflop=f"{flops:.3g} FLOPs")
        add(stage, (240, 5, 10), 1.6e6, held_out=True)
        for size in SIZES[::2]:
            for factor in (0.25, 0.5, 2.0, 4.0):
                add(stage, size, 2e5, factor)
        add(stage, SIZES[0], 3.2e6, status="diverged")
        add(stage, SIZES[1], 3.2e6, status="unfinished")
    return runs
