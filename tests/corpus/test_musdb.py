"""MUSDB18 in both editions, and with names as people change them."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.corpora import MUSDB_STEMS, touch, write_musdb
from helpers.media import write_media

from hafm_jax.corpus import collections, musdb
from hafm_jax.corpus.reading import read_source
from hafm_jax.corpus.tracks import read_stems


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
    vocals, instrumental, rate_hz = read_stems(track)
    assert rate_hz == 44_100
    np.testing.assert_array_equal(vocals, stems["vocals"].T.astype(np.float32))
    np.testing.assert_allclose(vocals + instrumental, stems["mixture"].T, atol=1e-6)


def test_the_usual_validation_tracks_are_fourteen_of_the_training_ones(tmp_path):
    for name in sorted(musdb.VALIDATION)[:2]:
        touch(tmp_path, f"test/{name}/mixture.wav")
        touch(tmp_path, f"train/{name}, live/mixture.wav")
    assert len(musdb.VALIDATION) == 14
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
        np.testing.assert_array_equal(read_stems(hq).instrumental, read_stems(mp4).instrumental)
        return
    # AAC changes noise, but each stream stays itself, at its place to the sample.
    for number, audio in enumerate(found):
        assert audio.shape == true[number].shape == (2, 4410)
        alike = [np.corrcoef(audio[0], other[0])[0, 1] for other in true]
        shifted = [np.corrcoef(np.roll(audio[0], by), true[number][0])[0, 1] for by in (-1, 1)]
        assert np.argmax(alike) == number and alike[number] > 3 * max(shifted)


def test_every_file_is_a_stem_or_set_aside(tmp_path):
    """Capitals and other formats are stems too; a second file of a stem and other files are not."""
    stems = ("MIXTURE.WAV", "Vocals.wav", "vocals.FLAC", "drums.aif", "bass.wav", "Bass.wav", "other.wave")
    for name in (*stems, "accompaniment.wav", "notes.txt", "more/vocals.wav", ".drums.wav"):
        touch(tmp_path, f"Train/A - B/{name}")
    for name in ("train/c.mp3", "train/D.STEM.mp4", "validation/e/vocals.wav", "vocals.wav"):
        touch(tmp_path, name)
    corpus = collections.find_tracks(tmp_path, "musdb")
    hq, mp4 = sorted(corpus.tracks, key=lambda track: track.facts["title"])
    assert hq.split == mp4.split == "train" and mp4.facts == {"title": "D"}
    used = {source.path.name for source in hq.sources}
    assert used == {"MIXTURE.WAV", "Vocals.wav", "drums.aif", "bass.wav", "other.wave"}
    assert corpus.found == 15 == len(used) + 1 + len(corpus.aside)
    assert {one.file: str(one.reason) for one in corpus.aside} == {
        "Train/A - B/.drums.wav": "hidden",
        "Train/A - B/notes.txt": "not audio",
        **dict.fromkeys(
            [
                *(
                    f"Train/A - B/{name}"
                    for name in ("vocals.FLAC", "Bass.wav", "accompaniment.wav", "more/vocals.wav")
                ),
                *("train/c.mp3", "validation/e/vocals.wav", "vocals.wav"),
            ],
            "not in the layout",
        ),
    }
