"""A second stage model, in PyTorch float64: written to be read, from the definitions and not from hafm_jax's code.

It shares with hafm_jax the tables of streams and sizes, the names and shapes of the parameters, and the constants that
define `clock`. One example at a time, every token by itself, every pair of tokens by itself.

Axes: F frames, K codebooks, V vocabulary, T sequence tokens, D model, H heads, E head width, G feed-forward, N buckets.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

import jax
import numpy as np
import torch
from torch.nn import functional

from hafm_jax.model import position
from hafm_jax.model.config import StageConfig
from hafm_jax.streams import Stage, Stream

RMS_EPSILON = 1e-6  # T5
INDEX_BUCKETS, INDEX_MAX_DISTANCE = 32, 128  # T5


@dataclass(frozen=True)
class Token:
    """A place in the sequence. A place of the target predicts the token of this frame and codebook."""

    stream: Stream
    frame: int
    codebook: int

    @cached_property
    def time_s(self) -> Fraction:
        """The time of its frame; the codebooks of a frame are spread evenly over the frame."""
        return (self.frame + Fraction(self.codebook, self.stream.codebooks)) / self.stream.rate_hz


def sequence(stage: Stage, num_cells: int) -> list[Token]:
    return [
        Token(stream, frame, codebook)
        for stream in stage.streams
        for frame in range(num_cells * stream.frames_per_cell)
        for codebook in range(stream.codebooks)
    ]


@cache
def edges(num_buckets: int, reach: Fraction) -> list[float]:
    """The first distances of the logarithmic buckets: evenly spaced in the logarithm, from num_buckets / 2 on."""
    exact = num_buckets // 2
    return [exact * float(reach / exact) ** (i / (num_buckets - exact)) for i in range(num_buckets - exact)]


def bucket(distance: int, num_buckets: int, reach: Fraction) -> int:
    """T5: small distances have a bucket each, larger ones share logarithmic buckets, and the last bucket has no end."""
    exact = num_buckets // 2
    return distance if distance < exact else exact - 1 + bisect_right(edges(num_buckets, reach), distance)


def spacing_s(stream: Stream) -> Fraction:
    return Fraction(1, stream.rate_hz * stream.codebooks)


@cache
def unit_s(a: Stream, b: Stream) -> Fraction:
    """The greatest time of which all time differences between two streams' tokens are whole multiples."""
    x, y = spacing_s(a), spacing_s(b)
    return Fraction(math.gcd(x.numerator * y.denominator, y.numerator * x.denominator), x.denominator * y.denominator)


def clock_bucket(query: Token, key: Token, reach_s: float) -> int:
    """Half of the buckets for keys that sound with the query or before it, the other half for those after it."""
    unit = unit_s(query.stream, key.stream)
    difference = (query.time_s - key.time_s) / unit
    assert difference.denominator == 1
    side = position.CLOCK_BUCKETS // 2
    found = bucket(abs(difference.numerator), side, Fraction(reach_s) / unit)
    return found + side if difference < 0 else found


@cache
def pairs(mode: str, stage: Stage, num_cells: int, reach_s: float) -> list[tuple[int, int, str, int]]:
    """(place of the query, place of the key, table, bucket) of all pairs that the causal mask allows."""
    tokens, found = sequence(stage, num_cells), []
    for q, query in enumerate(tokens):
        for k, key in enumerate(tokens[: q + 1]):
            if mode == "index":
                found.append((q, k, "sequence_to_sequence", bucket(q - k, INDEX_BUCKETS, Fraction(INDEX_MAX_DISTANCE))))
            else:
                found.append((q, k, f"{query.stream.name}_to_{key.stream.name}", clock_bucket(query, key, reach_s)))
    return found


def bias(config: StageConfig, tables: dict[str, torch.Tensor], num_cells: int) -> torch.Tensor:
    """The bias on the scores, [H, T, T]: from the tables [N, H], and minus infinity for keys after the query."""
    num_tokens = len(sequence(config.stage, num_cells))
    square = torch.full((num_tokens, num_tokens, config.num_heads), -torch.inf, dtype=torch.float64)
    for q, k, table, row in pairs(config.position, config.stage, num_cells, position.CLOCK_REACH_S):
        square[q, k] = tables[table][row]
    return square.permute(2, 0, 1)


def rms_norm(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, scale.shape, scale, RMS_EPSILON)


def embed(stage: Stage, ends: dict, conditions: Sequence[np.ndarray], target: np.ndarray) -> torch.Tensor:
    """The input, [T, D]: the target's part starts with BOS, and every token is one place later."""
    rows = []
    *segments, own_segment = ends["segments"]
    for stream, segment, tokens in zip(stage.conditions, segments, conditions, strict=True):
        for frame in tokens:
            rows += [ends["conditions"][stream.name][k, frame[k]] + segment for k in range(stream.codebooks)]
    shifted = [ends["target"][k, frame[k]] for frame in target for k in range(stage.target.codebooks)][:-1]
    return torch.stack([*rows, *(x + own_segment for x in (ends["bos"], *shifted))])


def attention(x: torch.Tensor, p: dict, square: torch.Tensor) -> torch.Tensor:
    """x, normed [T, D] -> its addition to the residual stream."""
    q, k, v = (torch.stack([x @ weight for weight in part.unbind(1)]) for part in p["query_key_value"].unbind(1))
    q, k = rms_norm(q, p["query_norm"]), rms_norm(k, p["key_norm"])  # [H, T, E]
    read = functional.scaled_dot_product_attention(q, k, v, attn_mask=square)
    return sum(head @ weight for head, weight in zip(read, p["attention_out"], strict=True))


def feed_forward(x: torch.Tensor, p: dict) -> torch.Tensor:
    """x, normed [T, D] -> its addition to the residual stream."""
    gate, value = (x @ weight for weight in p["ffn_in"].unbind(1))  # [T, G]
    return (functional.gelu(gate, approximate="tanh") * value) @ p["ffn_out"]


def logits(config: StageConfig, params: dict, conditions: Sequence[np.ndarray], target: np.ndarray) -> np.ndarray:
    """Logits float64 [F, K, V] of one example: conditions int [F, K] a stream, target int [F, K]."""
    stage = config.stage
    p = jax.tree.map(lambda x: torch.from_numpy(np.array(x, np.float64)), params)
    ends, blocks = p["embedder"], p["blocks"]
    square = bias(config, ends["position"], len(target) // stage.target.frames_per_cell)
    x = embed(stage, ends, conditions, target)
    for i in range(config.num_layers):
        layer = {name: weight[i] for name, weight in blocks.items()}
        x = x + attention(rms_norm(x, layer["attention_norm"]), layer, square)
        x = x + feed_forward(rms_norm(x, layer["ffn_norm"]), layer)
    x = rms_norm(x, ends["final_norm"])[-target.size :]
    heads = [ends["heads"][token.codebook] for token in sequence(stage, len(target) // stage.target.frames_per_cell)]
    rows = [row @ head for row, head in zip(x, heads[-target.size :], strict=True)]
    return torch.stack(rows).reshape(*target.shape, -1).numpy()
