"""A scaling-law sweep: its sizes, lengths, learning rates, held-out runs and devices.

    hafm sweep plan --config configs/scaling.py --data TOKENS --workdir SWEEP
    hafm sweep run --workdir SWEEP --all
    hafm sweep fit --workdir SWEEP
    hafm sweep plot --workdir SWEEP

This sweep is a miniature for two CPU cores and synthesised songs. For your own, copy the file, take larger sizes and
budgets, and add your device. Learning rates and batch sizes follow from size and tokens by hafm_jax/scaling/rules.py.
"""

from ml_collections import ConfigDict

from configs.base import get_config as base_config


def get_config() -> ConfigDict:
    config = ConfigDict()

    # Shared by all runs: any field of configs/base.py except those that follow from size, tokens and stage
    config.training = base_config()
    config.training.compute_dtype = "float32"  # bfloat16 is slower on CPUs
    config.training.remat = "none"
    config.training.keep_checkpoints = 1

    # Stages, and what differs between them. Windows in cells of 40 ms. Budgets in FLOPs of training: each makes an
    # IsoFLOP row with a run of every size. `tokens`, of the target: each makes a run of every size
    config.stages = ConfigDict(
        {
            "semantic": {"window_cells": 125, "budgets_flops": (2.5e11, 6.25e11, 1.56e12, 3.9e12), "tokens": ()},
            "coarse": {"window_cells": 32, "budgets_flops": (2.5e11, 6.25e11, 1.56e12, 3.9e12), "tokens": ()},
        }
    )
    config.sizes = ("16x1x1", "32x1x2", "48x2x3", "64x2x4", "96x3x6", "144x3x9")  # width x layers x heads, or of SIZES
    config.seeds = (0,)

    # Is the rule's learning rate the best at every width? Runs that differ only in the rate, at equal tokens
    config.rates = ConfigDict(
        {
            "stages": ("semantic",),
            "sizes": ("48x2x3", "96x2x6", "144x2x9"),
            "factors": (0.25, 0.5, 1.0, 2.0, 4.0),
            "tokens": 200_000,
        }
    )

    # Predicted first, measured afterwards, in no fit
    config.held_out = ConfigDict({"sizes": ("48x2x3", "192x4x12"), "budget_flops": 1e13})

    # Evaluation
    config.evaluations = 6  # per run, evenly spaced, with a checkpoint at each
    config.validation_windows = 128  # the same for all runs

    # The data of plan's estimates, for one device: FLOP/s that training reaches, the least time of a step (launches),
    # the time to start a run, and the price
    config.device = "cpu"  # unless --device names another
    config.devices = ConfigDict(
        {
            # Measured, at these sizes, on two cores of an AMD EPYC
            "cpu": {"flops_per_s": 3e10, "least_step_s": 0.02, "start_s": 15.0, "usd_per_hour": 0.1},
            # Not measured: 0.4 of the bfloat16 peak, list prices on demand; replace them by your own
            "TPU v5e": {"flops_per_s": 0.8e14, "least_step_s": 0.005, "start_s": 90.0, "usd_per_hour": 1.2},
            "TPU v6e": {"flops_per_s": 3.7e14, "least_step_s": 0.005, "start_s": 90.0, "usd_per_hour": 2.7},
            "NVIDIA H100": {"flops_per_s": 4e14, "least_step_s": 0.005, "start_s": 60.0, "usd_per_hour": 2.7},
        }
    )
    return config
