"""The paper's model at full size: three runs, one a stage, about 85 M parameters each.

    python -m hafm_jax.train --config configs/base.py --config.stage=semantic --data TOKENS --workdir runs/semantic

Not yet trained: tests/test_train.py makes one step and a short decode of the coarse stage at this size.
"""

from ml_collections import ConfigDict

from hafm_jax.model.sampling import Sampling


def get_config() -> ConfigDict:
    config = ConfigDict()

    # The model (hafm_jax/model/config.py)
    config.stage = "semantic"  # semantic, coarse or fine [paper]
    config.size = "base"  # a row of SIZES [inferred from the authors' checkpoints], or WIDTHxLAYERSxHEADS
    config.position = "clock"  # clock (ours) or index (the paper's)
    config.window_cells = 250  # trained length, cells of 40 ms: 10 s [paper]
    config.compute_dtype = "bfloat16"  # of matrix products; the rest is float32 [ours]

    # Where embeddings and heads start: random, or tokenizers: as the vectors that their tokens stand for, centroids and
    # codebooks of the folder that `tokenizers` names (ours; README.md, "Train", has what it gains)
    config.embeddings = "random"

    # Or a work directory whose last parameters, all of them, this run starts with, or a model directory: fine-tuning.
    # "": none
    config.start_from = ""

    # The run
    config.steps = 200_000  # optimiser steps [ours]
    config.batch_size = 64  # windows a step, all devices together [ours]
    config.seed = 0
    config.condition_dropout = 0.1  # share of examples that learn without condition, for guidance [paper]
    config.history_corruption = 0.0  # up to this share of a window's past is another window's (training/step.py) [ours]
    config.accumulate_steps = 1  # parts of a batch that are computed one after another: less memory [ours]
    config.remat = (
        "attention"  # none, attention, layer: what the backward pass computes again (model/transformer.py) [ours]
    )

    # The devices (hafm_jax/model/sharding.py). The product of the three is their number; -1: what the other two leave
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    # The optimiser (hafm_jax/training/optim.py)
    config.learning_rate = 3e-4  # peak [ours]
    config.warmup_steps = 2_000  # [ours]
    config.beta1 = 0.9  # [paper]
    config.beta2 = 0.95  # [paper]
    config.weight_decay = 0.1  # decoupled, a step's share is learning rate times this [ours]
    config.clip_norm = 1.0  # global gradient norm [ours]
    config.moment_dtype = "float32"  # of AdamW's first moment; bfloat16 saves 2 bytes a parameter [ours]
    config.z_loss = 0.0  # weight of the squared log-normaliser; 1e-4 where logits drift [PaLM]

    # What is written, and how often, in steps
    config.log_every = 50
    config.eval_every = 2_000
    config.eval_batches = 32  # at most, of the validation split
    config.checkpoint_every = 2_000
    config.keep_checkpoints = 2  # the last ones stay
    config.keep_every = 0  # and those at multiples of this; 0: none

    # The folder of the tokenizers that made the tokens: others are refused at the start. "": not looked at
    config.tokenizers = ""

    # How tokens are drawn, in the sounds below and, unless told otherwise, of the exported model (model/sampling.py)
    config.sampling = ConfigDict(Sampling()._asdict())

    # Sounds in TensorBoard, of the coarse and the fine stage: what the model makes of validation songs, on one device.
    # Parameters are gathered for it: each host needs room for all of them, and the first host's first device for them
    # in float32 and once more in the compute dtype, beside the training
    config.sample_every = 0  # steps; 0: none

    # A trace of some steps for the profiler, in profile/
    config.profile_first_step = 10
    config.profile_steps = 0  # 0: none

    return config
