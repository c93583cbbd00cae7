from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys

import pytest

from hafm_jax.common import download
from hafm_jax.common.errors import InputError

URL = "https://example.org/models/vocals.onnx?download=1"


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A web of one file, and the addresses that were asked for."""
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        if url != URL:
            raise OSError("404: not found")
        return io.BytesIO(b"weights")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_a_local_path_is_itself(tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    assert download.find_weights(str(tmp_path / "a.onnx"), ["*.onnx"]) == tmp_path / "a.onnx"
    assert download.find_weights(str(tmp_path), ["*.onnx"]) == tmp_path
    assert download.find_weights("a.onnx", ["*.onnx"]).read_bytes() == b"1"


def test_a_url_is_downloaded_once_under_its_own_name(web):
    path = download.find_weights(URL, ["*.onnx"])
    assert path.name == "vocals.onnx" and path.read_bytes() == b"weights"
    assert download.find_weights(URL, ["*.onnx"]) == path and web == [URL]


def test_a_broken_download_leaves_nothing(web, tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise TimeoutError("the read operation timed out")

    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Broken())
    with pytest.raises(InputError, match=r"example.org.*cannot be downloaded.*timed out"):
        download.find_weights(URL, ["*.onnx"])
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_wrong_url_is_named(web):
    with pytest.raises(InputError, match=r"example.org/other.onnx cannot be downloaded.*404"):
        download.find_weights("https://example.org/other.onnx", ["*.onnx"])


def test_hub_ids_of_repositories_and_of_files(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path))
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a: asked.append(a) or str(tmp_path / "f.onnx"))
    assert download.find_weights("owner/some-models_1.0", ["*.onnx"]) == tmp_path
    assert download.find_weights("owner/some-models_1.0/a/f.onnx", ["*.onnx"]) == tmp_path / "f.onnx"
    assert asked == [
        (("owner/some-models_1.0",), {"allow_patterns": ["*.onnx"]}),
        ("owner/some-models_1.0", "a/f.onnx"),
    ]


def test_a_hub_id_that_cannot_be_had(monkeypatch):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(InputError, match=r"someone/nothing is no local file or folder and cannot be downloaded"):
        download.find_weights("someone/nothing", ["*.onnx"])  # the tests run offline
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"hafm_jax\[hub\]"):
        download.find_weights("someone/nothing", ["*.onnx"])


@pytest.mark.parametrize("source", ["/nowhere/a.onnx", "./a.onnx", "a.onnx", "http://example.org/a.onnx", ""])
def test_what_is_nowhere(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="expected a local file or folder"):
        download.find_weights(source, ["*.onnx"])


def test_sha256_is_that_of_the_command(tmp_path):
    files = []
    for name in ("a.th", "b.safetensors", "c.yaml"):
        files.append(tmp_path / name)
        files[-1].write_bytes(name.encode() * 1000)
    one = download.check_sha256(files[:1])
    assert one == hashlib.sha256(b"a.th" * 1000).hexdigest()
    assert download.check_sha256(files[:1], one.upper()) == one
    if not shutil.which("sha256sum"):
        pytest.skip("sha256sum is not installed")
    names = [path.name for path in files]
    listed = subprocess.run(["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True).stdout
    assert download.check_sha256(files) == hashlib.sha256(listed).hexdigest()


def test_a_wrong_sha256_is_named(tmp_path):
    (tmp_path / "a.th").write_bytes(b"a")
    (tmp_path / "b.th").write_bytes(b"b")
    with pytest.raises(InputError, match=rf"a\.th has the SHA-256 {hashlib.sha256(b'a').hexdigest()}; expected 00"):
        download.check_sha256([tmp_path / "a.th"], "00")
    with pytest.raises(InputError, match=r"\(a\.th, b\.th\) has the SHA-256"):
        download.check_sha256([tmp_path / "a.th", tmp_path / "b.th"], "00")
