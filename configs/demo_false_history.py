"""The demo model's second runs, each from the parameters of the first: its stages learn to doubt their past.

    make demo-model

At the end of a training and for a fraction of it, since that was as good as throughout (README.md, "Train", "False
history"). The fine stage has next to no past to doubt: it has no second run.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs.demo import get_config as demo_config


class Recipe(NamedTuple):
    """Of one stage, all ours."""

    false_history: float
    steps: int


RECIPES = {"semantic": Recipe(0.95, 600), "coarse": Recipe(0.3, 600)}


def get_config(stage: str = "semantic") -> ConfigDict:
    """`--config configs/demo_false_history.py:coarse --config.start_from=WORKDIR` goes on with a coarse stage."""
    config = demo_config(stage)
    config.update(RECIPES[stage]._asdict())
    config.seed = 1  # other windows than at the start of the first run
    config.learning_rate = 2e-3
    config.warmup_steps = 20
    config.eval_every = 100
    return config
