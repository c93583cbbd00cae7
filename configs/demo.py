"""The demo model: small enough to ship and to train on two CPU cores, on songs that this project synthesises.

    make demo-model

configs/demo.mk trains each stage in one or more runs. `--config configs/demo.py:coarse` is the first run of a stage,
`--config configs/demo.py:coarse,2 --config.start_from=WORKDIR` its second one.

Sizes, batches and rates follow the sweep of configs/scaling.py at such budgets: small models that see much. Windows are
shorter for finer tokens (as in AudioLM), so that a step stays cheap.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs.base import get_config as base_config
from hafm_jax.model.config import find_size
from hafm_jax.model.sampling import Sampling
from hafm_jax.scaling import rules


class Recipe(NamedTuple):
    """The first run of a stage, all ours."""

    size: str
    window_cells: int  # 10 s to learn key and metre, then less: finer tokens depend on their neighbourhood
    batch_size: int
    steps: int
    sampling: Sampling  # the best of those tried for chords, beats and brightness on validation songs


RECIPES = {
    "semantic": Recipe("96x3x3", 250, 16, 4_000, Sampling(guidance_scale=1.7, temperature=0.8, no_history_scale=0.5)),
    "coarse": Recipe("96x3x3", 50, 16, 3_200, Sampling(guidance_scale=2.0, temperature=0.95, no_history_scale=0.5)),
    "fine": Recipe("64x2x2", 25, 16, 2_000, Sampling(guidance_scale=1.0, temperature=1.0, top_k=0)),
}


class FollowUp(NamedTuple):
    """A run from the parameters of the run before it, with history corruption: as good at the end as throughout, and
    much cheaper (docs/notebook.md). Seeds differ, so that windows do too. All ours."""

    history_corruption: float
    steps: int
    warmup_steps: int
    eval_every: int
    seed: int
    learning_rate: float = 2e-3


# The fine stage depends little on its past: it has no second run.
FOLLOW_UPS = {
    "semantic,2": FollowUp(0.95, 600, 20, 100, seed=1),
    "coarse,2": FollowUp(0.3, 600, 20, 100, seed=1),
    "coarse,3": FollowUp(0.3, 4_800, 200, 500, seed=3),
}


def get_config(run: str = "semantic") -> ConfigDict:
    """The configuration of "STAGE", or of its N-th run, "STAGE,N"."""
    stage = run.split(",")[0]
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

    if run != stage:
        config.update(FOLLOW_UPS[run]._asdict())
    return config
