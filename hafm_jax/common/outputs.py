"""Check, before the work, what a command will write: that it can be written, and that nothing of the user's is lost."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.common.files import try_to_write, writing

Place = tuple[int, int]  # device and inode: one for all names of a file or folder


def check_apart(outputs: Iterable[Path], inputs: Mapping[str, Path | None], option: str = "--out") -> None:
    """Raises InputError where one of `outputs`, files or folders that the command of `option` replaces, is one of its
    inputs, is in one, or holds one; by whatever name: relative, through links, hard links, in other letters where the
    file system ignores case. `inputs`: the option of each, and its path, or None where it is not given."""
    for output in outputs:
        for name, given in inputs.items():
            if given is None:
                continue
            (replaced, above), (read, around) = _places(output), _places(given)
            if read is not None and read in above | {replaced}:
                relation = "is" if read == replaced else "is in"
            elif replaced is not None and replaced in around:
                relation = "holds"
            else:
                continue
            raise InputError(
                f"{output} {relation} {name} {given}, which is read; expected another place, so that nothing is lost: "
                f"choose another {option}"
            )


def _places(path: Path) -> tuple[Place | None, set[Place]]:
    """(place of a file or folder, None where there is none; places of the folders around it and around its link)."""
    real = Path(os.path.realpath(path))
    named = Path(os.path.realpath(path.parent))  # a link is replaced where its name is
    around = {place for folder in {named, *named.parents, *real.parents} if (place := _place(folder)) is not None}
    return _place(real), around


def _place(path: Path) -> Place | None:
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def check_own(folder: Path, marker: str, names: Collection[str] | None = None, option: str = "--out") -> None:
    """Raises InputError where `folder` holds some of `names` (None: anything at all), which the command of `option`
    replaces, without `marker`, the file that it writes first: then these are not of a former run."""
    there: list[str] = []
    with writing(folder), suppress(FileNotFoundError):
        there = [name for name in os.listdir(folder) if names is None or name in {*names, marker}]
    if there and marker not in there:
        raise InputError(
            f"{folder} has {', '.join(sorted(there)[:3])}, but no {marker}, so it is not of an earlier run; expected a "
            f"folder without what would be replaced: choose another {option}"
        )


def check_files(paths: Collection[Path]) -> None:
    """Raises InputError where one of the files `paths` is something else, and OutputError where it cannot be written.

    It makes nothing, and tries rather than asks: root has all permissions, and a read-only or full disk tells none.
    """
    for path in paths:
        with writing(path), suppress(FileNotFoundError):
            mode = path.stat().st_mode  # a name too long, a folder closed to us: an error
            if not stat.S_ISREG(mode):
                found = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
                raise InputError(f"cannot write {path}: it is {found}; expected the name of a file")
    for folder in {path.parent for path in paths}:
        if not folder.is_dir():
            raise OutputError(
                f"cannot write {next(p for p in paths if p.parent == folder)}: its folder {folder} does not exist; "
                "make it, or give another path"
            )
        with writing(next(p for p in paths if p.parent == folder)):
            try_to_write(folder)


def check_folder(path: Path) -> None:
    """Raises OutputError where the folder `path` cannot be made, or written in. It makes nothing."""
    with writing(path):
        with suppress(FileNotFoundError):
            path.stat()  # a name too long, a folder closed to us, a file among those above it: an error
        there = path.absolute()
        while not os.path.lexists(there):
            there = there.parent
        try_to_write(there)


def check_room(path: Path, needed_bytes: float) -> None:
    """Raises OutputError where the file system of `path`, which need not exist yet, has less room than it needs."""
    folder = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed_bytes:  # some file systems do not count: 0 in all
        raise OutputError(
            f"cannot write {path}: {needed_bytes / 1e9:.3g} GB are needed, and {folder} has {usage.free / 1e9:.3g} GB "
            "left; expected room for all of it: make room, or choose another place"
        )
