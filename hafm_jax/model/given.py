"""Tokens that are given and not drawn, and what is then left to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from hafm_jax.common.errors import InputError
from hafm_jax.streams import STAGES, STREAMS

ACOUSTIC = ("coarse", "fine")  # the streams that the codec decodes


def check_given(given: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, int, int]]) -> dict[str, np.ndarray]:
    """The given tokens as int32. Raises InputError where one does not have its shape in `shapes` or is not an id of its
    stream."""
    checked = {}
    for name, tokens in given.items():
        if name not in shapes:
            raise InputError(f"tokens of {name!r} are given; expected those of {', '.join(shapes)}")
        tokens, vocabulary = np.asarray(tokens), STREAMS[name].vocabulary
        if tokens.shape != shapes[name] or tokens.dtype.kind not in "iu":
            raise InputError(
                f"the given tokens of {name!r} are {tokens.dtype} {list(tokens.shape)}; expected integers "
                f"{list(shapes[name])}: samples, frames of all cells that the stage fills, codebooks"
            )
        if tokens.min() < 0 or tokens.max() >= vocabulary:
            raise InputError(
                f"the given tokens of {name!r} are {tokens.min()} to {tokens.max()}; expected 0 to {vocabulary - 1}"
            )
        checked[name] = tokens.astype(np.int32)
    return checked


def stages_to_run(names: Sequence[str], given: Collection[str]) -> set[str]:
    """Those whose target is decoded, or read by another stage that runs, and is not given."""
    needed, run = set(ACOUSTIC), set()
    for stage in reversed([STAGES[name] for name in names]):
        if stage.target.name in needed.difference(given):
            run.add(stage.name)
            needed |= {stream.name for stream in stage.conditions}
    return run
