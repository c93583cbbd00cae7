"""The report: index.html for people, report.json and two CSV files for programs.

REPORT/index.html    needs no other file
REPORT/report.json   all figures, and everything that they depend on
REPORT/table.csv     a row per system and figure: value and interval
REPORT/clips.csv     a row per clip and system: every measure
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hafm_jax.audio.mixing import mix
from hafm_jax.common.files import write_bytes, write_json
from hafm_jax.common.pages import Html, Table, player, write_page
from hafm_jax.evaluation import plots
from hafm_jax.evaluation.clips import CLIP_S, VOCAL, Clip, band_file, read_band
from hafm_jax.evaluation.measures import Measures
from hafm_jax.evaluation.systems import GUIDED
from hafm_jax.metrics.frechet import MIN_CLIPS
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

PLAYED_CLIPS = 3  # ours: with all systems they make a page of about 10 MB
# Figure -> its heading, and whether more or less is better.
DISTANCES = {
    "fad_stem": ("FAD, band", "less"),
    "fad_mix": ("FAD, mix", "less"),
    "fad_infinity_stem": ("FAD∞, band", "less"),
    "fad_infinity_mix": ("FAD∞, mix", "less"),
    "kernel_stem": ("kernel distance, band", "less"),
    "kernel_mix": ("kernel distance, mix", "less"),
    "adherence": ("APA", "more"),
    "adherence_distance": ("APA: distance", "less"),
}
MEASURES = {
    "beat_f": ("beats, F", "more"),
    "onset_f": ("onsets, F", "more"),
    "tempo_error_percent": ("tempo error, %", "less"),
    "lag_ms": ("lag, ms", "less"),
    "lag_strength": ("rhythm, correlation", "more"),
    "chroma_melody": ("chroma, melody", "more"),
    "chroma_chords": ("chroma, chords", "more"),
    "key_score": ("key", "more"),
    "coverage": ("coverage", "more"),
}
# The figures of the table of expected orders.
ORDERED_BY = {name: MEASURES[name] for name in ("beat_f", "onset_f", "lag_strength", "chroma_chords")}
ORDERED_BY_DISTANCE = {name: DISTANCES[name] for name in ("fad_stem", "fad_mix")}
LAGS_OF = ("codec8", "model", "wrong_vocal", "random")  # the histogram's systems
SWEEP = ("beat_f", "chroma_chords", "chroma_melody", "lag_strength")  # the guidance plot's measures, beside FAD


def write(report: Path, document: Mapping[str, Any], measures: Mapping[Clip, Measures]) -> None:
    """Write all files of the report. `document` is the content of report.json, `measures` are those of each clip."""
    write_json(report / "report.json", _plain(document))
    write_bytes(report / "table.csv", _csv(_table_rows(document)))
    write_bytes(report / "clips.csv", _csv(_clip_rows(document["protocol"], measures)))
    write_page(report / "index.html", "evaluation/report.html.j2", **_page(report, document, measures))


def _plain(value: Any) -> Any:
    """As JSON has it: NaN is null, a path is text."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ------------------------------------------------------------------------------------------------------------ files


