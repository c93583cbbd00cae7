"""Put three trained stages, a semantic tokenizer and a codec into one model directory.

hafm export --workdir runs/semantic runs/coarse runs/fine --tokenizers TOKENIZERS --out MODEL
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hafm_jax.common.errors import InputError, needs_extra, run_command
from hafm_jax.common.files import read_json
from hafm_jax.common.options import local_path
from hafm_jax.common.outputs import check_apart, check_folder, check_room
from hafm_jax.common.shipped import local_or_shipped
from hafm_jax.streams import CELLS_PER_S, STAGES

if TYPE_CHECKING:
    from hafm_jax.model.pretrained import StageWeights

CARD_MARK = "library_name: hafm_jax"
LIMITS = "a model plays music of the kind that it was trained on, and no other."


def codec_facts(codec: dict[str, Any]) -> str:
    """How a codec was trained and how well it copies songs, from its config.json; "" for a codec not trained here."""
    facts = ""
    if made := codec.get("training"):
        facts += (
            f", {made['steps']} steps of {made['batch_size']} x {made['seconds']:g} s on {made['songs']} songs in "
            f"{made['minutes']:.0f} minutes"
        )
    if found := codec.get("evaluation"):
        copies = [
            f"{books} books copy at {found[f'{books}_books']['spectral_distance_db']:.2f} dB spectral distance"
            for books in (4, 8)
        ]
        facts += f"; on {found['songs']} validation songs {', '.join(copies)}"
    return facts


def runs_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The facts of a stage's runs, first to last: those that it started from, and its own."""
    return (runs_of(facts["started_from"]) if "started_from" in facts else []) + [facts]


def _figure(facts: dict[str, Any], name: str, form: str) -> str:
    """A figure of a run; of one whose metrics.jsonl is gone or damaged it may be missing."""
    return f"{facts[name]:{form}}" if name in facts else "not logged"


def model_card(stages: dict[str, StageWeights], tokenizers: Path, trained_on: str, limits: str) -> str:
    """README.md of the model directory: its data, the time that it took to train, and its validation loss."""
    from hafm_jax.model.config import num_parameters

    rows = []
    for name, stage in stages.items():
        c, f = stage.config, stage.facts
        steps = " + ".join(f"{run['step']} x {run['config']['batch_size']}" for run in runs_of(f))
        minutes = " + ".join(f"{_figure(run, 'minutes', 'g')} on {run['devices'][0]}" for run in runs_of(f))
        codebooks = " ".join(f"{x:.2f}" for x in f.get("validation_loss_per_codebook", []))
        rows.append(
            f"| {name} | {num_parameters(c) / 1e6:.2f} M | {c.d_model} x {c.num_layers} x {c.num_heads} "
            f"| {c.position} | {c.window_cells / CELLS_PER_S:g} s | {steps} | {minutes} "
            f"| {_figure(f, 'validation_loss', '.3f')} ({codebooks}) |"
        )
    semantic = json.loads((tokenizers / "semantic" / "config.json").read_bytes())
    codec = json.loads((tokenizers / "codec" / "config.json").read_bytes())
    facts = next(iter(stages.values())).facts
    runs = [run for stage in stages.values() for run in runs_of(stage.facts)]
    seeds = " and ".join(map(str, sorted({run["config"]["seed"] for run in runs})))
    versions = ", ".join(
        f"{name} {' and '.join(dict.fromkeys(run['versions'][name] for run in runs))}" for name in facts["versions"]
    )
    token_sets = " and ".join(dict.fromkeys(run["data"]["fingerprint"][:12] for run in runs))
    table = "\n".join(rows)
    trained_on = trained_on and f": {trained_on}"
    return f"""---
license: apache-2.0
{CARD_MARK}
tags: [music, accompaniment, singing]
---

# A HAFM model: instrumental accompaniment for a singing voice

    hafm sample --vocal in.wav --model THIS_DIRECTORY

Validation loss is in nats a token, in brackets by codebook.

| stage | parameters | width x layers x heads | position | window | steps x windows | minutes | validation loss |
|---|---|---|---|---|---|---|---|
{table}

- Trained on {facts["data"]["records"]} songs{trained_on} (token set {token_sets}), with
  {versions}, seed {seeds}.
- Semantic tokens: `{semantic["features"]}`, {semantic["clusters"]} clusters.
- Codec: `{codec["codec"]}`{codec_facts(codec)}.
- `semantic/config.json` and `codec/config.json` record how these were made, `config.json` how the stages were.
- Limits: {limits}
"""


