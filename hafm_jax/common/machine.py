"""The machine and the code behind a result: every file of results holds this record."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("hafm_jax", "jax", "jaxlib", "flax", "numpy")
ROOT = Path(__file__).parents[2]  # the repository, where the package is not installed elsewhere
# Flags of /proc/cpuinfo, the widest vectors first.
VECTOR_FLAGS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve2": "SVE2", "sve": "SVE", "asimd": "NEON"}


def this_machine(*packages: str) -> dict[str, Any]:
    """A record for JSON.

    cpu        the processor's name
    vectors    the widest vector extension that Linux reports for it, or None
    cores      logical cores of the machine
    device     JAX's device kind, "cpu" without an accelerator
    python     its version
    versions   of PACKAGES and of `packages`, those that are installed: name -> version
    commit     of the repository that this file is in, abbreviated; None outside a repository
    dirty      whether a tracked file differs from that commit; None outside a repository
    """
    cpu, vectors = _processor()
    return {
        "cpu": cpu,
        "vectors": vectors,
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: version for name in (*PACKAGES, *packages) if (version := _version(name))},
        "commit": _git("rev-parse", "--short", "HEAD") or None,
        "dirty": None if (changes := _git("status", "--porcelain", "--untracked-files=no")) is None else bool(changes),
    }


def _processor() -> tuple[str, str | None]:
    """(name, vector extension) from /proc/cpuinfo, which only Linux has."""
    info = Path("/proc/cpuinfo")
    pairs = (line.partition(":")[::2] for line in (info.read_text() if info.exists() else "").splitlines())
    fields = {name.strip(): value.strip() for name, value in pairs}
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    vectors = next((name for flag, name in VECTOR_FLAGS.items() if flag in flags), None)
    return fields.get("model name") or platform.processor() or platform.machine(), vectors


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git prints about the repository; None without a repository or git."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return None
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
