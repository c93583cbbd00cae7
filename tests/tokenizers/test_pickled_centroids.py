"""Against the real writers: pickle in every protocol and joblib, of scikit-learn's own classes."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import pickletools
import zlib

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans, MiniBatchKMeans

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import pickled_centroids, semantic
from hafm_jax.tokenizers.pickled_centroids import UnreadableError, cluster_centers

FRAMES = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)


def dumped(value, compress=0, protocol=None) -> bytes:
    file = io.BytesIO()
    joblib.dump(value, file, compress=compress, protocol=protocol)
    return file.getvalue()


@pytest.fixture(scope="module")
def kmeans():
    return MiniBatchKMeans(8, n_init=1, random_state=np.random.RandomState(0)).fit(FRAMES)


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
def test_pickle_in_every_protocol(protocol, kind, dtype):
    fitted = kind(8, n_init=1, random_state=0).fit(FRAMES)
    fitted.cluster_centers_ = fitted.cluster_centers_.astype(dtype)
    found = cluster_centers(pickle.dumps(fitted, protocol))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, fitted.cluster_centers_)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("compress", [0, 3, ("zlib", 9), ("gzip", 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_joblib_plain_and_compressed(kmeans, protocol, compress, order):
    expected = kmeans.cluster_centers_
    fitted = pickle.loads(pickle.dumps(kmeans))
    fitted.cluster_centers_ = np.asarray(expected, order=order)
    np.testing.assert_array_equal(cluster_centers(dumped(fitted, compress, protocol)), expected)


def test_joblib_before_padding(kmeans, monkeypatch):
    """joblib 1.1 and older wrote the arrays' bytes at once, which joblib still reads."""
    monkeypatch.setattr(joblib.numpy_pickle.NumpyArrayWrapper, "safe_get_numpy_array_alignment_bytes", lambda _: None)
    make = joblib.numpy_pickle.NumpyPickler._create_array_wrapper

    def without_alignment(self, array):
        wrapper = make(self, array)
        del wrapper.numpy_array_alignment_bytes
        return wrapper

    monkeypatch.setattr(joblib.numpy_pickle.NumpyPickler, "_create_array_wrapper", without_alignment)
    np.testing.assert_array_equal(cluster_centers(dumped(kmeans)), kmeans.cluster_centers_)


@pytest.mark.parametrize("dump", [pickle.dumps, dumped, lambda array: gzip.compress(pickle.dumps(array))])
def test_an_array_alone(dump):
    for array in (FRAMES, FRAMES.T, np.asfortranarray(FRAMES)):
        np.testing.assert_array_equal(cluster_centers(dump(array)), array)


# ---------------------------------------------------------------------------------------------------------- malicious


@pytest.mark.parametrize("dump", [pickle.dumps, dumped])
def test_a_malicious_pickle_does_not_run(kmeans, tmp_path, dump):
    victim = tmp_path / "victim"
    with pytest.raises(UnreadableError, match="mkdir"):
        cluster_centers(dump(Malicious(victim)))
    # beside good centroids it is not even looked at
    fitted = pickle.loads(pickle.dumps(kmeans))
    fitted.verbose = Malicious(victim)
    np.testing.assert_array_equal(cluster_centers(dump(fitted)), kmeans.cluster_centers_)
    fitted.cluster_centers_ = Malicious(victim)
    with pytest.raises(UnreadableError, match="mkdir"):
        cluster_centers(dump(fitted))
    assert not victim.exists()
    pickle.loads(pickle.dumps(Malicious(victim)))
    assert victim.exists()  # it would have


def test_what_pickle_may_import_is_not_imported(kmeans, monkeypatch):
    data = dumped(kmeans)
    names = {argument for _, argument, _ in pickletools.genops(pickle.dumps(kmeans)) if isinstance(argument, str)}
    assert "MiniBatchKMeans" in names

    def refuse(*_, **__):
        raise AssertionError("something was imported")

    monkeypatch.setattr("builtins.__import__", refuse)
    found = cluster_centers(data)
    monkeypatch.undo()
    np.testing.assert_array_equal(found, kmeans.cluster_centers_)


