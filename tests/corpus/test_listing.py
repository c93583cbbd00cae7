"""Random trees of files and links: each file is listed once or set aside, as an independent walk counts them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import collections, listing
from hafm_jax.corpus.listing import list_audio

NAMES = ("a.mp3", "B.WAV", "c.wave", "d.aif", "e.jpg", "f", ".g.mp3", "h i.flac", "é.ogg", "vocals.Mp3")
FOLDERS = ("album", "Album", ".trash", "x.mp3")
KINDS = ("folder", "folder", "file", "file", "empty", "copy", "link", "link", "dead link", "pipe")
entries = st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.integers(0, 99), st.sampled_from(NAMES + FOLDERS))


def build(folder: Path, drawn: list[tuple[str, int, int, str]]) -> Path:
    """A tree in folder/music; links of it may lead to folder/outside, to what is above them, and to nothing."""
    folders = [folder / "music", folder / "outside"]
    for path in folders:
        path.mkdir()
    paths = list(folders)
    for number, (kind, parent, other, name) in enumerate(drawn):
        path = folders[parent % len(folders)] / name
        if path.exists() or path.is_symlink():
            continue
        if kind == "folder":
            path.mkdir()
            folders.append(path)
        elif kind == "link":
            path.symlink_to(paths[other % len(paths)])
        elif kind == "dead link":
            path.symlink_to([folder / "nothing", path][other % 2])
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.write_bytes({"file": b"%d" % number, "empty": b"", "copy": b"the same"}[kind])
        paths.append(path)
    (folder / "music" / "always.mp3").write_bytes(b"always")
    return folder / "music"


def count(root: Path) -> tuple[Counter, Counter]:
    """(real paths of audio files, reasons of all others), by names and real paths alone."""
    audio, others = Counter(), Counter()
    todo, seen = [os.path.realpath(root)], {os.path.realpath(root)}
    while todo:
        folder = todo.pop()
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name[0] == ".":
                others["hidden"] += 1
            elif os.path.isdir(path):
                if os.path.realpath(path) in seen:
                    others["link to a listed folder"] += 1
                else:
                    seen.add(os.path.realpath(path))
                    todo.append(os.path.realpath(path))
            elif not os.path.exists(path):
                others["dead link"] += 1
            elif name.rpartition(".")[2].lower() not in ("mp3", "wav", "wave", "aif", "flac", "ogg"):
                others["not audio"] += 1
            elif not os.path.isfile(path):
                others["not a regular file"] += 1
            else:
                audio[os.path.realpath(path)] += 1
    return audio, others


@settings(max_examples=60)
@given(drawn=st.lists(entries, max_size=25))
def test_every_file_is_used_or_left_out_with_its_reason(tmp_path_factory, drawn):
    music = build(tmp_path_factory.mktemp("tree"), drawn)
    audio, others = count(music)
    found = list_audio(music)
    assert Counter(os.path.realpath(path) for path in found.audio) == audio
    assert Counter(one.reason for one in found.aside) == others
    assert len({one.file for one in found.aside}) == len(found.aside) and all(one.detail for one in found.aside)

    corpus = collections.find_tracks(music, "folder")
    assert corpus.found == sum(audio.values()) + sum(others.values())
    assert len(corpus.tracks) + len(corpus.unusable) + len(corpus.aside) == corpus.found
    contents = Counter(Path(path).read_bytes() for path in audio.elements())
    copies = sum(number - 1 for content, number in contents.items() if content)  # links to one file are copies too
    assert [one.reason for one in corpus.unusable] == ["duplicate"] * copies


def test_a_link_moves_no_file(tmp_path):
    """What is there itself keeps its place, whichever name sorts first; what a link leads to has the link's."""
    for name in ("m/album/1.mp3", "outside/2.mp3", "outside/deep/3.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    music = tmp_path / "m"
    (music / "a link").symlink_to("album")
    (music / "z").symlink_to(tmp_path / "outside")
    (music / "album" / "up").symlink_to("..")
    found = list_audio(music)
    assert [str(path.relative_to(music)) for path in found.audio] == ["album/1.mp3", "z/2.mp3", "z/deep/3.mp3"]
    assert [one.file for one in found.aside] == ["a link", "album/up"]


def test_a_link_to_the_songs_is_refused(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "songs" / "train").mkdir(parents=True)
    (tmp_path / "music" / "all").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"all/songs leads to .*songs; expected .* remove the link"):
        list_audio(tmp_path / "music", tmp_path / "songs")


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "a.mp3").touch()
    scandir, errors = os.scandir, [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]

    def refuse(folder):
        if os.fspath(folder).endswith("lost+found"):
            raise errors.pop(0)
        return scandir(folder)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    (aside,) = list_audio(tmp_path).aside
    assert (aside.file, str(aside.reason)) == ("lost+found", "folder without permission")
    with pytest.raises(InputError, match=r"lost\+found cannot be listed \(Input/output error\)"):
        list_audio(tmp_path)
