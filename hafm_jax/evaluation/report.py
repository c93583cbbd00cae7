"""The report: index.html for people, report.json and two CSV files for programs.

REPORT/index.html    needs no other file
REPORT/report.json   all figures and what they are of
REPORT/table.csv     a row a system and figure: value and interval
REPORT/clips.csv     a row a clip and system: every measure
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.audio.mixing import mix
from hafm_jax.audio.stft import log_mel_db
from hafm_jax.common.files import write_bytes
from hafm_jax.common.pages import new_figure, picture, player, svg, table, write_page
from hafm_jax.evaluation.clips import CLIP_S, VOCAL, Clip, band_file, read_band
from hafm_jax.evaluation.measurement import Measures
from hafm_jax.evaluation.systems import GUIDED
from hafm_jax.metrics.frechet import MIN_CLIPS
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

HEARD_CLIPS = 3  # ours: with every system they make a page of some 10 MB
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
ABOUT_DISTANCES = (
    "Of equally many clips, Fréchet distances are too high by about the same; FAD∞ estimates what would be left. It is "
    "given where there are more songs than dimensions, and has no interval. "
    "APA is worth nothing where its distance, in units of that between true and mismatched pairs, is many times 1."
)
ABOUT_ORDER = (
    "Each system less one that ought to be better, on the same clips: ✓ where the interval says that it is, ✗ where it "
    "says the contrary. The band's FAD knows nothing of the vocal: any real band is good, and what the model makes for "
    "another vocal is as good as the rest."
)
# What the anchors are put in order by, with more or less the better.
ORDERED_BY = {name: MEASURES[name] for name in ("beat_f", "onset_f", "lag_strength", "chroma_chords")}
ORDERED_BY_DISTANCE = {name: DISTANCES[name] for name in ("fad_stem", "fad_mix")}
LAGS_OF = ("codec8", "model", "wrong_vocal", "random")  # the histogram's systems
SWEEP = ("beat_f", "chroma_chords", "chroma_melody", "lag_strength")  # what the guidance plot shows, and FAD
STYLE = (
    "body{max-width:80rem}td,th{padding:.2rem .4rem;font-size:.8rem}.about td:nth-child(2){text-align:left}"
    ".figures{overflow-x:auto}.figures td{white-space:pre}figure{margin:0}figcaption{font-size:.8rem}"
    ".clip{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}audio{width:14rem;height:2rem}"
)


def write(report: Path, document: Mapping[str, Any], measures: Mapping[Clip, Measures]) -> None:
    """Write all files of the report. `document` is what report.json will hold, `measures` are of each clip."""
    write_bytes(report / "report.json", (json.dumps(_plain(document), indent=1) + "\n").encode())
    write_bytes(report / "table.csv", _csv(_table_rows(document)))
    write_bytes(report / "clips.csv", _csv(_clip_rows(document["protocol"], measures)))
    write_page(report / "index.html", "Evaluation", list(_parts(report, document, measures)), STYLE)


def _plain(value: Any) -> Any:
    """NaN, which JSON has not, as null; paths as text."""
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


def _parts(report: Path, document: Mapping[str, Any], measures: Mapping[Clip, Measures]) -> Iterator[str]:
    systems = document["systems"]
    yield f"<p>{_intro(document)}</p>"
    about = table(["system", "", "clips"], [[name, s["about"], str(s["clips"])] for name, s in systems.items()])
    yield f"<div class=about>{about}</div>"
    for name, of_embedding in document["embeddings"].items():
        yield f"<h2>Is it good music? Distances in {name}</h2>"
        yield f"<p>Fingerprint <code>{of_embedding['fingerprint']}</code>. {ABOUT_DISTANCES}</p>"
        if of_embedding["systems"]:
            yield _figure_table(of_embedding["systems"], DISTANCES)
            yield _distance_plot(of_embedding["systems"])
        else:
            yield f"<p>No system has bands for {MIN_CLIPS} songs, the least for a distance.</p>"
    yield "<h2>Does it go with the vocal?</h2>"
    yield _figure_table({name: s["measures"] for name, s in systems.items()}, MEASURES)
    yield (
        "<p>Lag is the mean of its absolute value; where it is noise, about 125 ms. Each measure alone can be fooled, "
        "as the click track and silence show.</p>"
    )
    if "model" in systems and len(systems) > 1:
        yield "<h3>The model less the others, clip by clip</h3>"
        yield _figure_table({n: s["model_minus_it"] for n, s in systems.items() if n != "model"}, MEASURES)
    yield "<h3>How late the band plays</h3>"
    yield _lag_plot(measures)
    if sweep := _sweep(document):
        yield "<h3>Guidance</h3>"
        yield _sweep_plot(document, sweep)
    yield f"<h2>Do they stand in the order that sense demands?</h2><p>{ABOUT_ORDER}</p>{_order_table(document)}"
    yield "<h2>To listen to</h2>"
    for clip in list(measures)[:HEARD_CLIPS]:
        yield f"<h3>{html.escape(clip.id)}</h3><div class=clip>{''.join(_heard(report, clip, systems))}</div>"
    if document["failures"]:
        rows = [[s, c, reason] for s, of_system in document["failures"].items() for c, reason in of_system.items()]
        yield f"<h2>Left out</h2>{table(['system', 'clip', 'reason'], rows)}"
    made_by = {name: document[name] for name in ("options", "rule", "model_sha256", "versions", "machine")}
    yield f"<h2>Made by</h2><pre>{html.escape(json.dumps(_plain(made_by), indent=1))}</pre>"


def _intro(document: Mapping[str, Any]) -> str:
    machine, split = document["machine"], html.escape(document["rule"]["reference_split"])
    return (
        f"{document['clips']} clips of {CLIP_S} s; reference: {document['reference_clips']} clips of {split}; "
        f"for retrieval: {document['library_songs']} of its other songs; model: {html.escape(document['model'])}; "
        f"protocol <code>{document['protocol']}</code>. Figures with different fingerprints cannot be compared. Below "
        f"each figure its 95 % interval, songs drawn anew. {'The last part took' if document['went_on'] else 'Took'} "
        f"{document['seconds'] / 60:.1f} min on {machine['cores']} cores of {html.escape(str(machine['cpu']))}."
    )


def _order_table(document: Mapping[str, Any]) -> str:
    headings, found = dict(ORDERED_BY), {pair: dict(figures) for pair, figures in document["order"].items()}
    for label, of_embedding in document["embeddings"].items():
        for name, (heading, better) in ORDERED_BY_DISTANCE.items():
            headings[f"{label} {name}"] = f"{heading}, {label}", better
            for pair, figures in of_embedding["order"].items():
                found[pair] |= {f"{label} {name}": figures.get(name)}
    rows = [[p, *(_verdict(f.get(n), headings[n][1]) for n in headings)] for p, f in found.items()]
    return f"<div class=figures>{table(['', *(heading for heading, _ in headings.values())], rows)}</div>"


def _verdict(difference: Mapping[str, float] | None, better: str) -> str:
    """Of a system less a better one."""
    if difference is None or not math.isfinite(difference["low"]):
        return _cell(difference)
    below, above = difference["high"] < 0, difference["low"] > 0
    mark = "✓ " if (below if better == "more" else above) else "✗ " if below or above else ""
    return mark + _cell(difference)


def _figure_table(found: Mapping[str, Mapping[str, Any]], headings: Mapping[str, tuple[str, str]]) -> str:
    present = [name for name in headings if any(name in figures for figures in found.values())]
    header = ["system", *(f"{headings[name][0]} {'↑' if headings[name][1] == 'more' else '↓'}" for name in present)]
    rows = [[system, *(_cell(f.get(name)) for name in present)] for system, f in found.items()]
    return f"<div class=figures>{table(header, rows)}</div>"


def _cell(figure: Mapping[str, float] | None) -> str:
    if figure is None or not math.isfinite(figure["value"]):
        return "-"
    text = _number(figure["value"])
    known = math.isfinite(figure.get("low", math.nan))
    return f"{text}\n{_number(figure['low'])} to {_number(figure['high'])}" if known else text


def _number(value: float) -> str:
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # no -0.000


def _distance_plot(found: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name in found if not name.startswith(GUIDED)][::-1]
    figure, every = new_figure(2, width_in=5, height_in=0.3 * len(names) + 1)
    for axes, form in zip(every, ("fad_stem", "fad_mix"), strict=True):
        values = np.array([[found[n][form][k] for k in ("value", "low", "high")] for n in names])
        axes.hlines(range(len(names)), values[:, 1], values[:, 2], color="gray")
        axes.plot(values[:, 0], range(len(names)), "o")
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel=DISTANCES[form][0], xscale="symlog")
        axes.set_xlim(0, 1.5 * values.max())  # in a scale of logarithms that is room for the dot
    figure.tight_layout()
    return svg(figure)


def _lag_plot(measures: Mapping[Clip, Measures]) -> str:
    figure, every = new_figure(len(LAGS_OF), width_in=3, height_in=2.2)
    for axes, system in zip(every, LAGS_OF, strict=True):
        lags = [m[system]["lag_ms"] for m in measures.values() if system in m and math.isfinite(m[system]["lag_ms"])]
        axes.hist(lags, bins=np.linspace(-250, 250, 51))
        axes.set(title=system, xlabel="ms")
    figure.tight_layout()
    return svg(figure)


def _sweep(document: Mapping[str, Any]) -> dict[float, str]:
    """Guidance scale -> the system that has it, the model's own where its semantic stage has it; {} where there is
    nothing to compare."""
    systems = document["systems"]
    scales = {"no_guidance": 1.0, "model": document["sampling"]["semantic"]["guidance_scale"]}
    scales |= {name: float(name.removeprefix(GUIDED)) for name in systems if name.startswith(GUIDED)}
    sweep = {scale: name for name, scale in scales.items() if name in systems}
    return dict(sorted(sweep.items())) if len(sweep) > 2 else {}


def _sweep_plot(document: Mapping[str, Any], sweep: Mapping[float, str]) -> str:
    panels = [
        (MEASURES[name][0], {s: document["systems"][s]["measures"].get(name) for s in sweep.values()}) for name in SWEEP
    ]
    panels += [
        (f"FAD, band, {name}", {s: of_embedding["systems"].get(s, {}).get("fad_stem") for s in sweep.values()})
        for name, of_embedding in document["embeddings"].items()
    ]
    figure, every = new_figure(len(panels), width_in=2.6, height_in=2.4)
    for axes, (title, found) in zip(every, panels, strict=True):
        points = [(w, found[s]) for w, s in sweep.items() if found[s] and math.isfinite(found[s]["value"])]
        scales = [w for w, _ in points]
        values = np.array([[f["value"], f["low"], f["high"]] for _, f in points]).reshape(-1, 3)
        axes.vlines(scales, values[:, 1], values[:, 2], color="gray")
        axes.plot(scales, values[:, 0], "o-")
        axes.set(title=title, xlabel="guidance scale", xticks=scales)
    figure.tight_layout()
    return svg(figure)


def _heard(report: Path, clip: Clip, systems: Mapping[str, Any]) -> Iterator[str]:
    if not band_file(report, VOCAL, clip.id).exists():
        return
    vocal = read_band(report, VOCAL, clip.id)
    for name in (VOCAL, *systems):
        if not band_file(report, name, clip.id).exists():
            continue
        band = read_band(report, name, clip.id)
        heard = vocal if name == VOCAL else mix(vocal, band, CODEC_SAMPLE_RATE_HZ).audio
        yield (
            f"<figure>{_spectrogram(band)}<figcaption>{html.escape(name)}</figcaption>"
            f"{player(heard, CODEC_SAMPLE_RATE_HZ)}</figure>"
        )


def _spectrogram(audio: np.ndarray) -> str:
    figure, (axes,) = new_figure(width_in=2.6, height_in=1.4)
    level_db = np.asarray(log_mel_db(audio[None], 1024, 64, CODEC_SAMPLE_RATE_HZ)[0])  # [F, M]
    axes.imshow(level_db.T, origin="lower", aspect="auto", vmin=-80, vmax=0, interpolation="nearest")
    axes.axis("off")
    return picture(figure)
