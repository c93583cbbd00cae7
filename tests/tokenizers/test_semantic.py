from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from helpers import ROOT, edit_json
from helpers.pickles import Malicious
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

from hafm_jax.audio import files, voice
from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import chroma, semantic

RATE_HZ = 16_000
CHROMA, LEVEL, FLUX = slice(0, 12), slice(12, 16), slice(16, 20)


def sine(midi: float, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    f_hz = 440 * 2 ** ((midi - 69) / 12)
    return (level * np.sin(2 * np.pi * f_hz * np.arange(int(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def noise(num_samples: int, sigma: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, num_samples).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ chroma


def test_every_semitone_has_its_pitch_class():
    notes = range(45, 94)  # A2, 110 Hz, to A6
    features = chroma.chroma_features(np.concatenate([sine(midi, 0.4) for midi in notes]))
    assert features.shape == (20 * len(notes), chroma.DIMENSIONS) and features.dtype == np.float32
    steady = features.reshape(len(notes), 20, -1)[:, 7:-7, CHROMA]
    np.testing.assert_array_equal(steady.argmax(axis=2), np.repeat([[midi % 12] for midi in notes], 6, axis=1))
    assert (steady[notes.index(69), :, 9] > 0.85).all()  # C is 0, so A is 9


def test_silence_is_one_region_with_and_without_noise():
    digital = chroma.chroma_features(np.zeros(640 * 5, np.float32))
    np.testing.assert_array_equal(digital, 0)
    hiss = chroma.chroma_features(noise(640 * 25, semantic.VOCAL_NOISE_SIGMA))
    voice = chroma.chroma_features(sine(60, 1.0) + noise(640 * 25, semantic.VOCAL_NOISE_SIGMA))
    spread = np.linalg.norm(hiss - hiss.mean(axis=0), axis=1).max()
    assert spread < 0.7 * np.linalg.norm(voice[10:-10] - hiss.mean(axis=0), axis=1).min()


def test_a_hit_is_placed_to_the_frame():
    audio = np.zeros(640 * 25, np.float32)
    for frame in (10, 23, 40):
        audio[frame * 320 + 60 : frame * 320 + 1200] = noise(1140, 0.2)
    flux = chroma.chroma_features(audio)[:, FLUX].sum(axis=1)
    assert sorted(np.argsort(flux)[-3:]) == [10, 23, 40]


@pytest.mark.parametrize("change_frame", [0, 30, 99])
def test_a_frame_depends_on_no_more_than_stated(change_frame):
    """118 ms of the long window beyond either edge of the frame: at most 6 frames away."""
    audio = noise(320 * 100)
    changed = audio.copy()
    changed[change_frame * 320 : (change_frame + 1) * 320] = noise(320, seed=1)
    difference = np.abs(chroma.chroma_features(audio) - chroma.chroma_features(changed)).max(axis=1)
    touched = np.flatnonzero(difference > 1e-6)
    assert change_frame in touched and abs(touched - change_frame).max() <= 6
    assert len(touched) >= min(6, change_frame) + min(6, 99 - change_frame)


def test_features_move_with_the_sound_whatever_the_block(monkeypatch):
    audio = noise(320 * 90)
    whole = chroma.chroma_features(audio)
    part = chroma.chroma_features(audio[320 * 20 : 320 * 70])
    np.testing.assert_allclose(part[8:-8], whole[28:62], atol=1e-5)
    monkeypatch.setattr(chroma, "FRAMES_AT_ONCE", 7)
    np.testing.assert_allclose(chroma.chroma_features(audio), whole, atol=1e-5)


def test_features_are_the_same_with_any_number_of_threads():
    clip = noise(16000 * 6)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(chroma.chroma_features(clip))
    np.testing.assert_array_equal(*found)


def test_features_stay_in_range_at_any_level():
    for level in (0.0, 1e-20, 1e-4, 1.0, 100.0):
        features = chroma.chroma_features(sine(60, 0.4, level))
        assert np.isfinite(features).all() and features.min() >= 0
        assert np.linalg.norm(features[:, CHROMA], axis=1).max() <= 1 + 1e-6
        assert features[:, LEVEL].max() <= chroma.LEVEL_WEIGHT + 1e-6


@pytest.mark.parametrize("audio", [np.zeros(641), np.zeros((1, 640)), np.zeros(0), np.zeros(320)])
def test_only_whole_cells(audio):
    with pytest.raises(ValueError, match="expected"):
        semantic.FeatureExtractor("chroma")(audio)


# ---------------------------------------------------------------------------------------------------------- clusters


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    num_frames=st.integers(1, 300),
    clusters=st.integers(1, 60),
    dimensions=st.integers(1, 30),
    offset=st.sampled_from([0.0, 10.0, 1000.0]),
    at_once=st.sampled_from([37, semantic.FRAMES_AT_ONCE]),
)
def test_nearest_is_the_nearest(seed, num_frames, clusters, dimensions, offset, at_once):
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(num_frames, dimensions)) + offset).astype(np.float32)
    centroids = (rng.normal(size=(clusters, dimensions)) + offset).astype(np.float32)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(semantic, "FRAMES_AT_ONCE", at_once)
        tokens = semantic.nearest_centroids(features, centroids)
    assert tokens.dtype == np.int32
    exact = np.square(features[:, None].astype(np.float64) - centroids).sum(axis=2)
    chosen = np.take_along_axis(exact, tokens[:, None], 1)[:, 0]
    np.testing.assert_allclose(chosen, exact.min(axis=1), rtol=1e-5, atol=1e-5 * dimensions)


def test_ties_go_to_the_lowest_index():
    centroids = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    np.testing.assert_array_equal(semantic.nearest_centroids(centroids, centroids), [0, 1, 0, 1])


# --------------------------------------------------------------------------------------------------------- tokenizer


@pytest.fixture
def folder(tmp_path):
    frames = chroma.chroma_features(np.concatenate([sine(60 + k, 0.4) for k in range(12)]))
    semantic.save_semantic(tmp_path / "semantic", {"features": "chroma"}, frames[::6][:40])
    return tmp_path / "semantic"


def test_a_saved_tokenizer_is_loaded(folder):
    tokenizer = semantic.load_semantic(folder)
    config = json.loads((folder / "config.json").read_text())
    assert tokenizer.vocabulary == config["clusters"] == 40 and tokenizer.features_name == "chroma"
    assert tokenizer.centroids_sha256 == config["centroids_sha256"]
    assert sorted(path.name for path in folder.iterdir()) == ["centroids.safetensors", "config.json"]
    audio = sine(64, 1.0)
    tokens = tokenizer.encode(audio)
    assert tokens.shape == (50,) and tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, semantic.nearest_centroids(tokenizer.extractor(audio), tokenizer.centroids))


@pytest.mark.parametrize(
    "change, found",
    [
        ({"format_version": 2}, "format_version"),
        ({"features": "mfcc"}, "mfcc"),
        ({"features": "hubert"}, "source"),
        ({"clusters": 41}, "shape"),
        ({"dimensions": 19}, "shape"),
        ({"centroids_sha256": "0" * 64}, "sha256"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, change, found):
    edit_json(folder / "config.json", **change)
    with pytest.raises(InputError, match=found):
        semantic.load_semantic(folder)


def test_the_hash_is_of_shape_and_values_and_not_of_the_file():
    """The demo's config was written with another format of centroids beside it."""
    demo = ROOT / "hafm_jax" / "demo" / "semantic"
    expected = json.loads((demo / "config.json").read_text())["centroids_sha256"]
    assert semantic.load_semantic(demo).centroids_sha256 == expected


def test_all_kinds_of_files_give_the_same_centroids(tmp_path):
    expected = np.random.default_rng(0).standard_normal((8, 6), np.float32)
    np.save(tmp_path / "a.npy", expected.astype(np.float64))
    save_file({"cluster_centers_": expected}, tmp_path / "b.safetensors")
    save_file({"centroids": expected, "counts": np.zeros(8)}, tmp_path / "c.safetensors")
    for path in sorted(tmp_path.iterdir()):
        found = semantic.read_centroids(path)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected, err_msg=path.name)


def test_files_that_hold_no_centroids_are_named_and_none_is_run(tmp_path):
    centroids, victim = np.ones((8, 6), np.float32), tmp_path / "victim"
    np.save(tmp_path / "whole.npy", centroids)
    (tmp_path / "torn.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-5])
    (tmp_path / "whole.npy").unlink()
    np.save(tmp_path / "ids.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "row.npy", np.arange(6.0))
    np.save(tmp_path / "objects.npy", np.array([Malicious(victim)]), allow_pickle=True)
    save_file({"a": centroids, "b": centroids}, tmp_path / "two.safetensors")
    (tmp_path / "empty").write_bytes(b"")
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "absent"]:
        with pytest.raises(InputError, match=f"{path.name} cannot be read as centroids .*: make it with"):
            semantic.read_centroids(path)
    for suffix in ("pkl", "pickle", "bin", "joblib"):
        path = tmp_path / f"km.{suffix}"
        path.write_bytes(pickle.dumps(Malicious(victim)))
        with pytest.raises(InputError, match=r"km\..*: a scikit-learn KMeans becomes npy .*cluster_centers_\)"):
            semantic.read_centroids(path)
    assert not victim.exists()


def test_damaged_or_missing_parts_are_named(folder):
    path = folder / "centroids.safetensors"
    good = path.read_bytes()
    for damage in (b"", b"not numpy", good[:-5], good[:-1] + bytes([good[-1] ^ 1])):
        path.write_bytes(damage)
        with pytest.raises(InputError, match="centroids"):
            semantic.load_semantic(folder)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        semantic.load_semantic(folder)
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match="config"):
            semantic.load_semantic(folder)
    with pytest.raises(InputError, match="fit_kmeans"):
        semantic.load_semantic(folder / "absent")


def test_many_clips_have_the_tokens_of_each(folder):
    tokenizer = semantic.load_semantic(folder)
    clips = [sine(60 + k, 0.2 * (1 + k % 3)) for k in range(5)]
    for clip, tokens in zip(clips, tokenizer.encode_all(clips), strict=True):
        np.testing.assert_array_equal(tokens, tokenizer.encode(clip))
    assert tokenizer.encode_all([]) == []
    with pytest.raises(ValueError, match="pad_to_cells"):
        tokenizer.encode_all([clips[0], clips[1][:-1]])


def test_bad_centroids_are_not_saved(tmp_path):
    for centroids in (np.full((4, 20), np.nan), np.zeros((501, 20)), np.zeros((0, 20))):
        with pytest.raises(InputError):
            semantic.save_semantic(tmp_path, {"features": "chroma"}, centroids)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ vocal tokens


@pytest.mark.parametrize("num_samples, rate_hz, cells", [(44_100, 44_100, 25), (44_101, 44_100, 25), (1, 8_000, 1)])
@pytest.mark.parametrize("channels", [None, 2])
def test_vocal_tokens_cover_the_vocal_in_whole_cells(folder, num_samples, rate_hz, cells, channels):
    vocal = noise(num_samples) if channels is None else np.stack([noise(num_samples)] * channels)
    assert semantic.vocal_tokens(semantic.load_semantic(folder), vocal, rate_hz).shape == (2 * cells,)


def test_vocal_noise_is_seeded_and_can_be_off(folder):
    tokenizer = semantic.load_semantic(folder)
    vocal = voice.level(sine(60, 1.0, 0.02))
    same = [semantic.vocal_tokens(tokenizer, vocal, RATE_HZ, 0.01, seed=3) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    audio = [semantic.vocal_audio(vocal, RATE_HZ, 0.01, seed) for seed in (3, 4)]
    assert (audio[0] != audio[1]).any()
    assert np.std(audio[0] - vocal) == pytest.approx(0.01, rel=0.05)
    clean = semantic.vocal_tokens(tokenizer, vocal, RATE_HZ, 0.0)
    np.testing.assert_array_equal(clean, tokenizer.encode(files.pad_to_cells(vocal, RATE_HZ)))
    np.testing.assert_array_equal(clean, semantic.instrumental_tokens(tokenizer, vocal, RATE_HZ))


def test_different_notes_have_different_tokens(folder):
    tokenizer = semantic.load_semantic(folder)
    found = [set(tokenizer.encode(sine(60 + k, 0.4))[8:-8]) for k in range(12)]
    assert all(not found[a] & found[b] for a in range(12) for b in range(a))
