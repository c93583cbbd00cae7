"""What every result file says of where it comes from."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import jax

PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def machine(*packages: str) -> dict:
    """Processor, JAX device, cores, versions (of `packages` too, where installed) and the commit, JSON-able."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    ).stdout.strip()
    installed = {d.name for d in metadata.distributions()}
    versions = {name: metadata.version(name) for name in (*PACKAGES, *packages) if name in installed}
    return {
        "cpu": cpu,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit,
    }
