"""Make a blind listening test from a report's clips: a folder with a page for listeners, and the answer key beside it.

The protocol is that of SingSong (arXiv 2301.12662), whose measure HAFM's listening test uses too: a listener hears two
mixes of 10 s with the same vocal and different bands, and chooses the one whose band goes better with the vocal. Ours
are the answer "no preference", the level, the balanced design, and the checks.

    KIT/page/index.html     for listeners, who get the folder page/ and nothing else
    KIT/page/audio/001a.wav one side of a pair: mono, 24 kHz, 16 bit; all files of a clip have the same size
    KIT/key.json            the system behind each side: not for listeners

Axes: S samples.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hafm_jax.audio import files, mixing
from hafm_jax.audio.loudness import loudness_lufs
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import sealed, write_json
from hafm_jax.common.pages import write_page
from hafm_jax.evaluation.clips import VOCAL, read_band
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ

FORMAT_VERSION = 1  # of key.json and of the answers
QUESTION = "In which of the two do the instruments go better with the singing?"  # SingSong's question in plainer words
DEFAULT_CLIPS = 10  # ours: with four systems 63 pairs, half an hour for a listener
LEVEL_LUFS = -23.0  # integrated loudness of every mix, EBU R 128; a pair with high peaks is softer on both sides
TRUTH = "truth"
VOCAL_ALONE = "vocal_alone"  # the other side of a check: no band at all
NUM_CHECKS = 3
DECISION_S = 8.0  # ours, for the announced duration: from the end of the second mix to the next pair
MAKE_REPORT = "make a report with hafm evaluate"


class Pair(NamedTuple):
    """One question: `clip` with the bands of systems `a` and `b`. The right answer to a check is known: the truth."""

    clip: str
    a: str
    b: str
    check: bool = False


def design(clips: Sequence[str], systems: Sequence[str], against: str | None, rng: np.random.Generator) -> list[Pair]:
    """The pairs in the order of the page: every comparison of two systems (with `against`, only those with it) on every
    clip.

    Balanced: in each comparison a system is side A as often as side B, give or take one. Each round of the order has
    every clip once and the comparisons in turn, so that listeners who stop early leave no comparison without answers;
    neighbours have different clips. If the truth is among `systems`, NUM_CHECKS checks are spread over the pairs.
    """
    comparisons = [pair for pair in combinations(systems, 2) if against in (None, *pair)]
    comparisons = [comparisons[i] for i in rng.permutation(len(comparisons))]
    swapped = [_balanced(len(clips), rng) for _ in comparisons]

    pairs: list[Pair] = []
    for turn in range(len(comparisons)):
        order = rng.permutation(len(clips))
        if pairs and pairs[-1].clip == clips[order[0]]:
            order = np.roll(order, 1)
        for i in order:
            which = (turn + i) % len(comparisons)
            pairs.append(_pair(clips[i], *comparisons[which], swapped[which][i]))

    if TRUTH in systems:
        bounds = np.linspace(0, len(pairs), NUM_CHECKS + 1).astype(int)
        sides = _balanced(NUM_CHECKS, rng)
        for k in reversed(range(NUM_CHECKS)):  # from the end: an insertion does not move earlier pairs
            at = int(rng.integers(bounds[k], bounds[k + 1] + 1))
            beside = {pair.clip for pair in pairs[max(at - 1, 0) : at + 1]}
            candidates = [clip for clip in clips if clip not in beside] or clips
            clip = candidates[rng.integers(len(candidates))]
            pairs.insert(at, _pair(clip, TRUTH, VOCAL_ALONE, sides[k], check=True))
    return pairs


def _balanced(count: int, rng: np.random.Generator) -> np.ndarray:
    """bool [count] in random order, half of it True; for an odd count either value is one more at random."""
    return (rng.permutation(count) + rng.integers(2)) % 2 == 1


def _pair(clip: str, first: str, second: str, swap: bool, check: bool = False) -> Pair:
    return Pair(clip, *((second, first) if swap else (first, second)), check)


def common_clips(report: Path, systems: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The sorted ids of the clips that all systems have; and for each other clip, the systems without it.

    Raises InputError where the report has no vocals, or no folder of a system.
    """
    stems = {
        folder.name: {path.stem for path in folder.glob("*.flac")}
        for folder in sorted((report / "clips").glob("*"))
        if folder.is_dir()
    }
    vocals = stems.pop(VOCAL, set())
    if not vocals:
        raise InputError(f"{report} holds no clips/vocal/ID.flac; expected a report folder: {MAKE_REPORT}")
    for system in systems:
        if system not in stems:
            raise InputError(
                f"{report} has no clips of a system {system!r}; expected some of {', '.join(stems) or 'none'}: "
                f"change --systems, or {MAKE_REPORT}"
            )
    lacking = {clip: [s for s in systems if clip not in stems[s]] for clip in sorted(vocals)}
    return [clip for clip, by in lacking.items() if not by], {clip: by for clip, by in lacking.items() if by}


