"""Weights by path, Hub id and URL. URLs are served over loopback http; nothing is downloaded."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from hafm_jax.common import download
from hafm_jax.common.errors import InputError

CONTENT = b"weights" * 1000


class Handler(BaseHTTPRequestHandler):
    """Serves /models/vocals.onnx whole, /models/torn.onnx only in part, and nothing else."""

    def __init__(self, requests: list[str], *arguments):
        self.requests = requests
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.requests.append(self.path)
        sent = {"vocals": CONTENT, "torn": CONTENT[:100]}.get(Path(self.path).name.split(".")[0])
        self.send_response(200 if sent else 404)
        self.send_header("Content-Length", str(len(CONTENT)) if sent else "0")
        self.end_headers()
        self.wfile.write(sent or b"")

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[tuple[str, list[str]]]:
    """The address of a folder on a server, and the paths that were requested."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, requests)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/models", requests
        server.shutdown()


def test_a_local_path_is_itself(tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    assert download.find_weights(str(tmp_path / "a.onnx"), ["*.onnx"]) == tmp_path / "a.onnx"
    assert download.find_weights(str(tmp_path), ["*.onnx"]) == tmp_path
    assert download.find_weights("a.onnx", ["*.onnx"]).read_bytes() == b"1"


def test_an_https_url_is_downloaded_from_there(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "_from_url", lambda url: tmp_path / Path(url).name)
    assert download.find_weights("https://example.org/models/vocals.onnx", []) == tmp_path / "vocals.onnx"


def test_a_url_is_downloaded_once_under_its_own_name(server):
    address, requests = server
    path = download._from_url(f"{address}/vocals.onnx?download=1")
    assert path.name == "vocals.onnx" and path.read_bytes() == CONTENT
    assert download._from_url(f"{address}/vocals.onnx?download=1") == path
    assert requests == ["/models/vocals.onnx?download=1"]


def test_two_urls_of_one_name_do_not_mix(server):
    address, _ = server
    first, second = (download._from_url(f"{address}{place}/vocals.onnx") for place in ("", "/other"))
    assert first != second and first.name == second.name


def test_a_broken_download_leaves_nothing(server, tmp_path):
    address, _ = server
    with pytest.raises(InputError, match=r"torn\.onnx cannot be downloaded .*; expected weights"):
        download._from_url(f"{address}/torn.onnx")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_wrong_url_is_named(server):
    with pytest.raises(InputError, match=r"models/none\.onnx cannot be downloaded .*404"):
        download._from_url(f"{server[0]}/none.onnx")
    with pytest.raises(InputError, match=r"x\.onnx cannot be downloaded"):
        download._from_url("http://[/x.onnx")


def test_hub_ids_of_repositories_and_of_files(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path))
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a: asked.append(a) or str(tmp_path / "f.onnx"))
    assert download.find_weights("owner/some-models_1.0", ["*.onnx"]) == tmp_path
    assert download.find_weights("owner/some-models_1.0/a/f.onnx", ["*.onnx"]) == tmp_path / "f.onnx"
    repository = "owner/some-models_1.0"
    assert asked == [((repository,), {"revision": None, "allow_patterns": ["*.onnx"]}), (repository, "a/f.onnx")]


def test_a_hub_id_that_cannot_be_downloaded(monkeypatch):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(InputError, match=r"someone/nothing is not a local file or folder and cannot be downloaded"):
        download.find_weights("someone/nothing", ["*.onnx"])  # the tests run offline
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"hafm_jax\[hub\]"):
        download.find_weights("someone/nothing", ["*.onnx"])


@pytest.mark.parametrize("source", ["/nowhere/a.onnx", "./a.onnx", "a.onnx", "http://example.org/a.onnx", ""])
def test_a_source_of_an_unknown_form(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="expected a local file or folder"):
        download.find_weights(source, ["*.onnx"])


def test_sha256_is_that_of_the_command(tmp_path):
    files = [tmp_path / name for name in ("a.th", "b.safetensors", "c.yaml")]
    for path in files:
        path.write_bytes(path.name.encode() * 1000)
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
