"""HAFM in JAX: instrumental accompaniment for a singing voice.

import hafm_jax

band = hafm_jax.load()("take.m4a", seed=1)
band.save("mix.wav")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hafm_jax.accompany import Accompanist, load
    from hafm_jax.band import Band
    from hafm_jax.common.errors import InputError
    from hafm_jax.model.options import SamplingOptions
    from hafm_jax.model.sampling import Sampling

__version__ = "0.2.0"
__all__ = ["Accompanist", "Band", "InputError", "Sampling", "SamplingOptions", "__version__", "load"]

_HOMES = {
    "load": "accompany",
    "Accompanist": "accompany",
    "Band": "band",
    "InputError": "common.errors",
    "Sampling": "model.sampling",
    "SamplingOptions": "model.options",
}


def __getattr__(name: str) -> Any:
    """The API's names, imported when they are asked for: `import hafm_jax` alone loads neither JAX nor a device."""
    if name in _HOMES:
        return getattr(import_module(f"hafm_jax.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