def mix_of(report: Path, system: str, clip: str) -> np.ndarray:
    """float32 [S]: the clip's vocal with the system's band, as `mixing.mix` balances them.

    Raises InputError where their lengths differ, or where the mix is silent.
    """
    vocal = read_band(report, VOCAL, clip)
    band = np.zeros_like(vocal) if system == VOCAL_ALONE else read_band(report, system, clip)
    if band.size != vocal.size:
        raise InputError(
            f"clip {clip} has {band.size} samples of {system}; expected {vocal.size}, as for its vocal: {MAKE_REPORT}"
        )
    mixed = mixing.mix(vocal, band, CODEC_SAMPLE_RATE_HZ).audio[0]
    if not np.isfinite(loudness_lufs(mixed, CODEC_SAMPLE_RATE_HZ)):
        raise InputError(f"clip {clip} is silent with the band of {system}; expected an audible vocal: remove the clip")
    return mixed


def level_pair(mixes: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[list[np.ndarray], float]:
    """Two mixes [S] at one integrated loudness, and that loudness in LUFS.

    It is LEVEL_LUFS, or lower where the peaks of either would exceed mixing.PEAK_LIMIT_DBFS. Triangular dither of one
    16-bit step is added. It suits the rounding to 16 bits, and a mix that is used in several pairs has different bytes
    in each: equal bytes would reveal that it is the same system.
    """
    lufs = [loudness_lufs(mix, CODEC_SAMPLE_RATE_HZ) for mix in mixes]
    peaks_dbfs = [20 * np.log10(np.abs(mix).max()) for mix in mixes]
    room = [loud + mixing.PEAK_LIMIT_DBFS - peak for loud, peak in zip(lufs, peaks_dbfs, strict=True)]
    level_lufs = float(min(LEVEL_LUFS, *room))
    levelled = [mix * 10 ** ((level_lufs - loud) / 20) for mix, loud in zip(mixes, lufs, strict=True)]
    return [mix + rng.triangular(-1, 0, 1, mix.size) / 2**15 for mix in levelled], level_lufs


def make_kit(
    report: Path,
    systems: Sequence[str],
    out: Path,
    num_clips: int | None = None,
    against: str | None = None,
    seed: int = 0,
    progress: Callable[[Sequence], Sequence] = lambda pairs: pairs,
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Write the kit; returns its key, and for each clip that was left out, the systems without it.

    The same report, systems, clips and seed make the same files, bit for bit. `num_clips` are drawn by the seed
    (default: 10, or all where there are fewer). The folder appears only when it is complete.
    Raises InputError where `out` exists already, where systems or clips are missing, and as `mix_of`.
    """
    if len(set(systems)) != len(systems) or len(systems) < 2:
        raise InputError(f"the systems are {', '.join(systems)}; expected two or more, each once: change --systems")
    if against is not None and against not in systems:
        raise InputError(
            f"--against is {against}; expected one of the systems {', '.join(systems)}: add it to --systems"
        )
    if out.exists():
        raise InputError(
            f"{out} exists already; expected a new folder: choose another --out, and keep this one to read its answers"
        )
    clips, lacking = common_clips(report, systems)
    if len(clips) < (num_clips or 1):
        named = "; ".join(f"{clip} is missing in {', '.join(by)}" for clip, by in lacking.items())
        raise InputError(
            f"{len(clips)} clips of {report} have all systems; expected {num_clips or 'some'}: give fewer --clips or "
            f"--systems{f' ({named})' if named else ''}"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(clips))[: num_clips or DEFAULT_CLIPS]
    pairs = design([clips[i] for i in sorted(chosen)], systems, against, rng)

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        key = _write(partial, report, pairs, {"seed": seed, "systems": list(systems)}, rng, progress)
        os.replace(partial, out)
    except OSError as error:
        raise InputError(
            f"cannot write {out} ({error.strerror}); expected a place with space and permission: choose another --out"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return key, lacking


def _write(
    folder: Path,
    report: Path,
    pairs: Sequence[Pair],
    facts: Mapping[str, Any],
    rng: np.random.Generator,
    progress: Callable[[Sequence], Sequence],
) -> dict[str, Any]:
    audio = folder / "page" / "audio"
    audio.mkdir(parents=True)
    digest = hashlib.sha256()
    rows = []
    longest_s = 0.0
    for number, pair in enumerate(progress(pairs), 1):
        mixes, level_lufs = level_pair([mix_of(report, system, pair.clip) for system in (pair.a, pair.b)], rng)
        for side, mix in zip("ab", mixes, strict=True):
            path = audio / f"{number:03d}{side}.wav"
            files.write_audio(path, mix, CODEC_SAMPLE_RATE_HZ)
            digest.update(path.read_bytes())
        rows.append({"pair": number, **pair._asdict(), "level_lufs": round(level_lufs, 2)})
        longest_s = max(longest_s, mixes[0].size / CODEC_SAMPLE_RATE_HZ)
    kit = digest.hexdigest()[:12]  # in the page, the answers and the key, to match them

    facts_for_page = {
        "format_version": FORMAT_VERSION,
        "kit": kit,
        "pairs": len(pairs),
        "seconds": round(longest_s),
        "minutes": round(len(pairs) * (2 * longest_s + DECISION_S) / 60),
    }
    write_page(folder / "page" / "index.html", "listening/page.html.j2", question=QUESTION, kit=facts_for_page)
    key = {"format_version": FORMAT_VERSION, "kit": kit, "question": QUESTION, **facts, "pairs": rows}
    write_json(folder / "key.json", sealed(key))
    return key