def _csv(rows: Iterator[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _table_rows(document: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    yield "system", "embedding", "figure", "value", "low", "high", "fingerprint"
    for system, found in document["systems"].items():
        for name, f in found["measures"].items():
            yield system, "", name, f["value"], f["low"], f["high"], document["protocol"]
    for embedding, of_embedding in document["embeddings"].items():
        for system, found in of_embedding["systems"].items():
            for name, f in found.items():
                yield system, embedding, name, f["value"], f.get("low"), f.get("high"), of_embedding["fingerprint"]


def _clip_rows(protocol: str, measures: Mapping[Clip, Measures]) -> Iterator[Sequence[Any]]:
    yield "clip", "system", *MEASURES, "fingerprint"
    for clip, of_clip in measures.items():
        for system, found in of_clip.items():
            yield clip.id, system, *(found[name] for name in MEASURES), protocol


# ------------------------------------------------------------------------------------------------------------- page


def _page(report: Path, document: Mapping[str, Any], measures: Mapping[Clip, Measures]) -> dict[str, Any]:
    """What report.html.j2 shows."""
    systems = document["systems"]
    others = {name: s["model_minus_it"] for name, s in systems.items() if name != "model"}
    made_by = {name: document[name] for name in ("options", "rule", "model_sha256", "machine")}
    failures = [[s, clip, reason] for s, failed in document["failures"].items() for clip, reason in failed.items()]
    return {
        "title": "Evaluation",
        "document": document,
        "clip_s": CLIP_S,
        "min_songs": MIN_CLIPS,
        "about": (["system", "", "clips"], [[name, s["about"], str(s["clips"])] for name, s in systems.items()]),
        "embeddings": [_embedding(label, found) for label, found in document["embeddings"].items()],
        "measures": _figure_table({name: s["measures"] for name, s in systems.items()}, MEASURES),
        "model_minus_others": _figure_table(others, MEASURES) if "model" in systems and others else None,
        "lag_plot": plots.lag_plot({system: _lags_ms(system, measures) for system in LAGS_OF}),
        "guidance_plot": _guidance_plot(document),
        "order": _order_table(document),
        "clips": [
            {"id": clip.id, "systems": list(_sounds(report, clip, systems))} for clip in list(measures)[:PLAYED_CLIPS]
        ],
        "failures": (["system", "clip", "reason"], failures),
        "made_by": json.dumps(_plain(made_by), indent=1),
    }


def _embedding(label: str, found: Mapping[str, Any]) -> dict[str, Any]:
    plotted = {name: figures for name, figures in found["systems"].items() if not name.startswith(GUIDED)}
    headings = {name: DISTANCES[name][0] for name in ("fad_stem", "fad_mix")}
    return {
        "label": label,
        "fingerprint": found["fingerprint"],
        "figures": _figure_table(found["systems"], DISTANCES),
        "plot": plots.distance_plot(plotted, headings) if plotted else None,
    }


def _figure_table(found: Mapping[str, Mapping[str, Any]], headings: Mapping[str, tuple[str, str]]) -> Table:
    """system -> figure -> value, low, high."""
    present = [name for name in headings if any(name in figures for figures in found.values())]
    header = ["system", *(f"{headings[name][0]} {'↑' if headings[name][1] == 'more' else '↓'}" for name in present)]
    return header, [[system, *(_cell(f.get(name)) for name in present)] for system, f in found.items()]


def _order_table(document: Mapping[str, Any]) -> Table:
    headings, found = dict(ORDERED_BY), {pair: dict(figures) for pair, figures in document["order"].items()}
    for label, of_embedding in document["embeddings"].items():
        for name, (heading, better) in ORDERED_BY_DISTANCE.items():
            headings[f"{label} {name}"] = f"{heading}, {label}", better
            for pair, figures in of_embedding["order"].items():
                found[pair] |= {f"{label} {name}": figures.get(name)}
    rows = [[p, *(_verdict(f.get(n), headings[n][1]) for n in headings)] for p, f in found.items()]
    return ["", *(heading for heading, _ in headings.values())], rows


def _verdict(difference: Mapping[str, float] | None, better: str) -> str:
    """Of a system minus one that should be better."""
    if difference is None or not math.isfinite(difference["low"]):
        return _cell(difference)
    below, above = difference["high"] < 0, difference["low"] > 0
    mark = "✓ " if (below if better == "more" else above) else "✗ " if below or above else ""
    return mark + _cell(difference)


def _cell(figure: Mapping[str, float] | None) -> str:
    if figure is None or not math.isfinite(figure["value"]):
        return "-"
    text = _number(figure["value"])
    known = math.isfinite(figure.get("low", math.nan))
    return f"{text}\n{_number(figure['low'])} to {_number(figure['high'])}" if known else text


def _number(value: float) -> str:
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no -0.000


def _lags_ms(system: str, measures: Mapping[Clip, Measures]) -> list[float]:
    lags_ms = (of_clip[system]["lag_ms"] for of_clip in measures.values() if system in of_clip)
    return [lag_ms for lag_ms in lags_ms if math.isfinite(lag_ms)]


def _guidance_plot(document: Mapping[str, Any]) -> Html | None:
    """None where there are fewer than three guidance scales. The model's own is that of its semantic stage."""
    systems = document["systems"]
    scales = {"no_guidance": 1.0, "model": document["sampling"]["semantic"]["guidance_scale"]}
    scales |= {name: float(name.removeprefix(GUIDED)) for name in systems if name.startswith(GUIDED)}
    sweep = dict(sorted((scale, name) for name, scale in scales.items() if name in systems))
    if len(sweep) < 3:
        return None
    panels = {
        MEASURES[name][0]: [(scale, systems[s]["measures"].get(name)) for scale, s in sweep.items()] for name in SWEEP
    }
    for label, of_embedding in document["embeddings"].items():
        distances = of_embedding["systems"]
        panels[f"FAD, band, {label}"] = [(scale, distances.get(s, {}).get("fad_stem")) for scale, s in sweep.items()]
    return plots.guidance_plot(panels)


def _sounds(report: Path, clip: Clip, systems: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of the vocal, and of each system's band mixed with it: name, spectrogram (of the band alone), player."""
    if not band_file(report, VOCAL, clip.id).exists():
        return
    vocal = read_band(report, VOCAL, clip.id)
    for name in (VOCAL, *systems):
        if band_file(report, name, clip.id).exists():
            band = read_band(report, name, clip.id)
            played = vocal if name == VOCAL else mix(vocal, band, CODEC_SAMPLE_RATE_HZ).audio
            yield {
                "name": name,
                "spectrogram": plots.spectrogram(band),
                "player": player(played, CODEC_SAMPLE_RATE_HZ),
            }
