"""The demo model: small enough to ship, to be trained on two CPU cores on songs this project synthesises.

    make demo-model

Sizes, batches and rates follow what the sweep of configs/scaling.py found at such budgets: small models that see much.
Windows are shorter the finer the tokens (as AudioLM has it), so that a step stays cheap.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs.base import get_config as base_config
from hafm_jax.model.config import find_size
from hafm_jax.model.sampling import Sampling
from hafm_jax.scaling import rules


class Recipe(NamedTuple):
    """Of one stage, all ours."""

    size: str
    window_cells: int  # 10 s to hear the key and the metre, then less, since finer tokens depend on what is near
    batch_size: int
    steps: int
    sampling: Sampling  # of what was tried on validation songs, what keeps chords, beats and brightness


RECIPES = {
    "semantic": Recipe("96x3x3", 250, 16, 4_000, Sampling(guidance_scale=1.7, temperature=0.8, no_history_scale=0.5)),
    "coarse": Recipe("96x3x3", 50, 16, 3_200, Sampling(guidance_scale=2.0, temperature=0.95, no_history_scale=0.5)),
    "fine": Recipe("64x2x2", 25, 16, 2_000, Sampling(guidance_scale=1.0, temperature=1.0, top_k=0)),
}


def get_config(stage: str = "semantic") -> ConfigDict:
    """`--config configs/demo.py:coarse` chooses the stage, and with it the size, the window and the number of steps."""
    recipe = RECIPES[stage]
    config = base_config()
    config.stage = stage
    config.update({name: value for name, value in recipe._asdict().items() if name != "sampling"})
    config.sampling.update(recipe.sampling._asdict())
    config.compute_dtype = "float32"  # bfloat16 is slower on CPUs
    config.remat = "none"
    config.embeddings = "tokenizers"

    config.learning_rate = rules.learning_rate(find_size(recipe.size).d_model)
    config.warmup_steps = round(rules.WARMUP_SHARE * recipe.steps)

    config.log_every = 10
    config.eval_every = 500
    config.eval_batches = 8
    config.checkpoint_every = 250

    return config