def test_a_small_file_that_would_become_huge(monkeypatch):
    """Lists of lists are never unfolded, a compressed gigabyte is never decompressed."""
    laughs = b"\x80\x04]\x94" + b"".join(
        b"](" + b"h" + bytes([n]) * 1 + b"h" + bytes([n]) + b"e\x94" for n in range(200)
    )
    for end in (b".", b"h\x01\x93.", b"h\x01R.", b"h\x01b."):
        with pytest.raises(UnreadableError):
            cluster_centers(laughs + end)
    monkeypatch.setattr(pickled_centroids, "MAX_BYTES", 1 << 16)
    with pytest.raises(UnreadableError, match="larger than"):
        cluster_centers(zlib.compress(bytes(1 << 20)))


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "value, found",
    [
        ({"cluster_centers_": FRAMES}, "dict"),
        ("text", "str"),
        (MiniBatchKMeans(8), "not fitted"),
        (np.array([None, "a"], dtype=object), "real numbers|no whole pickle"),
        (np.array([1 + 1j]), "real numbers"),
        (Exception("x"), "builtins.Exception"),
    ],
)
@pytest.mark.parametrize("dump", [pickle.dumps, dumped])
def test_other_pickles_are_named(value, found, dump):
    with pytest.raises(UnreadableError, match=found):
        cluster_centers(dump(value))


@pytest.mark.parametrize("data", [b"", b"text", b"\x80\x04", b"x\x9c", b"\x1f\x8b", b"\x80\x04.", b"0.", b"e."])
def test_what_is_no_pickle(data):
    with pytest.raises(UnreadableError):
        cluster_centers(data)


@settings(max_examples=300)
@given(form=st.integers(0, 3), where=st.integers(0, 1 << 20), value=st.integers(0, 255), cut=st.booleans())
def test_damage_is_an_error_or_does_not_reach_the_centroids(form, where, value, cut):
    fitted = MiniBatchKMeans(8)
    fitted.cluster_centers_ = FRAMES[:8]
    data = [pickle.dumps(fitted, 2), pickle.dumps(fitted, 4), dumped(fitted), dumped(fitted, compress=3)][form]
    where %= len(data)
    data = data[:where] if cut else data[:where] + bytes([value]) + data[where + 1 :]
    try:
        array = cluster_centers(data)
    except UnreadableError:
        return
    assert isinstance(array, np.ndarray) and array.nbytes <= pickled_centroids.MAX_BYTES


# ---------------------------------------------------------------------------------------------- semantic.read_centroids


def test_all_kinds_of_files_give_the_same_centroids(kmeans, tmp_path):
    from safetensors.numpy import save_file

    expected = kmeans.cluster_centers_
    np.save(tmp_path / "a.npy", expected.astype(np.float64))
    save_file({"cluster_centers_": expected}, tmp_path / "b.safetensors")
    save_file({"centroids": expected, "counts": np.zeros(8)}, tmp_path / "c.safetensors")
    joblib.dump(kmeans, tmp_path / "d.bin")
    joblib.dump(kmeans, tmp_path / "e.bin", compress=3)
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(kmeans))
    for path in sorted(tmp_path.iterdir()):
        found = semantic.read_centroids(path)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected, err_msg=path.name)


def test_files_that_hold_no_centroids_are_named(tmp_path):
    from safetensors.numpy import save_file

    np.save(tmp_path / "ids.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "row.npy", np.arange(6.0))
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    save_file({"a": FRAMES, "b": FRAMES}, tmp_path / "two.safetensors")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Malicious(tmp_path / "victim")))
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "absent"]:
        with pytest.raises(InputError, match=f"{path.name} cannot be read as centroids"):
            semantic.read_centroids(path)
    assert not (tmp_path / "victim").exists()
