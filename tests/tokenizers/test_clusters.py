"""Frames that k-means is fitted on, and the report on its clusters."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.full_disk import REASON, files_of_at_most
from helpers.tunes import songs  # noqa: F401 (a fixture)
from scipy.stats import entropy
from sklearn.cluster import KMeans

from hafm_jax.audio import files
from hafm_jax.common.errors import InputError, OutputError
from hafm_jax.tokenizers import clusters, semantic


def sampling(hours: float) -> clusters.Sampling:
    return clusters.Sampling(hours, vocal_noise_sigma=0.0, seed=0, max_s=60.0, max_unusable=8)


def test_the_report_counts_as_scikit_learn_and_scipy_do():
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((900, 5)).astype(np.float32)
    kmeans = KMeans(7, n_init=1, random_state=0).fit(frames)
    rows = {"vocals": slice(0, 600), "instrumental": slice(600, 900)}
    report = clusters.describe(clusters.Sample(frames, rows, 1), kmeans.cluster_centers_)
    for stem, row in report.items():
        values = frames[rows.get(stem, slice(None))]
        use = np.bincount(kmeans.predict(values), minlength=7)
        assert row["frames"] == len(values) and row["clusters_in_use"] == (use > 0).sum()
        assert row["inertia_per_frame"] == pytest.approx(-kmeans.score(values) / len(values), rel=1e-5)
        assert row["entropy_bits"] == pytest.approx(entropy(use, base=2), rel=1e-9)
        assert row["perplexity"] == pytest.approx(2 ** entropy(use, base=2), rel=1e-9)


def test_sampled_frames_are_the_songs_own(songs, tmp_path):
    """Each is a frame of its stem's features, none is there twice, and no stem has more than half of the hours."""
    extractor = semantic.FeatureExtractor("chroma")
    folders = files.song_folders(songs, "train")
    sample = clusters.sample_frames(extractor, folders, sampling(120 / (3600 * 50)), tmp_path)
    assert sample.rows == {"vocals": slice(0, 60), "instrumental": slice(60, 120)} and sample.num_songs == 1
    for stem, rows in sample.rows.items():
        audio = [files.read_audio(folder / f"{stem}.wav") for folder in folders]
        known = np.concatenate([extractor(semantic.semantic_audio(*clip, 0.0, 0)) for clip in audio])
        found = [np.flatnonzero((known == frame).all(axis=1)) for frame in sample.frames[rows]]
        assert all(len(matches) for matches in found) and len({matches[0] for matches in found}) == 60


def test_one_unusable_song_is_skipped_and_many_are_an_error(songs, tmp_path, capsys):
    for k in range(9):
        (tmp_path / "train" / str(k)).mkdir(parents=True)
        for stem in ("vocals", "instrumental"):
            (tmp_path / "train" / str(k) / f"{stem}.wav").write_text("no audio")
    bad = files.song_folders(tmp_path, "train")
    extractor = semantic.FeatureExtractor("chroma")
    sample = clusters.sample_frames(extractor, [bad[0], *files.song_folders(songs, "train")], sampling(0.001), tmp_path)
    assert sample.num_songs == 2 and len(sample.frames) == 180  # 0.001 hours, of the 352 that the two have
    assert "skipped 0" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no vocals of .* cannot be read as audio"):
        clusters.sample_frames(extractor, bad, sampling(0.001), tmp_path)
    assert capsys.readouterr().out.count("skipped") == 8  # not the ninth


def test_a_full_disk_ends_in_its_reason_and_not_in_a_signal(songs, tmp_path):
    """Also it is not a fault of the song whose frames are written then."""
    extractor, folders = semantic.FeatureExtractor("chroma"), files.song_folders(songs, "train")
    with files_of_at_most(4 * 50 * extractor.dimensions), pytest.raises(OutputError, match=rf"float32 \({REASON}\)"):
        clusters.sample_frames(extractor, folders, sampling(0.001), tmp_path)


def test_frames_of_a_song_that_fails_in_the_middle_are_not_kept(songs, tmp_path, monkeypatch, capsys):
    extractor, folders = semantic.FeatureExtractor("chroma"), files.song_folders(songs, "train")
    wanted = clusters.sample_frames(extractor, folders, sampling(0.001), tmp_path)
    blocks, calls = extractor.blocks, []

    def failing(self, audio):
        calls.append(audio)
        for number, (song, first, features) in enumerate(blocks(audio)):
            half = len(features) // 2
            yield song, first, features[:half]
            yield song, first + half, features[half:] if len(calls) > 1 or number else np.full_like(features, np.nan)

    monkeypatch.setattr(semantic.FeatureExtractor, "blocks", failing)
    (tmp_path / "again").mkdir()
    sample = clusters.sample_frames(extractor, [folders[0], *folders], sampling(0.001), tmp_path / "again")
    assert sample.rows == wanted.rows and np.isfinite(sample.frames).all()
    assert capsys.readouterr().out.count("skipped") == 1
