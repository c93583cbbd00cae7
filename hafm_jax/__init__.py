"""HAFM in JAX: instrumental accompaniment for a singing voice.

from hafm_jax import Accompanist
"""

from typing import Any

__version__ = "0.2.0"
__all__ = ["Accompanist", "Sampling", "SamplingOptions", "__version__"]


def __getattr__(name: str) -> Any:
    """The API's names, imported when they are asked for: `import hafm_jax` alone loads neither JAX nor a device."""
    if name in ("Accompanist", "SamplingOptions"):
        from hafm_jax import accompany

        return getattr(accompany, name)
    if name == "Sampling":
        from hafm_jax.model.sampling import Sampling

        return Sampling
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
