from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.corpora import MUSDB_STEMS, fma_row, write_fma, write_musdb
from helpers.media import write_media
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hafm_jax.common.errors import InputError
from hafm_jax.corpus import collections, duplicates
from hafm_jax.corpus.reading import read_source


def touch(root: Path, name: str, content: str | None = None) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(name if content is None else content))
    return path


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


@given(validation=st.floats(0, 0.5), test=st.floats(0, 0.5), salt=st.integers(0, 1 << 30))
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
    ids = {collections._name(path.stem, path.name): path.read_text() for path in paths}
    kept = {content: min(i for i in ids if ids[i] == content) for content in ids.values()}
    assert [track.id for track in corpus.tracks] == sorted(kept.values())
    copies = {i: f"the same file as {kept[content]}" for i, content in ids.items() if kept[content] != i}
    assert {r.id: r.detail for r in corpus.unusable} == copies
    assert all(r.reason == "duplicate" for r in corpus.unusable)


# ---------------------------------------------------------------------------------------------------------------- FMA


def test_fma_keeps_splits_and_licences(tmp_path):
    metadata = write_fma(
        tmp_path,
        {
            2: fma_row("training", "Food", "Attribution-NonCommercial", bio='a "quoted",\n<p>long</p> text' * 20_000),
            5: fma_row("validation", "This, World"),
            1040: fma_row("test", "Naïve\nTitle", licence=""),
            1041: fma_row("", "no split"),
            99: fma_row("training", "no file"),
        },
    )
    music = tmp_path / "fma_large"
    for name in ("000/000002", "000/000005", "001/001040", "001/001041", "001/001042"):
        touch(music, f"{name}.mp3")
    touch(music, "checksums")
    touch(music, "000/readme.mp3")
    corpus = collections.find_tracks(music, "fma", metadata)
    assert [(t.id, t.split, t.licence, t.facts) for t in corpus.tracks] == [
        ("fma_000002", "train", "Attribution-NonCommercial", {"artist": "The Band", "title": "Food"}),
        ("fma_000005", "validation", "CC BY", {"artist": "The Band", "title": "This, World"}),
        ("fma_001040", "test", None, {"artist": "The Band", "title": "Naïve\nTitle"}),
    ]
    assert [r.id for r in corpus.unusable] == ["fma_001041", "fma_001042"]
    assert {(r.split, r.reason) for r in corpus.unusable} == {(None, "not in the metadata")}
    assert collections.find_tracks(music, "fma", metadata / "tracks.csv").tracks == corpus.tracks


def test_a_copy_across_splits_of_fma_is_left_out(tmp_path):
    metadata = write_fma(tmp_path, {2: fma_row("training", "a"), 3: fma_row("test", "b")})
    for number in (2, 3):
        touch(tmp_path / "fma", f"000/{number:06d}.mp3", "the same")
    corpus = collections.find_tracks(tmp_path / "fma", "fma", metadata)
    ((track,), (copy,)) = corpus.tracks, corpus.unusable
    assert track.id == "fma_000002"
    assert list(copy.facts().values()) == ["fma_000003", "test", "duplicate", "the same file as fma_000002"]


# -------------------------------------------------------------------------------------------------------------- MUSDB


def test_musdb_gives_vocals_against_the_sum_of_the_rest(tmp_path):
    stems = write_musdb(tmp_path, "train", "Some One - A Song", seed=1)
    write_musdb(tmp_path, "train", "Leaf - Summerghost", seed=2)
    write_musdb(tmp_path, "test", "AM Contra - Heart Peripheral", seed=3)
    corpus = collections.find_tracks(tmp_path, "musdb")
    assert sorted((t.facts["artist"], t.facts["title"], t.split) for t in corpus.tracks) == [
        ("AM Contra", "Heart Peripheral", "test"),
        ("Leaf", "Summerghost", "validation"),
        ("Some One", "A Song", "train"),
    ]
    track = next(t for t in corpus.tracks if t.split == "train")
    assert "academic" in track.licence
    vocals, instrumental, rate_hz = collections.read_stems(track)
    assert rate_hz == 44_100
    np.testing.assert_array_equal(vocals, stems["vocals"].T.astype(np.float32))
    np.testing.assert_allclose(vocals + instrumental, stems["mixture"].T, atol=1e-6)


