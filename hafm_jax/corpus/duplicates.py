"""Files of equal bytes, found without reading most of them whole.

The same recording in two encodings is not noticed.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

COMPARED_BYTES = 1 << 16  # from a file's middle: tells nearly all files of one size apart
READERS = 8  # files compared at the same time: on a network disk most of the time is spent waiting


def find_duplicates(files: Mapping[str, Path]) -> dict[str, str]:
    """Name -> file. Returns, for each file that equals an earlier one, its name -> the name of the first such file.

    A file that cannot be read, or is empty, equals no other.
    """
    alike = list(files)  # files that equal another one in all that has been compared
    keys: dict[str, tuple] = {name: () for name in alike}
    with ThreadPoolExecutor(READERS) as pool:
        for measure in (_size, _middle, _whole):  # each costs more than the one before, and is needed for fewer files
            values = pool.map(functools.partial(_measured, measure), alike, [files[name] for name in alike])
            values = tqdm(values, "comparing files", len(alike), unit="file", leave=False)
            for name, value in zip(alike, values, strict=True):
                keys[name] += (value,)
            number = Counter(keys[name] for name in alike)
            alike = [name for name in alike if number[keys[name]] > 1]
    first: dict[tuple, str] = {}
    return {name: one for name in alike if (one := first.setdefault(keys[name], name)) != name}


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, (_size(path) - COMPARED_BYTES) // 2))
        return hashlib.sha256(file.read(COMPARED_BYTES)).digest()


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _measured(measure: Callable[[Path], int | bytes], name: str, path: Path) -> int | bytes | str:
    try:
        return measure(path) or name  # empty files have nothing in common but their size
    except OSError:
        return name
