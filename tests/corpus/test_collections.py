from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from helpers.corpora import fma_row, touch, write_fma
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import collections, duplicates
from hafm_jax.corpus.tracks import track_id


def places(corpus: collections.Corpus, music: Path) -> dict[str, tuple[str, str]]:
    return {str(t.mixture.path.relative_to(music)): (t.id, t.split) for t in corpus.tracks}


# ------------------------------------------------------------------------------------------------------ plain folders

letters = st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs", "Cc"])
file_name = st.text(letters, max_size=12).map(lambda text: f"x{text}.mp3")
file_names = st.lists(file_name, min_size=1, max_size=12, unique=True)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=file_names, num_before=st.integers(1, 12), shares=st.sampled_from([(0.05, 0.05), (0.3, 0.4), (0, 1)]))
def test_adding_files_moves_none(tmp_path_factory, names, num_before, shares):
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for name in names[:num_before]:
        touch(one, f"album/{name}")
    for name in names:
        touch(other, f"album/{name}")
    before = places(collections.find_tracks(one, "folder", None, *shares), one)
    after = places(collections.find_tracks(other, "folder", None, *shares), other)
    assert len(after) == len(names) and before.items() <= after.items()
    ids = [track_id for track_id, _ in after.values()]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"\w{1,64}", track_id, re.ASCII) for track_id in ids)


shares = st.floats(0, 0.5).map(lambda share: round(share, 4))


@given(validation=shares, test=shares, salt=st.integers(0, 1 << 30))
@settings(max_examples=20)
def test_splits_have_the_shares_asked_for(validation, test, salt):
    number = 2000
    splits = [collections.split_of(f"{salt}_{k}", validation, test) for k in range(number)]
    for split, share in {"validation": validation, "test": test, "train": 1 - validation - test}.items():
        # Five standard deviations of a normal distribution, exact for small shares too.
        assert binomtest(splits.count(split), number, share).pvalue > 5.7e-7


def test_another_share_for_validation_leaves_the_test_split():
    def test_split(validation_share):
        return {k for k in range(500) if collections.split_of(str(k), validation_share, 0.1) == "test"}

    assert test_split(0.0) == test_split(0.5) != set()


def test_a_folder_is_searched_for_audio_alone(tmp_path):
    for name in ("b/song.MP3", "a.flac", "b/c/d.m4a", "cover.jpg", "._a.flac", ".trash/e.wav", "notes.txt"):
        touch(tmp_path, name)
    corpus = collections.find_tracks(tmp_path, "folder")
    assert sorted(places(corpus, tmp_path)) == ["a.flac", "b/c/d.m4a", "b/song.MP3"]
    assert {one.file: str(one.reason) for one in corpus.aside} == {
        **{"cover.jpg": "not audio", "notes.txt": "not audio"},
        **{"._a.flac": "hidden", ".trash": "hidden"},
    }
    assert corpus.tracks == sorted(corpus.tracks, key=lambda track: track.id) and not corpus.unusable


def test_names_that_differ_outside_letters_and_digits_are_different_tracks(tmp_path):
    for name in ("a b.mp3", "a_b.mp3", "a-b.mp3", "1/a b.mp3", "a b.wav", "日本.mp3", "中国.mp3"):
        touch(tmp_path, name)
    touch(tmp_path, os.fsdecode(b"caf\xe9.mp3"))  # Latin-1, as old collections have it
    assert len({track.id for track in collections.find_tracks(tmp_path, "folder").tracks}) == 8