def test_the_usual_validation_tracks_are_fourteen_of_the_training_ones(tmp_path):
    for name in sorted(collections.MUSDB_VALIDATION)[:2]:
        touch(tmp_path, f"test/{name}/mixture.wav")
        touch(tmp_path, f"train/{name}, live/mixture.wav")
    assert len(collections.MUSDB_VALIDATION) == 14
    assert {t.split for t in collections.find_tracks(tmp_path, "musdb").tracks} == {"train", "test"}


@pytest.mark.parametrize("codec, options", [("alac", {}), ("aac", {"bit_rate": 256_000})])  # lossless; the edition's
def test_the_mp4_edition_holds_the_same(tmp_path, codec, options):
    name = "Johnny Lokke - Promises & Lies"
    stems = write_musdb(tmp_path / "hq", "train", name)
    container = tmp_path / "mp4" / "train" / f"{name}.stem.mp4"
    container.parent.mkdir(parents=True)
    write_media(container, [stems[stem].T for stem in MUSDB_STEMS], 44_100, codec, **options)

    (hq,), (mp4,) = (collections.find_tracks(tmp_path / edition, "musdb").tracks for edition in ("hq", "mp4"))
    assert (hq.id, hq.split, hq.licence, hq.facts) == (mp4.id, mp4.split, mp4.licence, mp4.facts)
    assert mp4.split == "validation"
    assert read_source(mp4.mixture, max_s=0.05)[0].shape == (2, 2205)
    (true, found) = ([read_source(source)[0] for source in track.sources] for track in (hq, mp4))
    if codec == "alac":
        np.testing.assert_array_equal(found, true)
        np.testing.assert_array_equal(collections.read_stems(hq).instrumental, collections.read_stems(mp4).instrumental)
        return
    # AAC changes noise, but each stream stays itself, at its place to the sample.
    for number, audio in enumerate(found):
        assert audio.shape == true[number].shape == (2, 4410)
        alike = [np.corrcoef(audio[0], other[0])[0, 1] for other in true]
        shifted = [np.corrcoef(np.roll(audio[0], by), true[number][0])[0, 1] for by in (-1, 1)]
        assert np.argmax(alike) == number and alike[number] > 3 * max(shifted)


def test_stems_of_nearly_one_length_are_cut_and_others_refused(tmp_path):
    write_musdb(tmp_path, "train", "x")
    (track,) = collections.find_tracks(tmp_path, "musdb").tracks
    bass = tmp_path / "train" / "x" / "bass.wav"
    soundfile.write(bass, np.zeros((4300, 2)), 44_100)
    stems = collections.read_stems(track)
    assert stems.vocals.shape == stems.instrumental.shape == (2, 4300)
    for shape, rate_hz in [((2000, 2), 44_100), ((4410, 1), 44_100), ((4410, 2), 48_000)]:
        soundfile.write(bass, np.zeros(shape), rate_hz)
        with pytest.raises(InputError, match="one shape"):
            collections.read_stems(track)
    bass.unlink()
    with pytest.raises(InputError, match="does not exist"):
        collections.read_stems(track)


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


def test_a_table_of_something_else_is_refused(tmp_path):
    music = tmp_path / "fma"
    touch(music, "000/000002.mp3")
    metadata = write_fma(tmp_path, {}, [("track", "title"), ("artist", "name")])
    with pytest.raises(InputError, match="no column set split, track license"):
        collections.find_tracks(music, "fma", metadata)
    (metadata / "tracks.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot be read"):
        collections.find_tracks(music, "fma", metadata)


def test_two_files_of_one_number_are_refused(tmp_path):
    touch(tmp_path / "fma", "000/000002.mp3", "a")
    touch(tmp_path / "fma", "001/000002.mp3", "b")
    with pytest.raises(InputError, match="both track fma_000002"):
        collections.find_tracks(tmp_path / "fma", "fma", write_fma(tmp_path, {2: fma_row("training", "a")}))
    with pytest.raises(InputError, match="is not a folder"):
        collections.find_tracks(tmp_path / "absent", "folder")
