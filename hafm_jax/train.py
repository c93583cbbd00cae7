"""Train one stage: hafm train --config configs/base.py --config.stage=coarse --data TOKENS --workdir DIR

Reads token sets (tokenize/extract_tokens.py): --data DIR, or --data DIR=WEIGHT several times for a mixture. Writes to
the work directory: config.json, metrics.jsonl (a line for each logged step), tensorboard/, checkpoints/ and, where the
config asks for them, sounds/ and profile/. Started again with the same directory it resumes from the last checkpoint,
bit for bit on the same devices, and on others but for rounding. Any field of the config can be set: --config.steps=1000
--config.batch_size=8 --config.mesh.fsdp=4 ...

On several hosts, run the same command on each: TPU pods, GKE and SLURM steps are recognised; others need --coordinator,
--num-processes and --process-id. On SIGTERM it saves and exits with 75, on Ctrl-C with 130: run it again. launch/ has
scripts.

With --verify it reads all of the data, reports damage, and trains nothing.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hafm_jax.common.errors import InputError, needs_extra, run_command
from hafm_jax.common.options import local, local_path
from hafm_jax.common.outputs import check_apart, check_folder
from hafm_jax.common.shipped import find_shipped, let_configs_be_imported

if TYPE_CHECKING:
    from ml_collections import ConfigDict

DEFAULT_CONFIG = "configs/base.py"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


def parser() -> Parser:
    p = Parser(
        prog="hafm train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        help="a file, yours or of the shipped configs/; its fields are options too (default: %(default)s)",
    )
    p.add_argument(
        "--data",
        type=local,
        action="append",
        metavar="TOKENS",
        help="token set, or TOKENS=WEIGHT, several times for a mixture",
    )
    p.add_argument("--workdir", type=local_path, help="where checkpoints and metrics go; all hosts see the same folder")
    p.add_argument("--verify", action="store_true", help="only read all of --data and report damage")
    p.add_argument("--coordinator", help="HOST:PORT of process 0, where no launcher provides it")
    p.add_argument("--num-processes", "--num_processes", type=int, help="with --coordinator: the number of processes")
    p.add_argument("--process-id", "--process_id", type=int, help="with --coordinator: this process's number, from 0")
    return p


def read_config(path: str, overrides: list[str]) -> ConfigDict:
    """The configuration of a file of configs/ ("FILE.py" or "FILE.py:ARGUMENT") with its `--config.FIELD=VALUE`.

    Raises InputError where there is no such file or field, or where a value has another type.
    """
    from absl import flags
    from ml_collections import config_flags

    from hafm_jax.training.settings import FIELDS

    let_configs_be_imported()
    file, colon, argument = path.partition(":")
    command = ["train", f"--config={find_shipped(Path(file))}{colon}{argument}", *overrides]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    try:
        _, *stray = values(command)
        config = holder.value
        config.to_dict()  # a file that could not be loaded raises only when it is read
    except (AttributeError, KeyError) as error:  # of the config: a field, a stage
        *_, name = re.findall(r"(\w+)\\*'", str(error)) or [str(error)]  # quoted, by some exceptions twice
        if name == "get_config":
            raise _not_for_training(path, name) from error
        raise InputError(f"--config: nothing is named {name!r}; expected a field or a stage: see configs/") from error
    except (ImportError, NameError, SyntaxError) as error:
        raise InputError(f"--config {path} is not a file of Python that runs here ({error}); see configs/") from error
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise InputError(f"{' '.join(str(error).split())}; see --help") from error
    if lacking := sorted({*FIELDS} - {*config}):
        raise _not_for_training(path, lacking[0])
    if stray:
        raise InputError(f"{stray[0]!r} belongs to no option; expected --NAME=VALUE: see --help")
    if isinstance(config.tokenizers, str) and config.tokenizers:
        config.tokenizers = str(find_shipped(Path(local(config.tokenizers))))
    return config


def _not_for_training(path: str, lacking: str) -> InputError:
    return InputError(
        f"--config {path} has no {lacking}, so it is not a training configuration; expected one like {DEFAULT_CONFIG}"
    )


def check_workdir(workdir: Path, config: ConfigDict) -> None:
    """Raises InputError where runs cannot be written in `workdir`, or where its config.json is another's: of the model
    or run to start from, of a tokenizer."""
    start_from, tokenizers = (Path(local(folder)) for folder in (config.start_from, config.tokenizers))
    written = workdir / "config.json"
    if config.start_from:
        check_apart([written], {"--config.start_from": start_from / "config.json"}, "--workdir")
    if config.tokenizers:
        for part in ("semantic", "codec"):
            check_apart([written], {"--config.tokenizers": tokenizers / part}, "--workdir")
    check_folder(workdir)


def _exit_without_saving(*_: object) -> None:
    """SIGTERM before training catches it (hosts.Preemption), or after: there is nothing to save."""
    from hafm_jax.training import hosts

    print(hosts.NOT_BEGUN, file=sys.stderr)
    sys.exit(hosts.RESTART_EXIT_CODE)


def main(argv: Sequence[str] | None = None) -> None:
    arguments, overrides = parser().parse_known_args(argv)
    with needs_extra("train", "training"):
        from hafm_jax.common.cache import use_compilation_cache
        from hafm_jax.dataset.verify import verify_tokens
        from hafm_jax.training import hosts
        from hafm_jax.training.loop import Preempted, train
        from hafm_jax.training.settings import token_sets

    config = None if arguments.verify else read_config(arguments.config, overrides)
    for name in ("data",) if arguments.verify else ("data", "workdir"):
        if not getattr(arguments, name):
            raise InputError(f"--{name} is missing; see --help")
    if config is not None:
        check_workdir(arguments.workdir, config)
    sets = token_sets(arguments.data)
    if arguments.verify:
        for directory, _ in sets:
            for summary in verify_tokens(directory):
                print(f"{directory} {summary.split}: {summary.num_examples} songs are whole")
        return
    signal.signal(signal.SIGTERM, _exit_without_saving)
    use_compilation_cache()  # a restart finds its programs
    hosts.join(arguments.coordinator, arguments.num_processes, arguments.process_id)
    try:
        train(config, sets, arguments.workdir)
    except Preempted as saved:
        print(f"preempted: {saved}", file=sys.stderr)
        sys.exit(hosts.RESTART_EXIT_CODE)


if __name__ == "__main__":
    run_command(main)
