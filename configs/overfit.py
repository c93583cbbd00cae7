"""One song of 5 s learnt by heart, to check that training works on a machine: a coarse stage of 2 M parameters.

    make overfit

Minutes on two cores. The loss starts near ln 1024 = 6.93 nats a token, chance, and ends below 0.01; single steps, which
train without the condition, are higher. The trained stage then generates the song. docs/training.md has the curve.
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
    config.sampling.update(guidance_scale=1.0, temperature=0.0, no_history_scale=0.0)  # the likeliest token, given all

    config.learning_rate = 1.5e-3
    config.steps = 200
    config.warmup_steps = 20
    config.weight_decay = 0.0  # overfitting is the aim

    config.log_every = 1
    config.eval_every = 50
    config.eval_batches = 1
    config.checkpoint_every = 100

    config.sample_every = 200
    config.tokenizers = "hafm_jax/demo"

    return config
