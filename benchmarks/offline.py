"""Speed of source separation at full size, random weights: seconds of audio a second.

    python benchmarks/separate_songs.py [--quick] [--out benchmarks/results/separate.json]

On a mixture of 30 s, all in turns. HTDemucs as its authors publish it (htdemucs): `HTDemucs` through
hafm_jax.corpus.separators, `demucs` through the package's own apply_model, without its random shifts, with equal
segments. `MDX-Net` is a network of the size of KUIELab-MDX-Net's for vocals (7.4 M parameters, an ONNX of 29.7 MB),
through hafm_jax.corpus.separators and ONNX Runtime; what its batch norms do in training is of no matter here.
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
from torch import nn
from tqdm import tqdm

from hafm_jax.corpus.separators import OVERLAP, load_separator

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


# KUIELab's configuration of ConvTDFNet for vocals: 11 blocks, 3 convolutions in each, 32 channels more at each halving.
BINS, FRAMES, N_FFT, CHANNELS, HALVINGS, CONVOLUTIONS, BOTTLENECK = 2048, 256, 6144, 32, 5, 3, 8


def with_norm(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


class Block(nn.Module):
    """Convolutions over time and frequency, then two dense layers along the frequencies of each frame."""

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            *(with_norm(nn.Conv2d(channels, channels, 3, padding=1), channels) for _ in range(CONVOLUTIONS))
        )
        self.mix = nn.Sequential(
            with_norm(nn.Linear(bins, bins // BOTTLENECK, bias=False), channels),
            with_norm(nn.Linear(bins // BOTTLENECK, bins, bias=False), channels),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.convolve(values)
        return values + self.mix(values)


class MdxNet(nn.Module):
    """A U-Net over [B, 4, F, T]: each level halves both axes, and multiplies what comes back by what went down."""

    def __init__(self) -> None:
        super().__init__()
        levels = [(CHANNELS * (n + 1), BINS >> n) for n in range(HALVINGS + 1)]
        steps = [(wide, wide + CHANNELS) for wide, _ in levels[:-1]]
        self.first = with_norm(nn.Conv2d(4, CHANNELS, 1), CHANNELS)
        self.down = nn.ModuleList(Block(*level) for level in levels[:-1])
        self.halve = nn.ModuleList(with_norm(nn.Conv2d(few, many, 2, 2), many) for few, many in steps)
        self.middle = Block(*levels[-1])
        self.twice = nn.ModuleList(with_norm(nn.ConvTranspose2d(many, few, 2, 2), few) for few, many in steps[::-1])
        self.up = nn.ModuleList(Block(*level) for level in levels[-2::-1])
        self.last = nn.Conv2d(CHANNELS, 4, 1)

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        values = self.first(spectrum).transpose(2, 3)
        kept = []
        for block, halve in zip(self.down, self.halve, strict=True):
            kept.append(block(values))
            values = halve(kept[-1])
        values = self.middle(values)
        for block, twice in zip(self.up, self.twice, strict=True):
            values = block(twice(values) * kept.pop())
        return self.last(values.transpose(2, 3))


def write_mdx(path: Path) -> None:
    torch.manual_seed(0)
    spectrum = torch.zeros(1, 4, BINS, FRAMES)
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(MdxNet().eval(), (spectrum,), path, dynamo=False, **names)
    path.with_suffix(".json").write_text(json.dumps({"n_fft": N_FFT}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 8 s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/separate.json"))
    arguments = parser.parse_args()
    mixture_s, rounds = (8, 1) if arguments.quick else (MIXTURE_S, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"demucs": Path(folder, "0123abcd.safetensors"), "mdx": Path(folder, "vocals.onnx")}
        model = write_htdemucs(paths["demucs"])
        write_mdx(paths["mdx"])
        demucs, mdx = (load_separator(kind, str(path), device="cpu") for kind, path in paths.items())
    mixture = np.random.default_rng(0).normal(0, 0.1, (2, mixture_s * demucs.sample_rate_hz)).astype(np.float32)

    def peer() -> None:
        with torch.inference_mode():
            apply_model(model, torch.from_numpy(mixture)[None], shifts=0, split=True, overlap=OVERLAP, device="cpu")

    subjects = {
        "HTDemucs": lambda: demucs.separate(mixture),
        "demucs": peer,
        "MDX-Net": lambda: mdx.separate(mixture),
    }
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in tqdm(range(rounds), unit="round"):
        for name, separate in subjects.items():
            started_s = time.perf_counter()
            separate()
            found[name].append(mixture_s / (time.perf_counter() - started_s))
    rates = {name: spread(values) for name, values in found.items()}
    document = {"machine": machine("torch", "demucs", "onnxruntime"), "mixture_s": mixture_s, "audio_s_per_s": rates}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    rows = [["", "seconds of audio a second", "low-high"]]
    rows += [[name, f"{r['median']:.2f}", f"{r['low']:.2f}-{r['high']:.2f}"] for name, r in rates.items()]
    print(markdown(rows))


if __name__ == "__main__":
    main()
