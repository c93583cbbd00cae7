"""One song learnt by heart: does training work on this machine?

make overfit
"""

from ml_collections import ConfigDict

from configs.demo import get_config as demo_config


def get_config() -> ConfigDict:
    config = demo_config("coarse")
    config.window_cells = 125  # all of the song: 5 s
    config.batch_size = 1

    config.steps = 200
    config.warmup_steps = 20
    config.weight_decay = 0.0

    config.log_every = 1
    config.eval_every = 50
    config.eval_batches = 1
    config.checkpoint_every = 100

    config.sample_every = 200
    config.tokenizers = "hafm_jax/demo"

    return config
