"""Every file of a folder, once: what is listed as audio, and what is set aside with the reason.

Links are followed, of files and of folders, and each folder is listed once, however many links lead to it. A hidden
folder counts as one file and is not looked into: disks keep their snapshots and their trash there.
"""

from __future__ import annotations

import heapq
import os
import stat
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from hafm_jax.common.errors import InputError
from hafm_jax.corpus.reading import LIBSNDFILE_SUFFIXES, MEDIA_SUFFIXES

AUDIO_SUFFIXES = LIBSNDFILE_SUFFIXES | MEDIA_SUFFIXES | {".wave", ".bwf"}  # the last two are WAV


class Why(StrEnum):
    """Why a file belongs to no track."""

    HIDDEN = "hidden"
    DEAD_LINK = "dead link"
    LISTED_FOLDER = "link to a listed folder"
    CLOSED_FOLDER = "folder without permission"
    NOT_REGULAR = "not a regular file"
    NOT_AUDIO = "not audio"
    NOT_IN_LAYOUT = "not in the layout"


class Aside(NamedTuple):
    """A file that belongs to no track; or a folder that was not looked into, which counts as one."""

    file: str  # below the collection's folder
    reason: Why
    detail: str


class Listing(NamedTuple):
    """audio: files with a suffix of audio, sorted by path. aside: all others."""

    audio: list[Path]
    aside: list[Aside]


def list_audio(root: Path, keep_out_of: Path | None = None) -> Listing:
    """All files below `root`. A folder that is there itself goes before links to it, so a link moves no file.

    Raises InputError where a folder cannot be listed, but for want of permission, and where a link leads to the folder
    `keep_out_of`.
    """
    audio: list[Path] = []
    aside: list[Aside] = []

    def set_aside(path: str, reason: Why, detail: str) -> None:
        aside.append(Aside(Path(path).relative_to(root).as_posix(), reason, detail))

    forbidden = _identity(keep_out_of) if keep_out_of and keep_out_of.exists() else None
    listed: set[tuple[int, int]] = set()
    folders, links = [os.fspath(root)], list[str]()  # to look into: links only once there is no other folder left
    while folders or links:
        folder = folders.pop() if folders else heapq.heappop(links)
        try:
            identity = _identity(Path(folder))
            if identity == forbidden:
                raise InputError(
                    f"{folder} leads to {keep_out_of}; expected a collection without the songs that are made of it: "
                    "remove the link, or choose another --out"
                )
            if identity in listed:
                set_aside(folder, Why.LISTED_FOLDER, f"the same folder as another one: {os.path.realpath(folder)}")
                continue
            listed.add(identity)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except PermissionError as error:
            set_aside(folder, Why.CLOSED_FOLDER, f"it cannot be listed ({error.strerror})")
            continue
        except OSError as error:
            raise InputError(f"{folder} cannot be listed ({error.strerror}); expected a readable folder") from error
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1]
            kind, detail = _kind(entry)
            if entry.name.startswith("."):  # among them the ._NAME.mp3 that macOS leaves beside each NAME.mp3
                set_aside(entry.path, Why.HIDDEN, "its name begins with a dot")
            elif kind == stat.S_IFDIR and entry.is_symlink():
                heapq.heappush(links, entry.path)
            elif kind == stat.S_IFDIR:
                folders.append(entry.path)
            elif kind is None:
                set_aside(entry.path, Why.DEAD_LINK, detail)
            elif suffix.lower() not in AUDIO_SUFFIXES:
                set_aside(entry.path, Why.NOT_AUDIO, f"its name ends in {suffix}" if suffix else "it has no suffix")
            elif kind != stat.S_IFREG:
                set_aside(entry.path, Why.NOT_REGULAR, "a pipe, socket or device")
            else:
                audio.append(Path(entry.path))
    return Listing(sorted(audio), sorted(aside))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry) -> tuple[int | None, str]:
    """(type of the file that the entry is or leads to, ""), or (None, why there is none)."""
    try:
        if not entry.is_symlink() and (entry.is_dir() or entry.is_file()):  # known without asking the disk again
            return stat.S_IFDIR if entry.is_dir() else stat.S_IFREG, ""
        return stat.S_IFMT(os.stat(entry.path).st_mode), ""
    except OSError as error:
        target = f"it leads to {os.readlink(entry.path)}" if os.path.islink(entry.path) else "it is gone"
        return None, f"{target} ({error.strerror})"
