"""The tables of README.md and docs/*.md, made from the committed results.

    python docs/tables.py            fill every block that begins with <!-- table: NAME --> and ends with <!-- end -->

A function here is a table; its name, with hyphens, is the NAME. A test holds that running this changes nothing.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.S)
TABLES: dict[str, Callable[[], str]] = {}


def table(function: Callable[[], str]) -> Callable[[], str]:
    TABLES[function.__name__.replace("_", "-")] = function
    return function


@cache
def results(path: str) -> Any:
    """A result file; `path` is below the repository's root."""
    return json.loads((ROOT / path).read_text())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """As text, without a minus sign before a rounded 0; nothing for None."""
    return "" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"


def interval(found: dict[str, float], digits: int = 2) -> str:
    return f"{number(found['value'], digits)} ({number(found['low'], digits)} to {number(found['high'], digits)})"


def negated(found: dict[str, float]) -> dict[str, float]:
    return {"value": -found["value"], "low": -found["high"], "high": -found["low"]}


# --- The demo model ---

EVALUATION = "benchmarks/results/evaluation.json"
SYSTEMS = {
    "truth": "the true band",
    "codec8": "the true band through the codec, 8 codebooks",
    "codec4": "the true band through the codec, 4 codebooks",
    "model": "**the demo model**",
    "guidance_5": "... with guidance scale 5",
    "no_guidance": "... without guidance",
    "no_history_off": "... without no-history guidance",
    "no_fine": "... without its fine stage",
    "wrong_vocal": "... asked with another clip's voice",
    "retrieval_oracle": "retrieval by the true tempo, beats and key",
    "retrieval": "retrieval by the voice alone",
    "random": "any training band",
    "click": "clicks on the beat",
    "silence": "silence",
}
MEASURES = {"beat_f": "beats", "lag_strength": "rhythm", "chroma_chords": "chords", "key_score": "key"}
DISTANCES = {"fad_stem": "FAD, band", "fad_mix": "FAD, mix"}


def measured(system: str, name: str) -> float:
    """A figure of one system of the evaluation."""
    found = results(EVALUATION)
    of = found["embeddings"]["mel"]["systems"] if name in DISTANCES else None
    return (of[system] if of else found["systems"][system]["measures"])[name]["value"]


