"""Products for decoding on a CPU, where a step reads every weight and the whole KV cache for a handful of rows.

XLA's own product of two rows reads memory at half the machine's bandwidth, kernels.cc at nearly all of it. The
machine's C++ compiler compiles it for this processor at first use, into the folder of compiled programs. Where that
fails, `load` returns the reason, and decoding uses XLA's products.

Axes: R rows, T cached tokens, H heads, E head width, K codebooks, V vocabulary.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib

from hafm_jax.common.cache import cache_directory

SOURCE = Path(__file__).with_name("kernels.cc")
TARGETS = ("hafm_jax_product", "hafm_jax_attend")
# Ours; see docs/notebook.md. Up to so many rows a row's result is bit for bit that of the row alone, in any batch;
# beyond, XLA's product is used, which is then the faster one.
FEW_ROWS = 128
THIS_PROCESSOR = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
# For some processors GCC fuses a product with its sum in one tile and not in another: rows would differ in rounding.
FUSE_ALWAYS = "--param=avoid-fma-max-bits=0"
FLAGS = ("-std=c++17", "-O3", THIS_PROCESSOR, FUSE_ALWAYS, "-fPIC", "-shared", "-Wno-psabi")
FLAGS += tuple(os.environ.get("CXXFLAGS", "").split())


def _compiler() -> str | None:
    names = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _processor() -> str:
    """The processor that THIS_PROCESSOR means: machines of different kinds may share a home folder."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def library(compiler: str) -> Path:
    """The compiled kernels; they are built where they are missing, whole or not at all. Raises OSError and
    CalledProcessError."""
    parts = (SOURCE.read_bytes(), compiler, *FLAGS, jaxlib.__version__, platform.machine(), _processor())
    name = f"kernels-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.so"
    path = cache_directory() / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / name
            command = [compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE), "-o", str(built)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            built.replace(path)
    return path


@cache
def load() -> str | None:
    """Build (seconds, once a machine) and register the kernels. Returns None, or the reason why there are none."""
    if jax.default_backend() != "cpu":
        return f"they are for CPUs, the device is {jax.default_backend()}"
    compiler = _compiler()
    if compiler is None:
        return "no C++ compiler was found: install g++ or clang++, or set CXX"
    try:
        functions = ctypes.CDLL(str(library(compiler)))
    except subprocess.CalledProcessError as error:
        return f"{compiler} failed: {(error.stderr.strip() or 'no message').splitlines()[0]}"
    except OSError as error:
        return f"they cannot be kept or loaded: {error}; set XDG_CACHE_HOME to another folder"
    for target in TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(functions, target)), platform="cpu")
    return None


def pack(w: jax.Array, contracted: int = 1) -> jax.Array:
    """A weight [C, ..., N, ...] with its `contracted` first axes moved to the end, as `product` reads it."""
    return jnp.moveaxis(w, range(contracted), range(-contracted, 0))


def _product(x: jax.Array, stack: jax.Array, index: jax.Array | int) -> jax.Array:
    """x [R, C] by stack[index] of [K, N, C] -> float32 [R, N]."""
    out = jax.ShapeDtypeStruct((x.shape[0], stack.shape[1]), jnp.float32)
    return jax.ffi.ffi_call(TARGETS[0], out)(x.astype(jnp.float32), stack, jnp.asarray(index, jnp.int32))


def product(x: jax.Array, w: jax.Array, contracted: int = 1) -> jax.Array:
    """x [..., C] times a packed w [..., C] over the `contracted` last axes of both, in x's dtype."""
    width = math.prod(w.shape[-contracted:])
    rows, columns = x.reshape(-1, width), w.reshape(-1, width)
    y = _product(rows, columns[None], 0) if len(rows) <= FEW_ROWS else rows @ columns.T
    return y.reshape(*x.shape[:-contracted], *w.shape[:-contracted]).astype(x.dtype)


def head_logits(x: jax.Array, heads: jax.Array, codebook: jax.Array) -> jax.Array:
    """x [R, D] by the head of `codebook` (a scalar) of packed heads [K, V, D] -> float32 [R, V]."""
    return _product(x, heads, codebook)


def stored(x: jax.Array) -> jax.Array:
    """Keys or values as the cache holds them: bfloat16 as bits, since XLA on CPUs turns an update of bfloat16 into a
    conversion of the whole cache to float32 and back."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, filled: jax.Array) -> jax.Array:
    """Scaled q [R, H, 1, E] to the first `filled` of k and v [R, H, T, E] as `stored`, with bias [H, 1, T]
    -> [R, H, 1, E] in q's dtype."""
    out = jax.ShapeDtypeStruct((*q.shape[:2], q.shape[3]), jnp.float32)
    queries = q.reshape(out.shape).astype(jnp.float32)
    attended = jax.ffi.ffi_call(TARGETS[1], out)(queries, k, v, bias[:, 0], jnp.asarray(filled, jnp.int32))
    return attended.reshape(q.shape).astype(q.dtype)