# --------------------------------------------------------------------------------------------------------- duplicates


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["", "aaaa", "aaab", "baaa", "abaa", "aaaaa", "abbaa"]), min_size=1, max_size=10))
def test_equal_files_are_one_track(tmp_path_factory, contents):
    music = tmp_path_factory.mktemp("music")
    paths = [touch(music, f"{k}.mp3", content) for k, content in enumerate(contents)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(duplicates, "COMPARED_BYTES", 2)  # so that some files differ outside their middle alone
        corpus = collections.find_tracks(music, "folder")
    ids = {track_id(path.stem, path.name): path.read_text() for path in paths}
    ids = {i: content or f"empty {i}" for i, content in ids.items()}  # which are no copies of each other
    kept = {content: min(i for i in ids if ids[i] == content) for content in ids.values()}
    assert [track.id for track in corpus.tracks] == sorted(kept.values())
    copies = {i: f"the same file as {kept[content]}" for i, content in ids.items() if kept[content] != i}
    assert {r.id: r.detail for r in corpus.unusable} == copies
    assert all(r.reason == "duplicate" for r in corpus.unusable)


# -------------------------------------------------------------------------------------------------------- every layout

PLACES = {  # parts of paths that belong to the layout, and some that nearly do
    "musdb": [
        ("train", "Test", "validation", ".train"),
        ("A - B", "c", "d.stem.mp4", ".e"),
        ("mixture.wav", "Vocals.WAV", "vocals.flac", "drums.wav", "bass.mp3", "notes.txt", "mix.wav", ".vocals.wav"),
    ],
    "fma": [("000", "001", ".git"), ("000002.mp3", "3.MP3", "x.mp3", "000005.flac", "a.txt", "more"), ("000007.mp3",)],
}


@settings(max_examples=60)
@given(data=st.data(), layout=st.sampled_from(sorted(PLACES)))
def test_every_file_is_of_one_track_or_set_aside(tmp_path_factory, data, layout):
    parts = PLACES[layout]
    names = [st.tuples(*map(st.sampled_from, parts[:depth])).map("/".join) for depth in range(1, len(parts) + 1)]
    drawn = data.draw(st.sets(st.one_of(names), min_size=1, max_size=20))
    folder = tmp_path_factory.mktemp(layout)
    present = {name for name in drawn if not any(other.startswith(f"{name}/") for other in drawn)}
    for name in present:
        touch(folder / "music", name)
    found = {re.sub(r"(^|/)(\.[^/]*)/.*", r"\1\2", name) for name in present}  # a hidden folder is not looked into
    metadata = write_fma(folder, {2: fma_row("training", "a"), 3: fma_row("odd", "b")}) if layout == "fma" else None
    try:
        corpus = collections.find_tracks(folder / "music", layout, metadata)
    except InputError as error:
        assert "holds no track" in str(error) or "are both track" in str(error)
        return
    of_tracks = [path for track in corpus.tracks for path in {source.path for source in track.sources} if path.exists()]
    aside = [one.file for one in corpus.aside]
    assert corpus.found == len(found) == len(of_tracks) + len(corpus.unusable) + len(aside)
    used = [path.relative_to(folder / "music").as_posix() for path in of_tracks]
    assert len(set(used + aside)) == len(used + aside) and set(used + aside) <= found


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "layout, metadata, shares, found",
    [
        ("tape", None, (0.1, 0.1), "layout 'tape'"),
        ("folder", None, (0.7, 0.7), "shares"),
        ("folder", None, (-0.1, 0.1), "shares"),
        ("folder", "fma_metadata", (0.1, 0.1), "with metadata"),
        ("fma", None, (0.1, 0.1), "without metadata"),
        ("fma", "absent", (0.1, 0.1), "cannot be read"),
        ("folder", None, (0.1, 0.1), "holds no track"),
        ("musdb", None, (0.1, 0.1), "holds no track"),
        ("fma", "fma_metadata", (0.1, 0.1), "holds no track"),
    ],
)
def test_arguments_without_a_collection_are_refused(tmp_path, layout, metadata, shares, found):
    write_fma(tmp_path, {2: fma_row("training", "a")})
    music = tmp_path / "music"
    music.mkdir()
    with pytest.raises(InputError, match=found) as caught:
        collections.find_tracks(music, layout, metadata and tmp_path / metadata, *shares)
    assert "expected" in str(caught.value)


def test_two_files_of_one_number_are_refused(tmp_path):
    touch(tmp_path / "fma", "000/000002.mp3", "a")
    touch(tmp_path / "fma", "001/000002.mp3", "b")
    with pytest.raises(InputError, match="both track fma_000002"):
        collections.find_tracks(tmp_path / "fma", "fma", write_fma(tmp_path, {2: fma_row("training", "a")}))
    with pytest.raises(InputError, match="is not a folder"):
        collections.find_tracks(tmp_path / "absent", "folder")
