"""Centroids out of a pickled scikit-learn k-means, without running the pickle.

A pickle is a program that may import and call anything, and loading it runs it. People have their centroids in such
files all the same (`km_500.bin`, written by joblib or pickle). Here the instructions are read by the standard library's
disassembler and followed on paper: what would be imported is noted by name, what would be called is noted with its
arguments, and nothing else happens. Of what then lies there, the array of centroids is read, in each of the three forms
that NumPy and joblib have written since Python 3.

Axes: K clusters, D feature dimensions.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
import re
import struct
import zlib
from typing import Any

import numpy as np

MAX_BYTES = 1 << 30  # of what a compressed file may become; 500 centroids of 1024 numbers are 2 MB
MARK = object()
PUSH_ARGUMENT = {  # instructions that put the number or the text that they hold on the stack
    code.name for code in pickletools.opcodes if code.arg and code.stack_after and not code.stack_before
} - {"GLOBAL", "GET", "BINGET", "LONG_BINGET", "PERSID", "EXT1", "EXT2", "EXT4"}
PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
RECONSTRUCT = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}  # pickle protocols 0 to 4
FROM_BUFFER = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}  # protocol 5
JOBLIB_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"  # its array's bytes follow in the file


class UnreadableError(ValueError):
    """The file is no pickled k-means that this module reads; the message says what it is instead."""


@dataclasses.dataclass(eq=False, repr=False)
class Name:
    """Something that loading would import: a function or a class."""

    name: str


@dataclasses.dataclass(eq=False, repr=False)
class Called:
    """What loading would get from calling `name` and giving the result its `state`."""

    name: str
    arguments: tuple
    state: Any = None


def cluster_centers(data: bytes) -> np.ndarray:
    """The bytes of a pickle or joblib file, plain or compressed by zlib or gzip -> its centroids, float [K, D].

    The file holds a KMeans or MiniBatchKMeans, or nothing but an array. Raises UnreadableError on anything else.
    """
    try:
        value = _follow(_decompressed(data))
        if isinstance(value, Called) and value.name in RECONSTRUCT | FROM_BUFFER:
            return _array(value)
        if isinstance(value, np.ndarray):
            return value
        name = _class_name(value)
        if not re.fullmatch(r"sklearn\.cluster\.[\w.]+\.(MiniBatch)?KMeans", name):
            raise UnreadableError(f"it holds a {name[:80]}, not a scikit-learn KMeans or MiniBatchKMeans")
        if not isinstance(value.state, dict) or "cluster_centers_" not in value.state:
            raise UnreadableError(f"its {name} has no cluster_centers_: it was not fitted")
        return _array(value.state["cluster_centers_"])
    except UnreadableError:
        raise
    # a damaged file breaks anywhere: in the disassembler, on an empty stack, in a shape that is no shape
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error) as error:
        raise UnreadableError(f"it is no whole pickle: {str(error)[:120]}") from error


def _decompressed(data: bytes) -> bytes:
    if data[:1] != b"\x78" and data[:2] != b"\x1f\x8b":
        return data
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib's header or gzip's
    try:
        out = stream.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise UnreadableError(f"it cannot be decompressed: {error}") from error
    if not stream.eof:
        raise UnreadableError(f"it is cut short, or larger than {MAX_BYTES >> 20} MiB when decompressed")
    return out


def _class_name(value: Any) -> str:
    if not isinstance(value, Called):
        return type(value).__name__
    if value.name in ("copyreg._reconstructor", "copy_reg._reconstructor"):  # classes in protocols 0 and 1
        return value.arguments[0].name
    return value.name


def _follow(data: bytes) -> Any:
    """What the pickle would leave on its stack, with `Called` and `Name` in place of everything that it would make."""
    file = io.BytesIO(data)
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        items = []
        while (item := stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def call(function: Any, arguments: Any) -> Called:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise UnreadableError("it calls something that has no name")
        return Called(function.name, arguments)

    # The disassembler reads the file as it goes, so it goes on behind the bytes that joblib put between instructions.
    for code, argument, _ in pickletools.genops(file):
        name = code.name
        if name in PUSH_ARGUMENT:
            stack.append(argument)
        elif name in PUSH_CONSTANT:
            stack.append(PUSH_CONSTANT[name])
        elif name == "MARK":
            stack.append(MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append([])
        elif name in ("LIST", "FROZENSET"):
            stack.append(above_mark())
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else above_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("DICT", "SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else above_mark()
            if name == "DICT":
                stack.append({})
            if isinstance(stack[-1], dict):  # attributes have names; other keys are not looked for
                stack[-1].update((k, v) for k, v in zip(items[::2], items[1::2], strict=True) if isinstance(k, str))
        elif name == "GLOBAL":
            stack.append(Name(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise UnreadableError("it imports something that has no name")
            stack.append(Name(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(call(function, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Called):
                stack[-1].state = state
                if stack[-1].name == JOBLIB_WRAPPER:
                    stack[-1] = _joblib_array(state, file)
        elif name in ("POP", "POP_MARK"):
            stack.pop() if name == "POP" else above_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise UnreadableError(f"it uses the instruction {name}, which no k-means needs")
    (value,) = stack
    return value


def _array(value: Any) -> np.ndarray:
    """An array as NumPy pickles it, or as joblib's wrapper already gave it."""
    if isinstance(value, np.ndarray):
        return value
    name = value.name if isinstance(value, Called) else type(value).__name__
    if name in RECONSTRUCT:
        _, shape, dtype, is_fortran, raw = value.state
    elif name in FROM_BUFFER:
        raw, dtype, shape, order = value.arguments
        is_fortran = order == "F"
    else:
        raise UnreadableError(f"a {name[:80]} stands where its array of centroids should be")
    if isinstance(raw, Called) and raw.name == "_codecs.encode":  # how Python 3 writes bytes in protocols 0 to 2
        raw = raw.arguments[0]
    if isinstance(raw, str):
        raw = raw.encode("latin-1")
    return _from_bytes(raw, _dtype(dtype), shape, is_fortran)


def _joblib_array(wrapper: Any, file: io.BytesIO) -> np.ndarray:
    """The array whose description joblib has just closed; `file` stands at its bytes, and behind them afterwards."""
    dtype, shape = _dtype(wrapper["dtype"]), wrapper["shape"]
    if wrapper.get("numpy_array_alignment_bytes") is not None:  # joblib 1.2 and later: a count, and so many to skip
        file.seek(file.read(1)[0], io.SEEK_CUR)
    return _from_bytes(file.read(_num_bytes(shape, dtype)), dtype, shape, wrapper["order"] == "F")


def _dtype(value: Any) -> np.dtype:
    """Real numbers only: a structure or an object would need its own pickle."""
    code = value.arguments[0] if isinstance(value, Called) and value.name == "numpy.dtype" else None
    if not isinstance(code, str) or not re.fullmatch("[fiub][1248]", code):
        raise UnreadableError("it has an array of something else than real numbers")
    return np.dtype(code).newbyteorder(value.state[1].replace("|", "="))


def _num_bytes(shape: Any, dtype: np.dtype) -> int:
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and 0 <= size < 1 << 40 for size in shape):
        raise UnreadableError("it has an array without a shape")
    return math.prod(shape) * dtype.itemsize


def _from_bytes(raw: Any, dtype: np.dtype, shape: Any, is_fortran: bool) -> np.ndarray:
    num_bytes = _num_bytes(shape, dtype)
    if not isinstance(raw, bytes | bytearray) or len(raw) != num_bytes:
        raise UnreadableError(f"its array of shape {shape} is not whole")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if is_fortran else "C")
