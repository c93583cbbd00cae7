"""The paper's model at full size: three runs, one a stage, about 85 M parameters each.

    hafm train --config configs/base.py --config.stage=semantic --data TOKENS --workdir runs/semantic

Not yet trained: tests/training/test_loop.py makes one step and a short decode of the coarse stage at this size.
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

    # What embeddings and heads start from: random, or tokenizers: the vectors that their tokens stand for, centroids
    # and codebooks of the folder in `tokenizers` (ours; it gains 0.1 to 0.4 nats on the way)
    config.embeddings = "random"

    # Fine-tuning: the work directory or model directory whose parameters, all of them, this run starts from. "": none
    config.start_from = ""

    # The run
    config.steps = 200_000  # optimiser steps [ours]
    config.batch_size = 64  # windows a step, all devices together [ours]
    config.seed = 0
    config.condition_dropout = 0.1  # share of examples without their condition, for guidance [paper]
    config.history_corruption = 0.0  # at most this share of a past is another's (training/corruption.py) [ours]
    config.accumulate_steps = 1  # parts of a batch that are computed one after another: less memory [ours]
    config.remat = "attention"  # what the backward pass computes again: none, attention, layer [ours]

    # The devices (hafm_jax/model/sharding.py). The product of the three is their number; -1: as the other two leave
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    # The optimiser (hafm_jax/training/optim.py)
    config.learning_rate = 3e-4  # peak [ours]
    config.warmup_steps = 2_000  # [ours]
    config.beta1 = 0.9  # [paper]
    config.beta2 = 0.95  # [paper]
    config.weight_decay = 0.1  # decoupled: a step removes learning rate times this [ours]
    config.clip_norm = 1.0  # global gradient norm [ours]
    config.z_loss = 0.0  # weight of the squared log-normaliser; 1e-4 where logits drift [PaLM]

    # How often something is written, in steps
    config.log_every = 50
    config.eval_every = 2_000
    config.eval_batches = 32  # at most; fewer where the validation split is smaller
    config.checkpoint_every = 2_000
    config.keep_checkpoints = 2  # the last ones; older ones are deleted

    # The folder of the tokenizers that made the tokens: a run on other tokens is refused. "": not checked
    config.tokenizers = ""

    # How tokens are drawn for the sounds below, and by default from the exported model (model/sampling.py)
    config.sampling = ConfigDict(Sampling()._asdict())

    # Sounds in TensorBoard (coarse and fine stage): the model's output for validation songs, made on one device. For
    # this the parameters are gathered: each host needs memory for all of them, and the first host's first device for a
    # copy in float32 and one in the compute dtype, besides the training
    config.sample_every = 0  # steps; 0: none

    # A trace of some steps for the profiler, in profile/
    config.profile_first_step = 10
    config.profile_steps = 0  # 0: none

    return config
