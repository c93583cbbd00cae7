"""Speed of source separation at full size, random weights: seconds of audio a second.

    python benchmarks/separate_songs.py [--quick] [--out benchmarks/results/separate.json]

HTDemucs as its authors publish it (htdemucs), on a mixture of 30 s: `ours` through hafm_jax.audio.separators, `demucs`
through the package's own apply_model, without its random shifts, with equal segments. Both take turns. MDX-Net is not
here: its graph comes with its weights alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs
from machine import machine
from report import markdown, spread
from safetensors.torch import save_file
from tqdm import tqdm

from hafm_jax.audio.separators import OVERLAP, load_separator

SOURCES = ["drums", "bass", "other", "vocals"]
SEGMENT = {"_type": "fraction", "numerator": 39, "denominator": 5}
MIXTURE_S = 30
ROUNDS = 3


def write_htdemucs(path: Path) -> HTDemucs:
    """A model of the published sizes, written as the package publishes it."""
    torch.manual_seed(0)
    model = HTDemucs(SOURCES, bottom_channels=512, segment=Fraction(39, 5)).eval()
    args, kwargs = model._init_args_kwargs
    facts = {
        "klass": "demucs.htdemucs.HTDemucs",
        "args": json.dumps(args),
        "kwargs": json.dumps({**kwargs, "segment": SEGMENT}),
    }
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path, facts)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/separate.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "0123abcd.safetensors")
        model = write_htdemucs(path)
        separator = load_separator("demucs", str(path), device="cpu")
    mixture = np.random.default_rng(0).normal(0, 0.1, (2, MIXTURE_S * separator.sample_rate_hz)).astype(np.float32)

    def peer() -> None:
        with torch.inference_mode():
            apply_model(model, torch.from_numpy(mixture)[None], shifts=0, split=True, overlap=OVERLAP, device="cpu")

    subjects = {"ours": lambda: separator.separate(mixture), "demucs": peer}
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in tqdm(range(1 if arguments.quick else ROUNDS), unit="round"):
        for name, separate in subjects.items():
            started_s = time.perf_counter()
            separate()
            found[name].append(MIXTURE_S / (time.perf_counter() - started_s))
    rates = {name: spread(values) for name, values in found.items()}
    document = {"machine": machine("torch", "demucs"), "mixture_s": MIXTURE_S, "audio_s_per_s": rates}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    rows = [["HTDemucs", "seconds of audio a second", "low-high"]]
    rows += [[name, f"{r['median']:.2f}", f"{r['low']:.2f}-{r['high']:.2f}"] for name, r in rates.items()]
    print(markdown(rows))


if __name__ == "__main__":
    main()
