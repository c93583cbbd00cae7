"""Which checkpoints stay, and that they hold what was saved, or are named as damaged."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hafm_jax.common.errors import InputError
from hafm_jax.training.checkpoint import Checkpoints, _checksums

STEPS = range(5, 45, 5)
FLIPS = 80


def saved(workdir: Path, states: dict, keep: int = 2) -> Path:
    """The folder of the checkpoints, after these states by step were saved."""
    checkpoints = Checkpoints(workdir, keep)
    for step, state in states.items():
        checkpoints.save(step, state)
    checkpoints.close()
    return workdir / "checkpoints"


def read(workdir: Path, like: dict) -> tuple:
    checkpoints = Checkpoints(workdir, keep=None)
    found = checkpoints.restore_latest(like)
    checkpoints.close()
    return found


@pytest.mark.parametrize(("keep", "stay"), [(1, [40]), (3, [30, 35, 40])])
def test_the_last_ones_stay(keep, stay, tmp_path):
    folder = saved(tmp_path, {step: {"weights": jnp.full(3, step)} for step in STEPS}, keep)
    assert sorted(int(path.name) for path in folder.iterdir()) == stay
    checkpoints = Checkpoints(tmp_path, keep)
    assert checkpoints.latest() == 40
    for step in stay:
        restored = checkpoints.restore(step, {"weights": jnp.zeros(3, int)})
        np.testing.assert_array_equal(restored["weights"], [step] * 3)
    checkpoints.close()


def test_other_arrays_are_refused(tmp_path):
    saved(tmp_path, {1: {"weights": jnp.zeros(3), "moments": (jnp.zeros(2), {})}})
    checkpoints = Checkpoints(tmp_path, 1)
    for other in ({"weights": jnp.zeros(4)}, {"weights": jnp.zeros(3, jnp.int32)}, {"more": jnp.zeros(3)}):
        with pytest.raises(InputError, match="does not fit this configuration"):
            checkpoints.restore_latest({"weights": jnp.zeros(3), "moments": (jnp.zeros(2), {})} | other)
    checkpoints.close()
    assert (tmp_path / "checkpoints" / "1").exists()


def state_of(seed: int) -> dict:
    """Kinds of arrays that a training has."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((40, 50), (3, 7, 5), (9,))]
    moments = ({"mu": jnp.asarray(arrays[1], jnp.bfloat16)}, {})
    return {"params": [*map(jnp.asarray, arrays)], "opt_state": moments, "step": jnp.asarray(seed, jnp.int32)}


def equal(a: dict, b: dict) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """(work directory, states by step, the files of the last checkpoint with their bytes)."""
    workdir = tmp_path_factory.mktemp("run")
    states = {step: state_of(step) for step in (1, 2)}
    files = [path for path in sorted((saved(workdir, states) / "2").rglob("*")) if path.is_file()]
    return workdir, states, {path: path.read_bytes() for path in files}


def check_damage(two_checkpoints, capsys) -> int:
    """The step that is restored from a work directory whose last checkpoint has been damaged."""
    workdir, states, _ = two_checkpoints
    step, state = read(workdir, state_of(0))
    assert equal(state, states[step])
    error = capsys.readouterr().err
    assert error.count(" is damaged and skipped: ") == 2 - step
    return step


def test_a_flipped_bit_is_named_or_harmless_whatever_file_it_is_in(two_checkpoints, capsys):
    rng = np.random.default_rng(0)
    _, _, files = two_checkpoints
    content = [path for path, data in files.items() if len(data) > 500]
    restored = []
    for number in range(FLIPS):
        path = rng.choice(content if number % 2 else list(files))
        damaged = bytearray(files[path])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        restored.append(check_damage(two_checkpoints, capsys))
        path.write_bytes(files[path])
    assert check_damage(two_checkpoints, capsys) == 2
    assert restored.count(1) > FLIPS / 4


@pytest.mark.parametrize("damage", ["cut", "emptied", "missing"])
def test_a_cut_or_missing_file_is_named_or_harmless(damage, two_checkpoints, capsys):
    restored = []
    for path, data in two_checkpoints[2].items():
        path.unlink()
        if damage != "missing":
            path.write_bytes(data[: len(data) // 2 * (damage == "cut")])
        restored.append(check_damage(two_checkpoints, capsys))
        path.write_bytes(data)
    assert check_damage(two_checkpoints, capsys) == 2
    assert restored.count(1) > len(restored) / 4


def test_a_damaged_one_is_set_aside_and_saved_again(tmp_path, capsys):
    folder = saved(tmp_path, {1: state_of(1), 2: state_of(2)})
    for again in ("damaged-2", "damaged-2-2"):
        (folder / "2" / "_CHECKPOINT_METADATA").write_text("{}")
        checkpoints = Checkpoints(tmp_path, 2)
        assert checkpoints.restore_latest(state_of(0))[0] == 1
        checkpoints.save(2, state_of(2))
        checkpoints.close()
        assert (folder / again).is_dir() and equal(read(tmp_path, state_of(0))[1], state_of(2))
        assert "checksums are missing" in capsys.readouterr().err


def test_where_none_is_whole_each_is_named(tmp_path):
    folder = saved(tmp_path, {1: state_of(1), 2: state_of(2)})
    for step in (1, 2):
        (folder / str(step) / "_CHECKPOINT_METADATA").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged \(2: .*; 1: .*restore the folder"):
        read(tmp_path, state_of(0))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}  # reading changes nothing
    assert read(tmp_path / "none", state_of(0)) is None and not (tmp_path / "none").exists()


def test_one_at_a_time_saves(tmp_path):
    first = Checkpoints(tmp_path, 1)
    with pytest.raises(InputError, match=f"{tmp_path} is in use by another training"):
        Checkpoints(tmp_path, 1)
    first.save(1, state_of(1))
    first.close()
    Checkpoints(tmp_path, 1).close()


def plain_checksum(x: np.ndarray) -> int:
    """In Python's own integers, value by value."""

    def mixed(n: int) -> int:
        n = (n ^ n >> 16) * 0x7FEB352D % 2**32
        n = (n ^ n >> 15) * 0x846CA68B % 2**32
        return n ^ n >> 16

    values = x.reshape(-1).view(f"uint{8 * x.itemsize}").tolist()
    return sum(mixed(value ^ mixed(place + 1)) for place, value in enumerate(values)) % 2**32


@settings(max_examples=30)
@given(
    x=hnp.arrays(st.sampled_from([np.float32, np.int32, np.uint8, np.float16]), st.sampled_from([(), (5,), (2, 3)])),
    data=st.data(),
)
def test_the_checksum_is_that_of_every_bit(x, data):
    assert _checksums({"x": jnp.asarray(x)}) == {"x": plain_checksum(x)}
    if x.size:
        changed = x.copy().reshape(-1)
        bits = changed.view(f"uint{8 * x.itemsize}")
        bits[data.draw(st.integers(0, x.size - 1))] ^= 1 << data.draw(st.integers(0, 8 * x.itemsize - 1))
        assert plain_checksum(changed) != plain_checksum(x)
