"""The demo model's third run: the coarse stage as in its second, longer.

make demo-model
"""

from ml_collections import ConfigDict

from configs.demo_false_history import get_config as second_config


def get_config() -> ConfigDict:
    """`--config configs/demo_longer.py --config.start_from=WORKDIR` goes on with a coarse stage."""
    config = second_config("coarse")
    config.steps = 4_800
    config.warmup_steps = 200
    config.seed = 3  # other windows again
    config.eval_every = 500
    return config
