"""The steps of an evaluation. Each step keeps its output in the report folder and does not repeat it.

A clip that fails, whatever it raises, is recorded and left out, and the rest continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hafm_jax.accompany import Accompanist
from hafm_jax.common import work
from hafm_jax.common.errors import InputError
from hafm_jax.evaluation import distances
from hafm_jax.evaluation.baselines import Library
from hafm_jax.evaluation.clips import VOCAL, Clip, band_file, left_out, read_band, read_clip
from hafm_jax.evaluation.measures import Measures, compare_measures, measure_clip, summarize_measures
from hafm_jax.evaluation.protocol import Protocol
from hafm_jax.evaluation.systems import ORDER, Bands, about
from hafm_jax.metrics.adherence import mismatch
from hafm_jax.metrics.embeddings import Embedding
from hafm_jax.metrics.frechet import MIN_CLIPS


def evaluate(
    report: Path,
    songs: Path,
    protocol: Protocol,
    accompanist: Accompanist,
    embeddings: Sequence[Embedding],
    separated: Path | None = None,
    guidance_scales: Sequence[float] = (),
    only: Sequence[str] | None = None,
    workers: int = 1,
) -> tuple[dict[str, Any], dict[Clip, Measures]]:
    """All steps; `separated`, `guidance_scales` and `only` as `Bands` takes them.

    Returns the results as report.json holds them, and the measures of each clip. Raises InputError where the reference
    or the library has too few songs, and as `Bands`.
    """
    pipeline = Pipeline(report, songs, protocol, workers)
    references = [pipeline.embed_reference(embedding) for embedding in embeddings]
    library = pipeline.build_library()
    bands = Bands(report, songs, protocol, accompanist, library, separated, guidance_scales, only)
    pipeline.make_bands(bands)
    measures = pipeline.measure_clips(bands.systems)
    seed = protocol.rule.seed
    results = {
        "protocol": protocol.fingerprint(),
        "rule": asdict(protocol.rule),
        "clips": len(protocol.clips),
        "reference_clips": len(protocol.reference),
        "library_songs": len(library.entries),
        "sampling": {name: sampling._asdict() for name, sampling in accompanist.sampling.items()},
        "systems": {name: describe_system(name, measures, seed) for name in bands.systems},
        "order": compare_in_order(bands.systems, lambda worse, better: compare_measures(measures, worse, better, seed)),
        "embeddings": {
            embedding.label: pipeline.measure_distances(reference, bands.systems, embedding)
            for embedding, reference in zip(embeddings, references, strict=True)
        },
        "failures": pipeline.failures,
    }
    return results, measures


def describe_system(name: str, measures: Mapping[Clip, Measures], seed: int) -> dict[str, Any]:
    """What report.json holds of one system, distances apart."""
    return {
        "about": about(name),
        "clips": sum(name in of_clip for of_clip in measures.values()),
        "measures": summarize_measures(measures, name, seed),
        "model_minus_it": compare_measures(measures, "model", name, seed),
    }


def compare_in_order(systems: Sequence[str], compare: Callable[[str, str], Any]) -> dict[str, Any]:
    """ "WORSE - BETTER" -> compare(WORSE, BETTER) for the pairs of ORDER of which both systems are there."""
    return {
        f"{worse} - {better}": compare(worse, better)
        for better, worse in ORDER
        if better in systems and worse in systems
    }


@dataclass
class Pipeline:
    """`failures`: system, or the name of another step that needs a clip -> clip -> reason."""

    report: Path
    songs: Path
    protocol: Protocol
    workers: int
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def build_library(self) -> Library:
        """The protocol's songs for retrieval. Raises InputError where none of them can be used."""
        folder = self.songs / self.protocol.rule.reference_split
        library = Library.build(
            [folder / song for song in self.protocol.library], self.report / "library", self.workers
        )
        self._note("library", library.left_out)
        return library

    def make_bands(self, bands: Bands) -> None:
        """Every system's band for every clip, and the vocals."""
        todo = [(system, clip) for system in [VOCAL, *bands.systems] for clip in self.protocol.clips]
        with tqdm(todo, unit="clip") as bar:
            for system, clip in bar:
                bar.set_description(system)
                failed: dict[str, str] = {}
                with left_out(failed, clip.id):
                    bands.make(system, clip)
                if failed:
                    self._note(system, failed)
                    bar.write(f"left out {system}/{clip.id}: {failed[clip.id]}")

    def measure_clips(self, systems: Sequence[str]) -> dict[Clip, Measures]:
        function = partial(measure_clip, self.report, self.songs, self.protocol.rule.split, systems)
        clips, found = self.protocol.clips, {}
        with tqdm(total=len(clips), unit="clip", desc="measure") as bar:
            with closing(work.do_all(function, clips, self.workers)) as results:
                for clip, (measures, failed) in results:
                    found[clip] = measures
                    for system, reason in failed.items():
                        self._note(system, {clip.id: reason})
                    bar.update()
        return {clip: found[clip] for clip in clips}

    def embed_reference(self, embedding: Embedding) -> Protocol:
        """The protocol with those clips of its reference that could be embedded.

        Raises InputError where they are of fewer than MIN_CLIPS songs.
        """
        split, clips = self.protocol.rule.reference_split, self.protocol.reference
        partners = mismatch([clip.song for clip in clips], self.protocol.rule.seed)
        another = {clip: clips[i] for clip, i in zip(clips, partners, strict=True)}

        def sounds(clip: Clip) -> dict[str, np.ndarray]:
            vocal = read_clip(self.songs, split, clip, "vocals")
            band, other = (read_clip(self.songs, split, c, "instrumental") for c in (clip, another[clip]))
            mismatched = distances.sounds_of(vocal, other)["mix"]
            return distances.sounds_of(vocal, band) | {distances.MISMATCHED: mismatched}

        failed = distances.embed(self._embeddings(embedding, distances.REFERENCE), embedding, clips, sounds)
        self._note(distances.REFERENCE, failed)
        kept = tuple(clip for clip in clips if clip.id not in failed)
        if (found := len({clip.song for clip in kept})) < MIN_CLIPS:
            raise InputError(
                f"the reference is of {found} songs; expected {MIN_CLIPS} or more for a distance: add songs to "
                f"{split}, half of which serve for retrieval"
                + "".join(f" ({clip} fails: {reason})" for clip, reason in list(failed.items())[:1])
            )
        return replace(self.protocol, reference=kept)

    def measure_distances(self, protocol: Protocol, systems: Sequence[str], embedding: Embedding) -> dict[str, Any]:
        """What report.json holds of one embedding; `protocol` is the result of `embed_reference`."""
        enough = [system for system in systems if self._embed_system(system, embedding) >= MIN_CLIPS]
        folder = self._embeddings(embedding, distances.REFERENCE).parent
        function = partial(distances.measure_distances, folder, protocol.rule.seed)
        with closing(work.do_all(function, enough, self.workers)) as results:
            found = dict(tqdm(results, total=len(enough), unit="system", desc=f"distances in {embedding.label}"))
        return {
            "fingerprint": protocol.fingerprint(embedding.name, embedding.sha256),
            "weights_sha256": embedding.sha256,
            "reference_clips": len(protocol.reference),
            "systems": {system: found[system].figures for system in enough},
            "order": compare_in_order(
                enough, lambda worse, better: distances.compare_distances(found[worse], found[better])
            ),
        }

    def _embed_system(self, system: str, embedding: Embedding) -> int:
        """The number of songs that then have embeddings."""

        def has_band(clip: Clip) -> bool:
            return all(band_file(self.report, name, clip.id).exists() for name in (VOCAL, system))

        def sounds(clip: Clip) -> dict[str, np.ndarray]:
            return distances.sounds_of(*(read_band(self.report, name, clip.id) for name in (VOCAL, system)))

        clips = [clip for clip in self.protocol.clips if has_band(clip)]
        failed = distances.embed(self._embeddings(embedding, system), embedding, clips, sounds)
        self._note(system, failed)
        return len({clip.song for clip in clips if clip.id not in failed})

    def _embeddings(self, embedding: Embedding, name: str) -> Path:
        return self.report / "embeddings" / embedding.label / f"{name}.npz"

    def _note(self, name: str, failed: Mapping[str, str]) -> None:
        if failed:
            self.failures.setdefault(name, {}).update(failed)
