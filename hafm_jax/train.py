"""Train one stage: python -m hafm_jax.train --config configs/base.py --config.stage=coarse --data TOKENS --workdir DIR

Reads token sets (tokenize/extract_tokens.py): --data DIR, or several times --data DIR=WEIGHT for a mixture. Writes to
the work directory config.json, metrics.jsonl (a line a logged step), tensorboard/ and checkpoints/, and, where the
config asks for them, sounds/ and profile/. Run again with the same directory it goes on from the last checkpoint, bit
for bit, also on other devices. Any field of the config can be set: --config.steps=1000 --config.batch_size=8
--config.mesh.fsdp=4 ...

On several hosts, run it alike on each: TPU pods, GKE and SLURM steps are recognised, others are named by --coordinator,
--num_processes and --process_id. On SIGTERM it saves and exits with 75, on Ctrl-C with 130: run it again. launch/ has
scripts.

With --verify it reads all of the data, says what is damaged, and trains nothing.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from hafm_jax.common.cache import use_compilation_cache
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.dataset.verify import verify_tokens
from hafm_jax.training import hosts
from hafm_jax.training.loop import Preempted, token_sets, train

CONFIG = config_flags.DEFINE_config_file("config", "configs/base.py", "A file of configs/; its fields are flags too.")
DATA = flags.DEFINE_multi_string("data", None, "Token set, or TOKENS=WEIGHT, several times for a mixture.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and metrics go; all hosts see the same folder.")
VERIFY = flags.DEFINE_bool("verify", False, "Only read all of --data and say what is damaged.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where no launcher tells.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: which of them this is, from 0.")


def _told_to_go(*_: object) -> None:
    """SIGTERM before training listens to it (hosts.Preemption), or after: there is nothing to save."""
    print("preempted: no step was under way; run the same command again", file=sys.stderr)
    sys.exit(hosts.RESTART_EXIT_CODE)


def main() -> None:
    if "--help" in sys.argv:
        print(f"{__doc__}{flags.FLAGS.main_module_help()}")
        return
    try:
        _, *stray = flags.FLAGS(sys.argv)
        if not VERIFY.value:
            CONFIG.value.to_dict()  # a file that could not be loaded says so only when it is looked into
    except (AttributeError, KeyError) as error:  # of the config: a field, a stage
        name = str(error).strip("\"'")
        raise InputError(f"--config: nothing is named {name!r}; expected a field or a stage: see configs/") from error
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise InputError(f"{' '.join(str(error).split())}; see --help") from error
    if stray:
        raise InputError(f"{stray[0]!r} belongs to no flag; expected --NAME=VALUE: see --help")
    for flag in (DATA,) if VERIFY.value else (DATA, WORKDIR):
        if not flag.value:
            raise InputError(f"--{flag.name} is missing; see --help")
    sets = token_sets(DATA.value)
    if VERIFY.value:
        for directory, _ in sets:
            for summary in verify_tokens(directory):
                print(f"{directory} {summary.split}: {summary.num_examples} songs are whole")
        return
    signal.signal(signal.SIGTERM, _told_to_go)
    use_compilation_cache()  # a restart finds its programs
    hosts.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    try:
        train(CONFIG.value, sets, Path(WORKDIR.value))
    except Preempted as saved:
        print(f"preempted: {saved}", file=sys.stderr)
        sys.exit(hosts.RESTART_EXIT_CODE)


if __name__ == "__main__":
    run_command(main)