def check_out(out: Path, workdirs: list[Path], tokenizers: Path) -> None:
    """Raises InputError where the model directory `out` cannot be written, or where writing it would replace a part of
    the runs or tokenizers, or files that are not of a model."""
    config, card, parts = out / "config.json", out / "README.md", ("semantic", "codec")
    files = [config, card, *(out / f"{stage}.safetensors" for stage in STAGES)]
    for workdir in workdirs:
        check_apart([*files, *(out / part for part in parts)], {"--workdir": workdir})
    for part in parts:  # the tokenizers themselves may be in `out` already
        check_apart(files, {"--tokenizers": tokenizers / part})
    check_folder(out)
    if config.exists():
        foreign = [] if "stages" in read_json(config, "that of a model: choose another --out") else [config.name]
    else:  # nothing is there, or what an interrupted export left
        foreign = [part for part in parts if not _same_config(out / part, tokenizers / part)]
        if card.exists() and CARD_MARK not in card.read_text(encoding="utf-8", errors="replace"):
            foreign.append(card.name)
    if foreign:
        raise InputError(
            f"{out} has {', '.join(foreign)} that no export wrote; expected a new folder, or a model's: "
            "choose another --out"
        )


def _same_config(written: Path, given: Path) -> bool:
    config = written / "config.json"
    return not config.exists() or config.read_bytes() == (given / "config.json").read_bytes()


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hafm export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--workdir", type=local_path, nargs="+", required=True, help="training runs, one for each stage")
    p.add_argument("--tokenizers", type=local_or_shipped, required=True, help="folder with semantic/ and codec/")
    p.add_argument("--out", type=local_path, required=True, help="the model directory to write")
    p.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="of the stored weights (default: float32, exact; float16 halves the files)",
    )
    p.add_argument("--trained-on", default="", help='for the model card, the songs: "40 h of choir music, CC BY 4.0"')
    p.add_argument("--limits", default=LIMITS, help="for the model card, what not to expect (default: %(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    with needs_extra("train", "exporting"):
        from hafm_jax.dataset import fingerprint
        from hafm_jax.model.config import num_parameters
        from hafm_jax.model.pretrained import check_tokenizers, save_model
        from hafm_jax.training.workdir import load_run

    check_tokenizers(arguments.tokenizers)
    check_out(arguments.out, arguments.workdir, arguments.tokenizers)
    runs = {run.config.stage_name: run for run in map(load_run, arguments.workdir)}
    if runs.keys() != STAGES.keys() or len(arguments.workdir) != len(STAGES):
        raise InputError(f"the work directories hold {', '.join(runs)}; expected one run each of {', '.join(STAGES)}")
    stages = {name: runs[name] for name in STAGES}
    made = {f"the {name} run": run.facts["data"].get("tokenizers", {}) for name, run in stages.items()}
    fingerprint.check_made_by(arguments.tokenizers, made)
    card = model_card(stages, arguments.tokenizers, arguments.trained_on, arguments.limits)
    num_bytes = 4 if arguments.dtype == "float32" else 2
    check_room(arguments.out, num_bytes * sum(num_parameters(stage.config) for stage in stages.values()))
    save_model(arguments.out, stages, arguments.tokenizers, card, arguments.dtype)
    size = sum(f.stat().st_size for f in arguments.out.rglob("*") if f.is_file())
    print(f"{arguments.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
