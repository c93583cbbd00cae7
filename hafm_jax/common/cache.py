"""The cache folder: programs that were compiled in one run let the next one start at once."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def cache_directory() -> Path:
    """The user's cache folder for this package; XDG_CACHE_HOME moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hafm_jax"


def use_compilation_cache() -> None:
    """Keep compiled programs on disk: in JAX_COMPILATION_CACHE_DIR where it is set, else in the package's folder."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
