"""A VGGish of the published layers, 32 times narrower, with random weights."""

from __future__ import annotations

import numpy as np
import pytest

from hafm_jax.metrics import vggish


def small_vggish(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Its tensors, whose shapes the module then expects."""
    rng = np.random.default_rng(0)

    def narrow(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        keep = {"features.0.weight": (1,), "embeddings.4.weight": (0,), "embeddings.4.bias": (0,)}.get(name, ())
        return tuple(n if i in keep or (n == 3 and i > 1) else n // 32 for i, n in enumerate(shape))

    tensors = {
        name: rng.standard_normal(narrow(name, shape)).astype(np.float32) / 10 for name, shape in vggish.SHAPES.items()
    }
    monkeypatch.setattr(vggish, "SHAPES", {name: tensor.shape for name, tensor in tensors.items()})
    return tensors
