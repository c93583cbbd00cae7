"""Weights that others published: a local file or folder, a Hugging Face Hub id, or an https URL, checked by SHA-256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from hafm_jax.common.errors import InputError, first_line, install, needed_for
from hafm_jax.common.files import reading, sha256_of

FORMS = "expected a local file or folder, a Hub id (OWNER/NAME or OWNER/NAME/FILE), or an https URL"
TIMEOUT_S = 60.0


def find_weights(source: str, patterns: Sequence[str]) -> Path:
    """The local file or folder of `source`, downloaded first where it is a Hub id or an https URL.

    From a Hub repository OWNER/NAME only files that match one of `patterns` ("*.onnx") are fetched. The Hub's client
    keeps its own cache; URLs are kept in the package's. Raises InputError where there are no such weights.
    """
    path = Path(source).expanduser()
    if source and path.exists():
        return path
    if source.startswith("https://"):
        return _from_url(source)
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)+", source):
        return from_hub(source, patterns)
    raise InputError(f"no weights at {source}; {FORMS}: check the path")


def from_hub(source: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The local folder of the Hub repository OWNER/NAME, with the files that match `patterns`, or OWNER/NAME/FILE.
    revision: a branch, a tag or a commit of the repository.

    Raises InputError where it cannot be downloaded.
    """
    what = f"{source} is not a local file or folder, and a download needs huggingface_hub"
    with needed_for(what, install("hub")):
        import huggingface_hub
    owner, name, *file = source.split("/")
    try:
        if file:
            return Path(huggingface_hub.hf_hub_download(f"{owner}/{name}", "/".join(file)))
        return Path(huggingface_hub.snapshot_download(source, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the Hub's client raises a dozen kinds: offline, not found, gated, ...
        what = f"{source}@{revision}" if revision else source
        raise InputError(
            f"{what} is not a local file or folder and cannot be downloaded ({first_line(error)}); {FORMS}"
        ) from error


def _from_url(url: str) -> Path:
    import pooch  # only here, as JAX is only needed for the cache's place

    from hafm_jax.common.cache import cache_directory

    name = url.split("?")[0].rsplit("/", 1)[-1]
    folder = cache_directory() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        return Path(pooch.retrieve(url, None, name, folder, downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S)))
    except (OSError, ValueError) as error:  # ValueError: a malformed address
        raise InputError(f"{url} cannot be downloaded ({error}); expected weights: check the address") from error


def check_sha256(files: Sequence[Path], expected: str | None = None) -> str:
    """SHA-256 of a file, in hexadecimal; for several files, of the lines that `sha256sum FILES` prints in their folder.

    Raises InputError where it is not the `expected` one, or a file cannot be read.
    """
    digests = []
    for path in files:
        with reading(path, "a file of weights: check the path"):
            digests.append(sha256_of([path]))
    found, what = digests[0], str(files[0])
    if len(files) > 1:
        lines = [f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True)]
        found = hashlib.sha256("".join(lines).encode()).hexdigest()
        what = f"{files[0].parent} ({', '.join(path.name for path in files)})"
    if expected is not None and found != expected.lower():
        raise InputError(
            f"{what} has the SHA-256 {found}; expected {expected}: remove it and get it again, or correct the SHA-256"
        )
    return found
