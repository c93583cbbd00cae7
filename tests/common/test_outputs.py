from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.full_disk import files_of_at_most
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common import outputs
from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.common.files import write_bytes

# ------------------------------------------------------------------------------------------- outputs that are inputs


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A file `a/in.wav` with other names: links of both kinds, and links to its folder and to that one's parent."""
    root = tmp_path_factory.mktemp("place")
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "in.wav").write_text("la")
    (root / "a" / "other.wav").write_text("lo")
    os.link(root / "a" / "in.wav", root / "hard.wav")
    (root / "soft.wav").symlink_to("a/in.wav")
    (root / "a" / "b" / "twice.wav").symlink_to("../../soft.wav")
    (root / "folder").symlink_to("a", target_is_directory=True)
    (root / "a" / "b" / "up").symlink_to(root, target_is_directory=True)
    return root


STEPS = {  # folder -> (what can be added to a path there, the folder that it leads to)
    "root": [("a", "a"), ("folder", "a"), (".", "root"), (f"..{os.sep}" + "{root}", "root")],
    "a": [("b", "b"), (".", "a"), ("..", "root")],
    "b": [("up", "root"), ("..", "a"), (".", "b")],
}
NAMES = {"root": ["hard.wav", "soft.wav"], "a": ["in.wav"], "b": ["twice.wav"]}  # of the one file


@st.composite
def spellings(draw) -> str:
    """A path of the one file below the fixture `place`, for its folder."""
    folder, parts = "root", []
    for _ in range(draw(st.integers(0, 6))):
        step, folder = draw(st.sampled_from(STEPS[folder]))
        parts.append(step)
    return os.sep.join([*parts, draw(st.sampled_from(NAMES[folder]))])


@given(output=spellings(), given_as=spellings(), relative=st.booleans())
def test_a_file_is_known_by_any_of_its_names(place, output, given_as, relative):
    root = Path(os.path.relpath(place)) if relative else place
    written, read = (Path(f"{root}{os.sep}{text.format(root=place.name)}") for text in (output, given_as))
    assert read.read_text() == "la" and written.samefile(read)  # the drawn paths are what they should be
    with pytest.raises(InputError, match=r"is --vocal .*; expected another place"):
        outputs.check_apart([written.with_name("new.wav"), written], {"--vocal": read})
    for other in ("new.wav", "other.wav"):
        outputs.check_apart([place / "a" / other], {"--vocal": read, "--protocol": None})


def test_folders_are_compared_with_those_around_them(place, monkeypatch):
    monkeypatch.chdir(place)
    for output, read, relation in (
        ("a", "folder", "is"),
        ("a/new", "folder", "is in"),
        ("folder/b/new/newer", "a", "is in"),
        ("a/b/up/a/x", "a", "is in"),
        ("a", "a/b", "holds"),
        ("folder", "a/in.wav", "holds"),
        (".", "a/b", "holds"),
    ):
        with pytest.raises(InputError, match=f"{output} {relation} --songs {read}"):
            outputs.check_apart([Path(output)], {"--songs": Path(read)})
    for output, read in (("a/new", "a/b"), ("new", "a"), ("a/b", "a/c"), ("abc", "ab")):
        outputs.check_apart([Path(output)], {"--songs": Path(read)})


def test_a_link_among_the_inputs_is_not_replaced(tmp_path):
    (tmp_path / "songs").mkdir()
    (tmp_path / "elsewhere").touch()
    (tmp_path / "songs" / "link").symlink_to("../elsewhere")
    with pytest.raises(InputError, match="is in --songs"):
        outputs.check_apart([tmp_path / "songs" / "link"], {"--songs": tmp_path / "songs"})


def test_what_another_wrote_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    outputs.check_own(out, "run.json", ["report.json"])  # there is none
    out.mkdir()
    (out / "notes.txt").touch()
    outputs.check_own(out, "run.json", ["report.json"])
    with pytest.raises(InputError, match=r"has notes\.txt, but no run\.json"):
        outputs.check_own(out, "run.json")
    (out / "report.json").touch()
    with pytest.raises(InputError, match=r"has report\.json, but no run\.json.*another --workdir"):
        outputs.check_own(out, "run.json", ["report.json"], "--workdir")
    (out / "run.json").touch()
    outputs.check_own(out, "run.json", ["report.json"])
    outputs.check_own(out, "run.json")


# --------------------------------------------------------------------------------------- outputs that can be written

names = st.one_of(
    st.binary(min_size=1, max_size=300), st.integers(1, 300).map(lambda n: b"x" * n), st.text("é鼓🎵").map(str.encode)
).filter(lambda name: name not in (b"", b".", b"..") and not {0, ord("/")} & set(name))


@settings(max_examples=200)
@given(name=names)
def test_a_name_is_accepted_where_it_can_be_written(tmp_path_factory, name):
    """Names that are no text, and names of every length: the unfinished file's is not longer than allowed."""
    path = tmp_path_factory.getbasetemp() / os.fsdecode(name)
    try:
        path.write_bytes(b"")  # what the file system says of it
        path.unlink()
    except OSError as error:
        with pytest.raises(OutputError) as refused:
            outputs.check_files([path])
        assert error.strerror in str(refused.value)
    else:
        outputs.check_files([path])
        assert not os.path.lexists(path)
        write_bytes(path, b"x")
        outputs.check_files([path])
        assert path.read_bytes() == b"x"
        path.unlink()


def nowhere(root: Path) -> Path:
    """A folder in which neither root nor anyone else can make a file."""
    if os.getuid() == 0:
        return Path("/proc/self")
    root.mkdir(exist_ok=True)
    root.chmod(0o500)
    return root


def test_places_that_cannot_be_written_are_named_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop").symlink_to("loop")
    shut = nowhere(tmp_path / "shut")
    before = sorted(tmp_path.iterdir())
    for name, reason in (
        (tmp_path / "none" / "a.wav", "none does not exist"),
        (tmp_path / "file" / "a.wav", "Not a directory"),
        (tmp_path, "it is a folder"),
        (tmp_path / "pipe.wav", "it is not a regular file"),
        (tmp_path / "loop" / "a.wav", "symbolic links"),
        (shut / "a.wav", "No such file|Permission denied"),
    ):
        with pytest.raises(InputError, match=f"cannot write .*({reason})"):
            outputs.check_files([tmp_path / "fine.wav", name])
    for folder in (tmp_path / "file" / "new", tmp_path / "file", tmp_path / ("x" * 300), shut / "new"):
        with pytest.raises(OutputError, match="cannot write"):
            outputs.check_folder(folder)
    outputs.check_folder(tmp_path / "new" / "newer")
    with files_of_at_most(0):
        for check, path in ((outputs.check_folder, tmp_path / "new"), (outputs.check_files, [tmp_path / "a.wav"])):
            with pytest.raises(OutputError, match="File too large"):
                check(path)
    assert sorted(tmp_path.iterdir()) == before


@given(free=st.integers(0, 10**12), needed=st.integers(0, 10**12), counts=st.booleans())
def test_room_is_compared_with_what_is_needed(tmp_path_factory, free, needed, counts):
    path = tmp_path_factory.getbasetemp() / "new" / "newer"
    with pytest.MonkeyPatch.context() as monkeypatch:
        usage = shutil.disk_usage(path.parents[1])._replace(free=free, total=2 * 10**12 if counts else 0)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        if needed > free and counts:
            with pytest.raises(OutputError, match=r"GB are needed, and .* GB left"):
                outputs.check_room(path, needed)
        else:
            outputs.check_room(path, needed)
