"""The work of an evaluation, step by step. What a step makes is kept in the report folder and not made again; a clip
that fails, whatever it raises, is left out and written down, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hafm_jax.common import work
from hafm_jax.common.errors import InputError
from hafm_jax.evaluation import measurement
from hafm_jax.evaluation.clips import VOCAL, Clip, band_file, left_out, read_band, read_clip
from hafm_jax.evaluation.protocol import Protocol
from hafm_jax.evaluation.systems import ORDER, Bands
from hafm_jax.metrics.adherence import mismatch
from hafm_jax.metrics.embeddings import Embedding
from hafm_jax.metrics.frechet import MIN_CLIPS


@dataclass
class Run:
    """`failures`: system, or what else a clip was needed for -> clip -> reason."""

    report: Path
    songs: Path
    protocol: Protocol
    workers: int
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

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

    def measure_clips(self, systems: Sequence[str]) -> dict[Clip, measurement.Measures]:
        function = partial(measurement.measure_clip, self.report, self.songs, self.protocol.rule.split, systems)
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

        Raises InputError where they are of too few songs to tell a distance.
        """
        split, clips = self.protocol.rule.reference_split, self.protocol.reference
        partners = mismatch([clip.song for clip in clips], self.protocol.rule.seed)
        another = {clip: clips[i] for clip, i in zip(clips, partners, strict=True)}

        def sounds(clip: Clip) -> dict[str, np.ndarray]:
            vocal = read_clip(self.songs, split, clip, "vocals")
            band, other = (read_clip(self.songs, split, c, "instrumental") for c in (clip, another[clip]))
            return measurement.sounds_of(vocal, band) | {
                measurement.MISMATCHED: measurement.sounds_of(vocal, other)["mix"]
            }

        failed = measurement.embed(self._embeddings(embedding, measurement.REFERENCE), embedding, clips, sounds)
        self._note(measurement.REFERENCE, failed)
        kept = tuple(clip for clip in clips if clip.id not in failed)
        if (found := len({clip.song for clip in kept})) < MIN_CLIPS:
            raise InputError(
                f"the reference is of {found} songs; expected {MIN_CLIPS} at least, to tell a distance: give more "
                f"songs of {split}, of which half are for retrieval"
                + "".join(f" ({clip} fails: {reason})" for clip, reason in list(failed.items())[:1])
            )
        return replace(self.protocol, reference=kept)

    def measure_distances(self, protocol: Protocol, systems: Sequence[str], embedding: Embedding) -> dict[str, Any]:
        """What report.json says of one embedding; `protocol` is what `embed_reference` gave."""
        enough = [system for system in systems if self._embed_system(system, embedding) >= MIN_CLIPS]
        function = partial(
            measurement.distances, self._embeddings(embedding, measurement.REFERENCE).parent, protocol.rule.seed
        )
        with closing(work.do_all(function, enough, self.workers)) as results:
            found = dict(tqdm(results, total=len(enough), unit="system", desc=f"distances in {embedding.label}"))
        return {
            "fingerprint": protocol.fingerprint(embedding.name, embedding.sha256),
            "weights_sha256": embedding.sha256,
            "reference_clips": len(protocol.reference),
            "systems": {system: found[system].figures for system in enough},
            "order": in_order(enough, lambda worse, better: measurement.compare_distances(found[worse], found[better])),
        }

    def _embed_system(self, system: str, embedding: Embedding) -> int:
        """Of how many songs there are embeddings."""

        def has_band(clip: Clip) -> bool:
            return all(band_file(self.report, name, clip.id).exists() for name in (VOCAL, system))

        def sounds(clip: Clip) -> dict[str, np.ndarray]:
            return measurement.sounds_of(*(read_band(self.report, name, clip.id) for name in (VOCAL, system)))

        clips = [clip for clip in self.protocol.clips if has_band(clip)]
        failed = measurement.embed(self._embeddings(embedding, system), embedding, clips, sounds)
        self._note(system, failed)
        return len({clip.song for clip in clips if clip.id not in failed})

    def _embeddings(self, embedding: Embedding, name: str) -> Path:
        return self.report / "embeddings" / embedding.label / f"{name}.npz"

    def _note(self, name: str, failed: dict[str, str]) -> None:
        if failed:
            self.failures.setdefault(name, {}).update(failed)


def in_order(systems: Sequence[str], compare: Callable[[str, str], Any]) -> dict[str, Any]:
    """ "WORSE - BETTER" -> their difference, of the pairs of which sense demands an order."""
    return {
        f"{worse} - {better}": compare(worse, better)
        for better, worse in ORDER
        if better in systems and worse in systems
    }
