"""Which checkpoints stay, and that they hold what was saved."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from hafm_jax.common.errors import InputError
from hafm_jax.training.checkpoint import Checkpoints

STEPS = range(5, 45, 5)


@pytest.mark.parametrize(("keep", "stay"), [(1, [40]), (3, [30, 35, 40])])
def test_the_last_ones_stay(keep, stay, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep)
    for step in STEPS:
        checkpoints.save(step, {"weights": jnp.full(3, step)})
    checkpoints.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == stay
    checkpoints = Checkpoints(tmp_path, keep)
    for step in stay:
        restored = checkpoints.restore(step, {"weights": jnp.zeros(3, int)})
        np.testing.assert_array_equal(restored["weights"], [step] * 3)
    checkpoints.close()


def test_other_arrays_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, {"weights": jnp.zeros(3), "moments": (jnp.zeros(2), {})})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, 1)
    for other in ({"weights": jnp.zeros(4)}, {"weights": jnp.zeros(3, jnp.int32)}, {"more": jnp.zeros(3)}):
        with pytest.raises(InputError, match="does not fit this configuration"):
            checkpoints.restore(1, {"weights": jnp.zeros(3), "moments": (jnp.zeros(2), {})} | other)
    checkpoints.close()
