"""How much the vocal tells the model: loss with the right vocal and with another song's, on held-out songs.

python benchmarks/vocal_use.py --model MODEL --data TOKENS [--split test] [--out benchmarks/results/vocal_use.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from machine import machine

from hafm_jax.common.errors import run_command
from hafm_jax.dataset.records import TokenRecords
from hafm_jax.metrics.vocal_use import vocal_use
from hafm_jax.model.pretrained import DEMO, load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(DEMO), help="model directory (default: the demo model)")
    parser.add_argument("--data", type=Path, required=True, help="token set, made with the model's own tokenizers")
    parser.add_argument("--split", default="test", help="of the token set (default: test)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vocal_use.json"))
    arguments = parser.parse_args()

    source = TokenRecords(arguments.data, arguments.split)
    records = [source[i] for i in range(len(source))]
    results = {}
    for name, stage in load_model(arguments.model).stages.items():
        if not any(s.name == "vocal_semantic" for s in stage.config.streams.conditions):
            continue
        use = vocal_use(stage.config, stage.params, records)
        results[name] = {
            "windows": len(use.right),
            "right_nats": float(use.right.mean()),
            "wrong_nats": float(use.wrong.mean()),
            "margin_nats": use.margin,
            "standard_error_nats": use.standard_error,
        }
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in results[name].items()))
    arguments.out.write_text(
        json.dumps({"machine": machine(), "songs": len(records), "stages": results}, indent=2) + "\n"
    )


if __name__ == "__main__":
    run_command(main)
