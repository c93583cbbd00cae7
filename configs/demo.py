"""The demo model: small enough to ship, to be trained on two CPU cores on songs this project synthesises.

    make demo-model

Measured on two cores of an AMD EPYC: semantic 12 minutes to a validation loss of 1.10 nats a token, coarse 27 to 6.17,
fine 9 to 6.86, hardly below the 6.93 of chance.

Windows are shorter the finer the tokens (as AudioLM has it), so that a step stays cheap.
"""

from ml_collections import ConfigDict

from configs.base import get_config as base_config

# ours: 10 s to hear the key and the metre, then less and less, since finer tokens depend on what is near
WINDOW_CELLS = {"semantic": 250, "coarse": 64, "fine": 42}
STEPS = {"semantic": 1_200, "coarse": 2_000, "fine": 700}  # ours: what an hour on two cores allows


def get_config(stage: str = "semantic") -> ConfigDict:
    """`--config configs/demo.py:coarse` chooses the stage, and with it the window and the number of steps."""
    config = base_config()
    config.stage = stage
    config.size = "demo"
    config.window_cells = WINDOW_CELLS[stage]
    config.compute_dtype = "float32"  # bfloat16 is slower on CPUs

    config.steps = STEPS[stage]
    config.batch_size = 4
    config.remat = "none"

    config.learning_rate = 1.5e-3
    config.warmup_steps = 100

    config.log_every = 10
    config.eval_every = 400
    config.eval_batches = 32
    config.checkpoint_every = 250

    return config
