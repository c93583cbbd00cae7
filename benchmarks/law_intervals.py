"""How often does a 95 % interval of the fitted law hold the truth? Over sweeps whose losses follow a law that is known.

    python benchmarks/law_intervals.py --out benchmarks/results/law_intervals.json

Each sweep has sizes x lengths runs, spread evenly in logs over two decades of N and one and a half of D; log losses
scatter normally. Five minutes on one CPU core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from machine import machine
from tqdm import tqdm

from hafm_jax.common.errors import run_command
from hafm_jax.scaling.budgets import TokenCost
from hafm_jax.scaling.draws import NUM_DRAWS, PERCENTILES, bootstrap_counts
from hafm_jax.scaling.loss_law import Law, fit_law

TRUE = Law(1.69, np.log(80.0), 0.34, np.log(80.0), 0.28)  # published exponents, terms as small sweeps have them
COST = TokenCost(np.array([6.0, 0.0, 0.0, 0.0]))


def quantities(law: Law, flops: float) -> dict[str, np.ndarray]:
    """What intervals are asked for; the last two at ten times the largest budget."""
    n, d = COST.best(law, flops)
    return {"alpha": law.alpha, "beta": law.beta, "E": law.e, "best N at 10 C": n, "best loss at 10 C": law.loss(n, d)}


def measure(sizes: int, lengths: int, scatter: float, sweeps: int) -> dict:
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(3e4, 3e6, sizes), np.geomspace(1e6, 3e7, lengths)))
    flops = 10 * 6 * (n * d).max()
    true = quantities(TRUE, flops)
    held = {name: 0 for name in true}
    widths: dict[str, list[float]] = {name: [] for name in true}
    for seed in tqdm(range(sweeps), desc=f"{sizes} x {lengths} runs, scatter {scatter}", leave=False):
        loss = TRUE.loss(n, d) * np.exp(scatter * np.random.default_rng([seed, 1]).normal(size=len(n)))
        _, draws = fit_law(n, d, loss, bootstrap_counts(len(n), seed))
        for name, values in quantities(draws, flops).items():
            low, high = np.percentile(values, PERCENTILES)
            held[name] += int(low <= true[name] <= high)
            widths[name].append(high - low)
    return {
        "sizes": sizes,
        "lengths": lengths,
        "scatter": scatter,
        "sweeps": sweeps,
        "held": {name: count / sweeps for name, count in held.items()},
        "median_width_over_value": {name: float(np.median(widths[name]) / true[name]) for name in true},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=100, help="of each kind (default 100)")
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    arguments = parser.parse_args()
    document: dict = {"machine": machine("scipy"), "draws": NUM_DRAWS}
    document["cases"] = cases = [
        measure(sizes, lengths, scatter, arguments.sweeps)
        for sizes, lengths in ((5, 4), (6, 6))
        for scatter in (0.002, 0.01)
    ]
    for case in cases:
        held = ", ".join(f"{name} {share:.2f}" for name, share in case["held"].items())
        print(f"{case['sizes']} x {case['lengths']} runs, scatter {case['scatter']}: {held}")
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
