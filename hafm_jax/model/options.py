"""What to draw: the options of a call."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass

from hafm_jax.common.errors import InputError
from hafm_jax.common.options import check_number, from_fields
from hafm_jax.model.sampling import Sampling
from hafm_jax.streams import STAGES


@dataclass(frozen=True)
class SamplingOptions:
    """What to draw: `num_samples` (B) accompaniments of each vocal; by `sampling`, the same for all stages or by stage
    name, and the model's own for a stage that is not named; with `skip_fine` only the coarse codebooks, which is faster
    and rougher.

    Raises InputError for a name that is not a stage's, for what is not a Sampling, and where a number is out of its
    range (model/ranges.py).
    """

    num_samples: int = 1
    sampling: Sampling | Mapping[str, Sampling] | None = None
    skip_fine: bool = False

    def __post_init__(self) -> None:
        check_number("num_samples", self.num_samples, int, 1, math.inf)
        if not isinstance(self.skip_fine, bool):
            raise InputError(f"skip_fine is {reprlib.repr(self.skip_fine)}; expected True or False")
        given = {} if self.sampling is None else self.sampling
        named = {"": given} if isinstance(given, Sampling) else given
        if not isinstance(named, Mapping):
            raise InputError(f"sampling is {reprlib.repr(given)}; expected a Sampling, or one by stage name")
        if unknown := sorted(map(str, set(named).difference({"", *STAGES}))):
            raise InputError(f"sampling of {', '.join(unknown)} is given; expected stages: {', '.join(STAGES)}")
        for name, sampling in named.items():
            what = f"the {f'{name} ' * bool(name)}sampling"
            if not isinstance(sampling, Sampling):
                raise InputError(f"{what} is {reprlib.repr(sampling)}; expected a Sampling")
            from_fields(Sampling.checked, sampling._asdict(), what)

    @property
    def stage_names(self) -> list[str]:
        return [name for name in STAGES if not (self.skip_fine and name == "fine")]


DEFAULT_OPTIONS = SamplingOptions()
