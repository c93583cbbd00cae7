"""One song of 5 s learnt by heart, to tell whether training works on a machine: a coarse stage of 2 M parameters.

    make overfit

Measured on two cores of an AMD EPYC that had other work too: 3 minutes. Loss of the step, nats a token (ln 1024 =
6.93 is chance):

    step      1    10    20    30    40    50    60    80   100    150    200
    loss   6.97  6.28  4.99  3.62  2.63  1.59  0.69  0.10  0.03  0.006  0.003

Between them are peaks (steps 32, 39, 48, 66, 70, 78, ...), the steps that learn without the condition. What the trained
stage then generates is the song, token for token (README.md, "Train on your own songs").
"""

from ml_collections import ConfigDict

from configs.demo import get_config as demo_config


def get_config() -> ConfigDict:
    config = demo_config("coarse")
    config.size = "demo"
    config.embeddings = "random"
    config.window_cells = 125  # all of the song: 5 s
    config.batch_size = 1
    config.history_corruption = 0.0

    config.learning_rate = 1.5e-3
    config.steps = 200
    config.warmup_steps = 20
    config.weight_decay = 0.0  # nothing to hold the weights back

    config.log_every = 1
    config.eval_every = 50
    config.eval_batches = 1
    config.checkpoint_every = 100

    config.sample_every = 200
    config.tokenizers = "hafm_jax/demo"

    return config
