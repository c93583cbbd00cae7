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

EVALUATION = "experiments/results/evaluation.json"
VOICES = "experiments/results/voices.json"
RECORDINGS = "experiments/results/recordings.json"
SYSTEMS = {
    "truth": "the true band",
    "codec8": "the true band through the codec, 8 codebooks",
    "codec4": "the true band through the codec, 4 codebooks",
    "model": "**the demo model**",
    "guidance_5": "... with guidance scale 5",
    "no_guidance": "... without guidance",
    "no_history_off": "... without no-history guidance",
    "no_fine": "... without its fine stage",
    "wrong_vocal": "... given another clip's voice",
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
    digits = dict.fromkeys(MEASURES, 2) | dict.fromkeys(DISTANCES, 1)
    rows = [
        [label, *(number(measured(system, name), n) for name, n in digits.items())] for system, label in SYSTEMS.items()
    ]
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


@table
def voices() -> str:
    rows = []
    for label, found in results(VOICES)["voices"].items():
        cells = [number(found["measures"][name]["mean"]) for name in (*MEASURES, "coverage")]
        loop = found["measures"]["longest_loop_s"]
        rows.append([label, str(found["clips"]), *cells, f"{number(loop['mean'])}, {number(loop['high'])} s"])
    return markdown(["singer", "songs", *MEASURES.values(), "coverage", "longest loop of codes, mean and most"], rows)


@table
def recordings() -> str:
    rows = []
    for label, found in results(RECORDINGS)["recordings"].items():
        intro = interval(found["intro_beat_f"]) if "intro_beat_f" in found else ""
        levels = [number(found[name]["value"], 1) for name in ("hole", "burst")]
        rows.append([label, interval(found["beat_f"]), interval(found["chroma_chords"]), intro, *levels])
    header = ["the voice", MEASURES["beat_f"], MEASURES["chroma_chords"], "beats before it", "hole, dB", "burst, dB"]
    return markdown(header, rows)


@table
def codec() -> str:
    found = results("benchmarks/results/codec.json")
    rows = [
        [name.replace(" book", " codebook"), number(of["spectral_distance_db_mean"])]
        for part in ("codec", "anchors")
        for name, of in found[part].items()
    ]
    return markdown(["the true band, replaced by", "multi-scale spectral distance, dB"], rows)


# --- What the measures are worth ---

COHERENCE = "experiments/results/coherence.json"


@table
def fooled() -> str:
    bands = {
        "truth": "true band",
        "another song's band": "another song's",
        "click": "clicks on the beats",
        "tonic chord, held": "held tonic chord",
        "noise": "noise",
        "vocal": "the vocal itself",
    }
    found = results(COHERENCE)["measures"]
    rows = []
    for name in found["truth"]:
        figure, digits, label = ("sd", 0, "`lag_ms`, spread") if name == "lag_ms" else ("mean", 2, f"`{name}`")
        rows.append([label, *(number(found[band][name][figure], digits) for band in bands)])
    return markdown(["measure", *bands.values()], rows)


@table
def found_right() -> str:
    labels = {
        "beat_f": "beats, F-measure",
        "tempo_within_4_percent": "tempo within 4 %, share of clips",
        "tempo_within_4_percent_octaves_forgiven": "the same, half and double forgiven",
        "key_right": "key, share of clips",
    }
    found = results(COHERENCE)
    parts = ("heard_in_the_true_band", "heard_in_the_vocal")
    rows = ([label, *(number(found[part][name]["mean"]) for part in parts)] for name, label in labels.items())
    return markdown(["analysis of", "true bands", "vocals alone"], rows)


# --- The two rates ---

ABLATIONS = "experiments/results/ablations.json"


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
LENGTH = "benchmarks/results/length.json"
OVERFIT = "experiments/results/overfit.json"
NOT_MEASURED = "Not measured yet with the model of today.\n"  # in place of a table whose result is still to be made


def step_ms(subjects: dict, *names: str) -> float:
    """The median of a step, of the fastest of the named subjects."""
    return min(subjects[name]["ms_per_step"]["median"] for name in names)


MUSICGEN_BF16 = ("MusicGen bfloat16", "MusicGen bfloat16, compiled")


@table
def decode() -> str:
    rows = []
    for case in results(DECODE)["cases"]:
        subjects, ours = case["subjects"], case["subjects"]["ours"]
        ms, half = step_ms(subjects, "ours"), step_ms(subjects, "ours, bfloat16")
        rows.append(
            [
                f"{case['stage']}, {ours['context']:,}",
                number(ms, 1),
                number(ours["share_of_floor"]),
                number(step_ms(subjects, "MusicGen float32") / ms, 1),
                number(step_ms(subjects, "MusicGen float32, compiled") / ms, 1),
                number(half, 1),
                number(step_ms(subjects, *MUSICGEN_BF16) / half, 1),
            ]
        )
    header = ["stage, context", "ms a step", "share of the floor", "MusicGen over ours", "compiled"]
    return markdown([*header, "ours in bfloat16, ms", "MusicGen in bfloat16 over it"], rows)


@table
def length() -> str:
    if not (ROOT / LENGTH).exists():
        return NOT_MEASURED
    rows = []
    for seconds, found in results(LENGTH)["lengths"].items():
        times = [f"{number(found['generate_s'], 1)} s", number(found["real_time_factor"])]
        rows.append([f"{int(seconds)} s", *times, f"{number(found['peak_gb'])} GB"])
    return markdown(["singing", "generated in", "real-time factor", "process, peak"], rows)


@table
def overfit() -> str:
    found = results(OVERFIT)
    losses = [number(loss, 3) for loss in found["loss"]]
    return markdown(["step", *map(str, found["steps"])], [["loss, nats a token", *losses]])


@table
def starts() -> str:
    if not (ROOT / LENGTH).exists():
        return NOT_MEASURED
    rows = []
    for start, found in results(LENGTH)["medians"].items():
        compile_s = found["compiled_s"] - found["loaded_s"]
        cells = [found["loaded_s"], compile_s, found["first_tokens_s"], found["generate_s"], found["done_s"]]
        rows.append([f"{start} caches", *(number(cell, 1) for cell in cells)])
    header = ["seconds, of 10 s of singing", "load", "compile", "first tokens after", "generate", "in all"]
    return markdown(header, rows)


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
    fma_s = 100_000 * 30  # FMA-Large
    rows = [
        ["`fit_kmeans.py --hours 10`, HuBERT-large", rates["HuBERT-large to layer 9"], 60 * 3600 / fma_s],
        ["`extract_tokens.py`, HuBERT-large, EnCodec", rates["extractor, large"], 1],
        ["`extract_tokens.py`, HuBERT-base, EnCodec", rates["extractor, base"], 1],
    ]
    cells = (
        [label, number(rate["median"], 1), f"{share * fma_s / rate['median'] / 3600:.0f} h"]
        for label, rate, share in rows
    )
    return markdown(["", "seconds of audio a second", "FMA-Large (833 h) on two such cores"], cells)


@table
def sharding() -> str:
    found = results("benchmarks/results/sharding.json")["results"]
    rows = []
    for mesh in ([8, 1, 1], [1, 8, 1], [2, 2, 2]):
        of_mesh = [case for case in found if case["mesh"] == mesh]
        cells = []
        for part in ("parameters", "gradients", "activations"):
            pairs = [(case["sent_bytes"][part], case["needed_bytes"][part]) for case in of_mesh]
            cells.append(number(max(sent / need for sent, need in pairs), 3) if all(need for _, need in pairs) else "")
        largest = max(case["loss_difference"] for case in of_mesh)
        rows.append([" x ".join(map(str, mesh)), f"{largest:.1e}", *cells])
    header = ["data x fsdp x tensor", "losses differ by at most", "sent over needed: parameters", "gradients"]
    return markdown([*header, "activations"], rows)


# --- README: one row a question ---


@table
def answers() -> str:
    def demo_beside(name: str, others: dict[str, str], digits: int = 2) -> list[str]:
        beside = "; ".join(f"{label} {number(measured(system, name), digits)}" for system, label in others.items())
        return [number(measured("model", name), digits), beside]

    bands = {
        "codec8": "the true band through the codec",
        "retrieval": "retrieval by the voice",
        "wrong_vocal": "with another's voice",
    }
    sounds = {"codec8": "the true band through the codec", "retrieval": "retrieval by the voice"}
    voices = results(VOICES)["voices"]
    own, *strangers = (of["measures"]["chroma_chords"]["mean"] for of in voices.values())
    found = results(ABLATIONS)["variants"]
    clock, index = (found[name]["measures"]["chroma_chords"]["value"] for name in ("clock", "index"))
    (decoding,) = (case["subjects"] for case in results(DECODE)["cases"] if case["context"] == 2000)
    half = step_ms(decoding, "ours, bfloat16")
    (steps,) = (stage["subjects"] for stage in results(TRAIN)["stages"] if stage["stage"] == "fine")
    ours, torch = (steps[f"{name}, as is"] for name in ("ours", "torch, bias, layers again"))
    times = torch["seconds"]["median"] / ours["seconds"]["median"]
    difference = max(case["loss_difference"] for case in results("benchmarks/results/sharding.json")["results"])
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
            f"[A decoding step]({page}#how-fast-is-decoding), fine stage at full size",
            f"{number(half, 1)} ms",
            f"MusicGen's decoder of that size: {number(step_ms(decoding, *MUSICGEN_BF16) / half, 1)} times as long",
        ],
        [
            f"[A training step]({page}#how-fast-is-training), the same stage",
            f"{number(ours['seconds']['median'], 1)} s, {ours['peak_bytes'] / 1e9:.1f} GB",
            f"PyTorch with a learned bias: {number(times, 1)} times as long, {torch['peak_bytes'] / 1e9:.1f} GB",
        ],
        [
            f"[Eight simulated devices]({page}#do-several-devices-compute-the-same), difference in loss",
            f"{difference:.1e}",
            "one device",
        ],
    ]
    return markdown(["question", "here", "beside it"], rows)


def filled(text: str) -> str:
    """`text` with every block made from the results. Raises KeyError where a block names no table."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}{block[3]}", text)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
