"""Does it work here? Prints what this machine has, and accompanies a test voice of two seconds with the demo model.

    hafm doctor

reads    nothing but the installed packages and the caches
writes   only to the cache of compiled programs, as hafm sample does

The exit code is 0 where a voice can be accompanied.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hafm_jax.common.errors import InputError, OutputError, first_line, install, run_command

if TYPE_CHECKING:
    import numpy as np

PACKAGES = ("av", "soundfile", "soxr", "scipy", "safetensors")  # beside those of common/machine.py
FOR_DEVELOPERS = ("dev", "docs")  # extras that no command needs
VOICE_S = 2.0
VOICE_HZ = 220.0  # A3


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="hafm doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def extras() -> dict[str, list[str]]:
    """Extra -> its packages that are missing, by the metadata of the installed hafm_jax; {} where it has none."""
    if not _is_installed("hafm_jax"):
        return {}
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires("hafm_jax") or []:
        named = re.match(r"([\w.-]+).*; *extra *== *[\"']([\w-]+)[\"']", requirement)
        if named and named[2] not in FOR_DEVELOPERS:
            package, extra = named.groups()
            missing.setdefault(extra, []).extend([] if _is_installed(package) else [package])
    return missing


def _cache(folder: Path) -> str:
    from hafm_jax.common.outputs import check_folder

    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            pass  # another process has just replaced it
    text = f"{folder}, {sum(sizes) / 1e6:.1f} MB in {len(sizes)} files"
    try:
        check_folder(folder)
    except OutputError:
        text += "; it cannot be written, so each process compiles again: set XDG_CACHE_HOME to another folder"
    return text


def facts() -> Iterator[tuple[str, str]]:
    """(what, what was found). Raises InputError where JAX has no device."""
    import jax

    from hafm_jax.common.cache import cache_directory
    from hafm_jax.common.machine import this_machine
    from hafm_jax.model import memory
    from hafm_jax.model.weights import missing_kernels

    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise InputError(
            f"JAX finds no device ({first_line(error)}); expected a CPU, GPU or TPU: check JAX_PLATFORMS and the "
            "installation of jax"
        ) from error
    machine = this_machine(*PACKAGES)
    yield "python", machine["python"]
    yield "packages", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    vectors = f", {machine['vectors']}" if machine["vectors"] else ""
    yield "machine", f"{machine['cpu']}{vectors}, {machine['cores']} cores"
    yield "device", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    free = memory.available_bytes()
    yield "memory", "unknown" if free is None else f"{free / 1e9:.1f} GB free on the device"
    reason = missing_kernels()
    yield "kernels", f"not used, so decoding is slower on a CPU: {reason}" if reason else "compiled and loaded"
    yield "cache", _cache(Path(jax.config.jax_compilation_cache_dir or cache_directory()))
    found = extras()
    for extra, missing in found.items():
        yield f"[{extra}]", f"{install(extra)} brings {', '.join(missing)}" if missing else "installed"
    if not found:
        yield "extras", "unknown, since this copy of hafm_jax is not installed"


def sung_tone(rate_hz: int) -> np.ndarray:
    """A sung tone, float32 [1, S]: a few harmonics with vibrato."""
    import numpy as np

    t = np.arange(round(VOICE_S * rate_hz)) / rate_hz
    phase = 2 * np.pi * (VOICE_HZ * t + 0.3 * np.sin(2 * np.pi * 5.5 * t))
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, 9)).astype(np.float32)[None]


def accompany() -> str:
    """How long a band for the test voice takes. Raises InputError where there is none, or no sound in it."""
    import numpy as np

    import hafm_jax
    from hafm_jax.streams import CELLS_PER_S, CODEC_SAMPLE_RATE_HZ

    began_s = time.monotonic()
    model = hafm_jax.load()
    model.compile(round(VOICE_S * CELLS_PER_S))
    ready_s = time.monotonic()
    band = model((sung_tone(CODEC_SAMPLE_RATE_HZ), CODEC_SAMPLE_RATE_HZ)).instrumental
    seconds = time.monotonic() - ready_s
    if not np.isfinite(band).all() or not band.any():
        raise InputError("the demo's band for a test voice is silent or not finite; expected sound: install jax again")
    return f"{VOICE_S:g} s of band in {seconds:.1f} s, after {ready_s - began_s:.1f} s to load and compile"


def main(argv: Sequence[str] | None = None) -> None:
    parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the table is the output, not the device's log
    for name, found in facts():
        print(f"{name:12}{found}")
    print(f"{'sound':12}{accompany()}")


if __name__ == "__main__":
    run_command(main)
