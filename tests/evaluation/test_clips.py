from __future__ import annotations

import pytest

from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.evaluation.clips import left_out


def test_a_clip_that_fails_is_left_out_but_not_for_a_full_disk():
    failures = {}
    for name, error in (("a", InputError("no sound")), ("b", ZeroDivisionError("by zero"))):
        with left_out(failures, name):
            raise error
    assert failures == {"a": "no sound", "b": "ZeroDivisionError: by zero"}
    with pytest.raises(OutputError), left_out(failures, "c"):
        raise OutputError("cannot write c (No space left on device)")
    assert "c" not in failures
