"""The memory that is left on this machine."""

from __future__ import annotations

from pathlib import Path


def host_free_bytes() -> int | None:
    """Of the machine or of this process's cgroup, whichever is less; None where neither is known."""
    found = []
    info = Path("/proc/meminfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        found.append(int(text) - int(used.read_text()))
    return min(found, default=None)