def num_parameters(file: Path) -> int:
    """Of a safetensors file, by its header: a length in 8 bytes, then JSON of that length."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


@table
def demo() -> str:
    rows = []
    for name, stage in results("hafm_jax/demo/config.json")["stages"].items():
        config, facts = stage["config"], stage["training"]
        rows.append(
            [
                name,
                f"{num_parameters(ROOT / f'hafm_jax/demo/{name}.safetensors') / 1e6:.2f} M",
                f"{config['d_model']} x {config['num_layers']} x {config['num_heads']}",
                f"{config['window_cells'] / 25:g} s",
                number(facts["validation_loss"], 3),
            ]
        )
    header = ["stage", "parameters", "width x layers x heads", "window", "validation loss, nats a token"]
    return markdown(header, rows)


@table
def evaluation() -> str:
    rows = []
    for system, label in SYSTEMS.items():
        cells = [number(measured(system, name)) for name in MEASURES]
        cells += [number(measured(system, name), 1) for name in DISTANCES]
        rows.append([label, *cells])
    return markdown(["", *MEASURES.values(), *DISTANCES.values()], rows)


@table
def evaluation_parts() -> str:
    found = results(EVALUATION)
    distances = found["embeddings"]["mel"]["order"]
    rows = []
    for without, label in (
        ("no_guidance", "guidance"),
        ("no_history_off", "no-history guidance"),
        ("no_fine", "the fine stage"),
        ("wrong_vocal", "the clip's own voice, not another's"),
    ):
        pair = f"{without} - model"
        cells = [interval(negated(found["order"][pair][name]), 3) for name in list(MEASURES)[:3]]
        rows.append([label, *cells, *(interval(negated(distances[pair][name])) for name in DISTANCES)])
    return markdown(["", *list(MEASURES.values())[:3], *DISTANCES.values()], rows)


def drawn(found: dict) -> list[str]:
    """The figures of one system over validation songs and seeds."""
    values = [found["measures"][name]["value"] for name in ("chroma_chords", "beat_f", "lag_strength")]
    spread = f"{number(found['between_songs'], 1)}, {number(found['within_songs'], 1)}"
    return [*(number(value, 3) for value in values), number(statistics.fmean(found["fad_stem"])), spread]


DRAWN = ["chords", "beats", "rhythm", "FAD, band", "variance between songs, within"]


@table
def true_tokens() -> str:
    labels = {
        "the true band": "the band itself",
        "through the codec": "the codec's 8 codebooks",
        "through the codec, 4 codebooks": "its 4 coarse codebooks",
        "true coarse tokens, fine stage": "coarse tokens; the fine stage follows",
        "true coarse tokens, any fine ones": "coarse tokens; any fine tokens follow",
        "true semantic tokens, coarse stage": "semantic tokens; the coarse stage follows",
        "true semantic tokens, coarse and fine stage": "semantic tokens; coarse and fine stage follow",
        "semantic and coarse stage": "nothing; semantic and coarse stage follow",
        "all stages": "nothing; all stages follow",
    }
    found = results("benchmarks/results/true_tokens.json")["systems"]
    return markdown(["what is true", *DRAWN], ([label, *drawn(found[name])] for name, label in labels.items()))


@table
def voices() -> str:
    rows = []
    for label, found in results("benchmarks/results/voices.json")["voices"].items():
        cells = [number(found["measures"][name]["mean"]) for name in (*MEASURES, "coverage")]
        loop = found["measures"]["longest_loop_s"]
        rows.append([label, str(found["clips"]), *cells, f"{number(loop['mean'])}, {number(loop['high'])} s"])
    return markdown(["singer", "songs", *MEASURES.values(), "coverage", "longest loop of codes, mean and most"], rows)


@table
def vocal_use() -> str:
    rows = []
    for stage, found in results("benchmarks/results/vocal_use.json")["stages"].items():
        margin = f"{found['margin_nats']:.4f} ± {found['standard_error_nats']:.4f}"
        right, wrong = number(found["right_nats"], 3), number(found["wrong_nats"], 3)
        rows.append([stage, f"{found['windows']:,}", right, wrong, margin])
    return markdown(["stage", "windows", "loss with the right vocal", "with another song's", "difference"], rows)


@table
def codec() -> str:
    found = results("benchmarks/results/codec.json")
    labels = {f"{count} book{'s' * (count > 1)}": f"{count} codebook{'s' * (count > 1)}" for count in (1, 2, 4, 8)}
    rows = [
        [labels.get(name, name), number(of["spectral_distance_db_mean"])]
        for part in ("codec", "anchors")
        for name, of in found[part].items()
    ]
    return markdown(["the true band, replaced by", "multi-scale spectral distance, dB"], rows)


# --- The two rates ---

ABLATIONS = "benchmarks/results/ablations.json"


@table
def ablations() -> str:
    found = results(ABLATIONS)["variants"]
    rows = []
    for variant, label in (
        ("clock", "`clock`"),
        ("index", "`index`"),
        ("two_stages", "`clock`, no semantic stage"),
    ):
        of = found[variant]
        cells = [interval(of["measures"][name]) for name in ("beat_f", "lag_strength")]
        cells.append(interval(of["measures"]["lag_ms"], 0))
        cells += [interval(of["measures"][name]) for name in ("chroma_chords", "key_score")]
        cells.append(", ".join(number(value, 1) for value in of["distances"]["fad_stem"]))
        for stage in ("semantic", "coarse"):
            losses = [seed[stage] for seed in of["validation_losses"] if stage in seed]
            cells.append(number(statistics.fmean(losses)) if losses else "")
        rows.append([label, *cells])
    header = ["", "beats", "rhythm", "lag, ms", "chords", "key", "FAD, band, by seed", "loss, semantic", "coarse"]
    return markdown(header, rows)


# --- Speed ---

DECODE = "benchmarks/results/decode.json"
TRAIN = "benchmarks/results/train.json"


def decode_case(stage: str, batch: int, context: int) -> dict:
    (found,) = (
        case
        for case in results(DECODE)["cases"]
        if (case["stage"], case["batch"], case["guided"], case["context"]) == (stage, batch, True, context)
    )
    return found["subjects"]


def step_ms(subjects: dict, *names: str) -> float:
    """The median of a step, of the fastest of the named subjects."""
    return min(subjects[name]["ms_per_step"]["median"] for name in names)


MUSICGEN_BF16 = ("MusicGen bfloat16", "MusicGen bfloat16, compiled")


@table
def decode() -> str:
    rows = []
    for batch, stages in ((1, ("semantic", "coarse", "fine")), (8, ("coarse",))):
        for stage in stages:
            for context in (0, 2000, 6000):
                subjects = decode_case(stage, batch, context)
                ours = subjects["ours"]
                ms = step_ms(subjects, "ours")
                row = [stage, str(batch), f"{ours['context']:,}", number(ms, 1), number(ours["tokens_per_s"], 0)]
                row.append(number(ours["share_of_floor"]))
                if "ours, bfloat16" in subjects:
                    half = step_ms(subjects, "ours, bfloat16")
                    row += [number(step_ms(subjects, name) / ms, 1) for name in ("MusicGen float32",)]
                    row += [number(step_ms(subjects, "MusicGen float32, compiled") / ms, 1), number(half, 1)]
                    row.append(number(step_ms(subjects, *MUSICGEN_BF16) / half, 1))
                else:
                    row += [""] * 4
                rows.append(row)
    header = ["stage", "voices", "context", "ms a step", "tokens/s", "share of the floor"]
    header += ["MusicGen's time over ours", "MusicGen compiled", "ours in bfloat16, ms", "MusicGen in bfloat16 over it"]
    return markdown(header, rows)


@table
def length() -> str:
    rows = []
    for seconds, found in results("benchmarks/results/length.json")["lengths"].items():
        times = [f"{number(found['generate_s'], 1)} s", number(found["real_time_factor"])]
        rows.append([f"{int(seconds)} s", *times, f"{number(found['peak_gb'])} GB"])
    return markdown(["singing", "generated in", "real-time factor", "process, peak"], rows)


@table
def starts() -> str:
    rows = []
    for start, found in results("benchmarks/results/length.json")["medians"].items():
        compile_s = found["compiled_s"] - found["loaded_s"]
        cells = [found["loaded_s"], compile_s, found["first_tokens_s"], found["generate_s"], found["done_s"]]
        rows.append([f"{start} caches", *(number(cell, 1) for cell in cells)])
    return markdown(["seconds, of 10 s of singing", "load", "compile", "first tokens after", "generate", "in all"], rows)


STEPS = {  # of train.json -> what the table says of it; "as is" is the plain allocator
    "ours": "ours",
    "ours, remat none": "ours, `remat=none`",
    "ours, remat layer": "ours, `remat=layer`: layers are computed again, as torch's are",
    "ours, index": "ours, `position=index`, as torch's bias",
    "torch, bias, layers again": "torch, learned bias, layers computed again",
    "torch, no bias, layers again": "torch, no bias, layers computed again",
    "torch, no bias": "torch, no bias",
}


@table
def train() -> str:
    rows = []
    for stage in results(TRAIN)["stages"]:
        for allocator, suffix in (("plain", ", as is"), ("tuned", "")):
            found = {name: stage["subjects"].get(name + suffix) for name in STEPS}
            for name, of in found.items():
                if of:
                    ours, seconds = found["ours"]["seconds"]["median"], of["seconds"]["median"]
                    times = "" if name == "ours" else number(seconds / ours)
                    memory = f"{of['peak_bytes'] / 1e9:.1f} GB"
                    head = [f"{stage['stage']}, {stage['num_tokens']:,}", allocator, STEPS[name]]
                    rows.append([*head, number(seconds, 1), times, memory])
    return markdown(["stage, tokens", "allocator", "", "s a step", "over ours", "peak memory"], rows)


@table
def tokenizing() -> str:
    rates = results("benchmarks/results/tokenize.json")["measured"]["rates"]
    separation = results("benchmarks/results/separate.json")["audio_s_per_s"]
    fma_s = 100_000 * 30  # FMA-Large
    rows = [
        ["`separate_stems.py --separator demucs`", separation["ours"], 1],
        ["`fit_kmeans.py --hours 10`, HuBERT-large", rates["HuBERT-large to layer 9"], 60 * 3600 / fma_s],
        ["`extract_tokens.py`, HuBERT-large, EnCodec", rates["extractor, large"], 1],
        ["`extract_tokens.py`, HuBERT-base, EnCodec", rates["extractor, base"], 1],
    ]
    cells = (
        [label, number(rate["median"], 1), f"{share * fma_s / rate['median'] / 3600:.0f} h"]
        for label, rate, share in rows
    )
    return markdown(["", "seconds of audio a second", "FMA-Large (833 h) on two such cores"], cells)


# --- Scaling laws ---

FIT = "benchmarks/results/sweep/fit.json"


STAGES_SWEPT = ("semantic",)


def with_interval(found: dict, digits: int = 2) -> str:
    low, high = found["interval"]
    return interval({"value": found["value"], "low": low, "high": high}, digits)


@table
def laws() -> str:
    rows = []
    for stage in STAGES_SWEPT:
        found = results(FIT)["stages"][stage]
        law, best = found["losses"]["all"]["law"], found["losses"]["all"]["methods"]["law"]["best"][0]
        cells = [with_interval(law["numbers"][name]) for name in ("E", "alpha", "beta")]
        low, high = (value / 1e3 for value in best["parameters"]["interval"])
        size = f"{best['parameters']['value'] / 1e3:.0f} k ({low:.0f} k to {high:.0f} k)"
        rows.append([stage, str(found["runs"]), *cells, f"{100 * law['scatter']:.1f} %", size])
    return markdown(["stage", "runs", "E", "alpha", "beta", "runs scatter by", "best N at 3.9e12 FLOPs"], rows)


@table
def held_out() -> str:
    rows = []
    for stage in STAGES_SWEPT:
        for run in results(FIT)["stages"][stage]["losses"]["all"]["held_out"]:
            size, tokens = re.search(r"\(\w+, (\S+), (\S+) tokens", run["run"]).groups()
            label = f"{stage}, size {size}, {float(tokens) / 1e6:.2f} M tokens"
            rows.append([label, with_interval(run["predicted"], 3), number(run["measured"], 3)])
    return markdown(["held out", "predicted, nats a token", "measured"], rows)


# --- README: one row a question ---


@table
def answers() -> str:
    def demo_beside(name: str, others: dict[str, str], digits: int = 2) -> list[str]:
        beside = "; ".join(f"{label} {number(measured(system, name), digits)}" for system, label in others.items())
        return [number(measured("model", name), digits), beside]

    bands = {"codec4": "the true band", "retrieval": "retrieval by the voice", "wrong_vocal": "with another's voice"}
    sounds = {"codec4": "the true band", "retrieval": "retrieval by the voice"}
    voices = results("benchmarks/results/voices.json")["voices"]
    own, *strangers = (of["measures"]["chroma_chords"]["mean"] for of in voices.values())
    found = results(ABLATIONS)["variants"]
    clock, index = (found[name]["measures"]["chroma_chords"]["value"] for name in ("clock", "index"))
    coarse = decode_case("coarse", 1, 2000)
    half = step_ms(coarse, "ours, bfloat16")
    steps = next(stage["subjects"] for stage in results(TRAIN)["stages"] if stage["stage"] == "coarse")
    ours, torch = (steps[name]["seconds"]["median"] for name in ("ours", "torch, bias, layers again"))
    held = results(FIT)["stages"]["semantic"]["losses"]["all"]["held_out"][0]
    page = "docs/results.md"
    rows = [
        [f"[Beats]({page}#does-the-band-go-with-the-voice), F-measure", *demo_beside("beat_f", bands)],
        [f"[Chords]({page}#does-the-band-go-with-the-voice), correlation", *demo_beside("chroma_chords", bands)],
        [f"[Sound of the mix]({page}#does-the-band-go-with-the-voice), FAD", *demo_beside("fad_mix", sounds, 1)],
        [
            f"[Singers it never trained on]({page}#does-it-work-with-other-singers), chords",
            f"{number(min(strangers))} to {number(max(strangers))}",
            f"its own singers {number(own)}",
        ],
        [
            f"[Positions in time, `clock`]({page}#what-keeps-the-two-rates-together), chords",
            number(clock),
            f"the paper's `index` {number(index)}",
        ],
        [
            f"[A decoding step]({page}#how-fast-is-decoding), coarse stage at full size, bfloat16",
            f"{number(half, 1)} ms",
            f"MusicGen's decoder of that size {number(step_ms(coarse, *MUSICGEN_BF16) / half, 1)} times as long",
        ],
        [
            f"[A training step]({page}#how-fast-is-training), the same stage, float32",
            f"{number(ours, 1)} s",
            f"a PyTorch model with learned bias {number(torch / ours, 1)} times as long",
        ],
        [
            "[Loss of a larger run](docs/scaling.md#what-did-the-sweep-of-this-repository-find), nats a token",
            number(held["measured"], 3),
            f"predicted {with_interval(held['predicted'], 3)}",
        ],
    ]
    return markdown(["", "here", "beside it"], rows)


def filled(text: str) -> str:
    """`text` with every block made from the results. Raises KeyError where a block names no table."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}{block[3]}", text)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
