"""The token contract: streams, stages, and the cell that keeps their clocks together.

Rates, codebooks, vocabularies, special ids and sequence lengths are derived from the two tables here and written
nowhere else. The extractor, the model, the sampler and the tests all read them.

The cell is the shortest time in which every stream has a whole number of frames: 40 ms hold 2 semantic frames (50 Hz),
3 acoustic frames (75 Hz), 640 samples at 16 kHz and 960 at 24 kHz. Crops and windows are whole cells.

Axes: N cells, F frames, K codebooks, T tokens (T = F * K).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # where it is used it is imported, so that a command's --help need not wait for it
    import numpy as np

CELLS_PER_S = 25  # 50 Hz and 75 Hz meet every 40 ms
SEMANTIC_SAMPLE_RATE_HZ = 16_000  # HuBERT's input [paper]
CODEC_SAMPLE_RATE_HZ = 24_000  # EnCodec 24 kHz [paper]; also the rate of generated audio
ACOUSTIC_CODEBOOKS = 8  # EnCodec at 6 kbps: 4 coarse and 4 fine [paper]


@dataclass(frozen=True)
class Stream:
    """One sequence of tokens with its own frame rate.

    `field` and `first_codebook` are the place of its tokens in a record (see `tokens_of`).
    """

    name: str
    frames_per_cell: int
    codebooks: int
    vocabulary: int
    field: str
    first_codebook: int = 0

    @property
    def rate_hz(self) -> int:
        return self.frames_per_cell * CELLS_PER_S

    @property
    def tokens_per_cell(self) -> int:
        return self.frames_per_cell * self.codebooks

    @property
    def null_id(self) -> int:
        """The id that stands for "no condition": one past the vocabulary, only ever an input."""
        return self.vocabulary

    @property
    def tokenizer(self) -> str:
        """The tokenizer that makes its tokens, by the name of its folder: semantic or codec."""
        return "codec" if self.field == "acoustic" else "semantic"


@dataclass(frozen=True)
class Stage:
    """One Transformer: `conditions` are its prefix, in this order; `target` is the stream that it predicts."""

    name: str
    conditions: tuple[Stream, ...]
    target: Stream

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams in sequence order: conditions first, target last."""
        return (*self.conditions, self.target)

    def num_tokens(self, num_cells: int) -> int:
        """Sequence length of `num_cells` cells, conditions and target together."""
        return num_cells * sum(s.tokens_per_cell for s in self.streams)


STREAMS = {
    s.name: s
    for s in (  # all four rows: [paper]
        Stream("vocal_semantic", 2, 1, 500, field="vocal_semantic"),
        Stream("instrumental_semantic", 2, 1, 500, field="instrumental_semantic"),
        Stream("coarse", 3, 4, 1024, field="acoustic"),
        Stream("fine", 3, 4, 1024, field="acoustic", first_codebook=4),
    )
}

STAGES = {
    name: Stage(name, tuple(STREAMS[c] for c in conditions), STREAMS[target])
    for name, conditions, target in (  # all three rows: [paper]
        ("semantic", ("vocal_semantic",), "instrumental_semantic"),
        ("coarse", ("vocal_semantic", "instrumental_semantic"), "coarse"),
        ("fine", ("coarse",), "fine"),
    )
}

# The common clock of all tokens: with 12 ticks a cell (300 Hz) every token of every stream starts on a whole tick.
TICKS_PER_CELL = math.lcm(*(s.tokens_per_cell for s in STREAMS.values()))


def ticks_per_token(stream: Stream) -> int:
    """Spacing of the stream's tokens on the common clock, codebooks of a frame spread evenly over it."""
    return TICKS_PER_CELL // stream.tokens_per_cell


def samples_per_cell(rate_hz: int) -> int:
    """Samples in one cell. Raises ValueError where a cell is not a whole number of samples."""
    if rate_hz % CELLS_PER_S:
        raise ValueError(f"{rate_hz} Hz: a cell of {1000 // CELLS_PER_S} ms is not a whole number of samples")
    return rate_hz // CELLS_PER_S


def num_cells(num_samples: int, rate_hz: int) -> int:
    """Cells that cover `num_samples`; the last one may be partly padding."""
    return -(-num_samples // samples_per_cell(rate_hz))


def interleave(frames: np.ndarray) -> np.ndarray:
    """[..., F, K] -> [..., F * K]: frame-major, codebook-minor. Works on numpy and JAX arrays."""
    return frames.reshape(*frames.shape[:-2], -1)


def tokens_of(stream: Stream, record: dict[str, np.ndarray]) -> np.ndarray:
    """The stream's tokens [F, K] of a record: `vocal_semantic` and `instrumental_semantic` [2N], `acoustic` [3N, 8]."""
    import numpy as np

    values = np.asarray(record[stream.field])
    if values.ndim == 1:
        values = values[:, None]
    return values[:, stream.first_codebook : stream.first_codebook + stream.codebooks]


def check_codes(codes: np.ndarray, num_codebooks: int, vocabulary: int) -> np.ndarray:
    """A codec's codes as an array. Raises ValueError unless it is int [B, F, K] of valid ids, K in 1..num_codebooks."""
    import numpy as np

    codes = np.asarray(codes)
    if codes.ndim != 3 or not 1 <= codes.shape[2] <= num_codebooks:
        raise ValueError(f"codes have shape {codes.shape}; expected [B, F, K] with K in 1..{num_codebooks}")
    if codes.size and not (codes.min() >= 0 and codes.max() < vocabulary):
        raise ValueError(f"codes range over {codes.min()}..{codes.max()}; valid are 0..{vocabulary - 1}")
    return codes
