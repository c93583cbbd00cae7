"""Plays an arrangement with a soundfont: one mono stem for drums, bass, harmony and lead, at the levels that it states.

Axes: S samples.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from hafm_jax.common.errors import InputError, install, needed_for
from hafm_jax.synthesis.arrangement import KINDS, Arrangement, Part

HARMONY_DBFS = -22.0  # ours: a band of all kinds then peaks near -6 dBFS
PEAK = 0.95  # of the band; what would be louder is turned down as a whole
FADE_S = 0.05  # at the end of a window, over the tails of its notes
FRAME_S = 0.05
FLOOR_DB = 30.0  # below its loudest frame a stem counts as silent


def symusic():
    """The package symusic. Raises InputError where it is not installed."""
    with needed_for("playing a band needs symusic", install("songs")):
        import symusic
    return symusic


def _open(soundfont_path: str, rate_hz: int):
    try:
        return symusic().Synthesizer(soundfont_path, rate_hz, 0)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{soundfont_path} is not a soundfont that can be read (.sf2 or .sf3): {error}") from error


_opened = lru_cache(maxsize=2)(_open)  # keeps what it has decoded


def level_db(stem: np.ndarray, rate_hz: int) -> float:
    """RMS in dBFS of the frames of 50 ms that are within 30 dB of the loudest one; -inf where all is silent."""
    frame = max(1, round(FRAME_S * rate_hz))
    power = np.square(stem[: len(stem) // frame * frame].astype(np.float64)).reshape(-1, frame).mean(axis=1)
    if not power.size or power.max() <= 0:
        return float("-inf")
    return float(10 * np.log10(power[power >= power.max() * 10 ** (-FLOOR_DB / 10)].mean()))


def render(
    arrangement: Arrangement, num_samples: int, rate_hz: int, soundfont_path: str | Path
) -> dict[str, np.ndarray]:
    """Stems by kind ("drums", "bass", "harmony", "lead"), mono float32 [S]; a kind without notes is silent.

    Each part plays alone and is set to its `level_db`, measured as `level_db` does, relative to the harmony; the band
    is their sum, and peaks at 0.95 at most. The same arrangement gives the same samples on the same machine. Raises
    InputError where the soundfont is missing or cannot be read.
    """
    if not Path(soundfont_path).is_file():
        raise InputError(f"the soundfont {soundfont_path} is not a file: name an .sf2 or .sf3 file")
    stems = {kind: np.zeros(num_samples, np.float32) for kind in KINDS}
    for part in arrangement.parts:
        sound = _play(part, num_samples, rate_hz, str(soundfont_path))
        loudness_db = level_db(sound, rate_hz)
        if loudness_db > -90:
            stems[part.kind] += sound * np.float32(10 ** ((part.level_db - loudness_db) / 20))
    # Several parts of harmony add up: the kind as a whole is what the other kinds are measured against.
    total_db = level_db(stems["harmony"], rate_hz)
    if total_db > -90:
        stems["harmony"] *= np.float32(10 ** (-total_db / 20))
    gain = 10 ** (HARMONY_DBFS / 20)
    peak = gain * float(np.abs(sum(stems.values())).max(initial=0.0))
    gain *= min(1.0, PEAK / peak) if peak else 1.0
    fade = np.ones(num_samples, np.float32)
    tail = min(num_samples, round(FADE_S * rate_hz))
    fade[num_samples - tail :] = np.linspace(1, 0, tail, dtype=np.float32)
    return {kind: stem * np.float32(gain) * fade for kind, stem in stems.items()}


def _play(part: Part, num_samples: int, rate_hz: int, soundfont_path: str) -> np.ndarray:
    sound = np.zeros(num_samples, np.float32)
    if not len(part.midi):
        return sound
    library = symusic()
    score = library.Score(0, ttype="second")
    drums = part.kind == "drums"
    track = library.Track(part.name, part.program, drums, ttype="second")
    for start, end, midi, velocity in zip(part.start_s, part.end_s, part.midi, part.velocity, strict=True):
        track.notes.append(library.Note(float(start), float(end - start), int(midi), int(velocity), ttype="second"))
    score.tracks.append(track)
    # A new one for drums: in symusic 0.5.8 the sound of a kit depends on which kits were played before.
    synthesizer = (_open if drums else _opened)(soundfont_path, rate_hz)
    played = np.asarray(synthesizer.render(score, False))[0]
    count = min(num_samples, len(played))
    sound[:count] = played[:count]
    return sound
