"""The codec interface: chunking changes nothing, files survive a round trip, errors name bad parts."""

from __future__ import annotations

import functools
import os

import jax
import numpy as np
import pytest
from helpers import edit_json
from hypothesis import given, settings
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.tokenizers import codecs, phases, spectral_codec

CHANNELS = {"wide_channels": 32, "encoder_channels": 16, "decoder_channels": 16}
SMALL = spectral_codec.SpectralConfig(**CHANNELS, encoder_blocks=2, decoder_blocks=2, latent=8)


@functools.cache
def small_params() -> dict:
    """Random weights whose codebooks are of the latents' scale, so that codes vary."""
    params = jax.jit(spectral_codec.init, static_argnums=0)(SMALL, jax.random.key(0))
    params = {**params, "codebooks": params["codebooks"] * 5}
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float16).astype(np.float32), params)


@functools.cache
def small_codec(chunk_frames: int = 40) -> codecs.SpectralCodec:
    return codecs.SpectralCodec(SMALL, small_params(), chunk_frames)


def audio_of(frames: int, batch: int = 1) -> np.ndarray:
    return (np.random.default_rng(frames).standard_normal((batch, frames * 320)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 39, 40, 41, 127])
def test_chunks_give_the_same_as_the_whole(frames, monkeypatch):
    audio, codec = audio_of(frames, 2), small_codec()
    latents = np.asarray(jax.jit(spectral_codec.encode_latents, static_argnums=0)(SMALL, small_params(), audio))
    np.testing.assert_allclose(codec.encode_latents(audio), latents, atol=2e-5)
    codes = codec.encode(audio)
    whole_codes = np.asarray(jax.jit(spectral_codec.quantize)(small_params()["codebooks"], latents)[0])
    assert (codes == whole_codes).mean() > 0.99  # a tie may fall either way by rounding

    # Of decoding, the magnitudes: each rounding leads the search for phases to another, equally good sound.
    latents = np.asarray(spectral_codec.dequantize(codec.codebooks, codes), np.float32)
    logs = jax.jit(spectral_codec.decode_log_magnitudes, static_argnums=0)(SMALL, small_params(), latents)
    found = []

    def silence(state, magnitudes, exists, window, hop):
        found.append(np.asarray(magnitudes))
        return state, np.zeros(len(magnitudes) * hop, np.float32)

    monkeypatch.setattr(codecs, "_invert", silence)
    codec.decode(codes)
    rows = np.concatenate(found).reshape(2, -1, SMALL.window // 2 + 1)
    np.testing.assert_allclose(rows[:, :frames], spectral_codec.magnitudes_of(logs), rtol=2e-4, atol=1e-6)
    assert not rows[:, frames:].any()


@functools.cache
def song_and_its_sound() -> tuple[np.ndarray, np.ndarray]:
    """Latents [F, D] of 70 frames, three chunks and a half, and the sound of one call."""
    codec = small_codec(20)
    latents = codec.encode_latents(audio_of(70))
    return latents[0], codec.decode_latents(latents)[0]


@settings(max_examples=12)
@given(cuts=st.lists(st.integers(0, 70), max_size=6))
def test_a_song_in_pieces_has_the_bits_of_the_whole(cuts):
    latents, whole = song_and_its_sound()
    decoder = codecs.SpectralDecoder(small_codec(20))
    pieces = [decoder.feed(piece) for piece in np.split(latents, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate([*pieces, decoder.finish()]), whole)


@pytest.mark.parametrize("frames", [60, 80, 81])
def test_later_audio_changes_no_earlier_bit(frames):
    codec, audio = small_codec(), audio_of(130)
    beginning = codec.encode(audio[:, : frames * 320])
    settled = slice(frames - SMALL.encoder_halo)
    np.testing.assert_array_equal(beginning[:, settled], codec.encode(audio)[:, settled])
    codes = codec.encode(audio)
    settled = slice((frames - SMALL.decoder_halo - phases.LOOK_AHEAD - 4) * 320)  # a window is four hops
    np.testing.assert_array_equal(codec.decode(codes[:, :frames])[:, settled], codec.decode(codes)[:, settled])


def test_shapes_ids_and_attributes():
    codec = small_codec()
    assert isinstance(codec, codecs.Codec)
    assert (codec.sample_rate_hz, codec.frame_rate_hz, codec.num_codebooks, codec.vocabulary) == (24000, 75, 8, 1024)
    codes = codec.encode(audio_of(50, 2))
    assert codes.shape == (2, 50, 8) and codes.dtype == np.int32
    assert codes.min() >= 0 and codes.max() < 1024
    assert len(np.unique(codes)) > 50


@pytest.mark.parametrize("books", [1, 4, 8])
def test_fewer_books_decode(books):
    codec = small_codec()
    codes = codec.encode(audio_of(30))
    audio = codec.decode(codes[:, :, :books])
    assert audio.shape == (1, 30 * 320) and audio.dtype == np.float32
    assert np.isfinite(audio).all()
    if books < 8:
        assert not np.allclose(audio, codec.decode(codes))


def test_silence_and_no_frames():
    codec = small_codec()
    assert np.isfinite(codec.decode(codec.encode(np.zeros((1, 640), np.float32)))).all()
    assert codec.encode(np.zeros((1, 0), np.float32)).shape == (1, 0, 8)
    assert codec.decode(np.zeros((1, 0, 8), np.int32)).shape == (1, 0)


def test_wrong_arrays_are_refused():
    codec = small_codec()
    with pytest.raises(ValueError, match="multiple of 320"):
        codec.encode(np.zeros((1, 321), np.float32))
    for bad in (np.zeros((1, 3, 9), int), np.zeros((3, 8), int), np.full((1, 3, 8), 1024), np.full((1, 3, 8), -1)):
        with pytest.raises(ValueError, match="codes"):
            codec.decode(bad)


def test_save_and_load_bit_for_bit(tmp_path):
    codecs.save_spectral(tmp_path / "codec", SMALL, small_params(), training={"steps": 3})
    codec = codecs.load_codec(tmp_path / "codec")
    loaded, given = jax.tree.leaves(codec.params), jax.tree.leaves(small_params())
    assert all(np.array_equal(a, b) and a.dtype == np.float32 for a, b in zip(loaded, given, strict=True))
    assert codec.config == SMALL
    audio = audio_of(20)
    np.testing.assert_array_equal(codec.encode(audio), small_codec(codecs.CHUNK_FRAMES).encode(audio))
    document = codecs.read_config(tmp_path / "codec")
    assert document["codec"] == "spectral" and document["training"] == {"steps": 3} and document["num_codebooks"] == 8
    assert sorted(p.name for p in (tmp_path / "codec").iterdir()) == ["codec.safetensors", "config.json"]


def edit_config(directory, **changes):
    edit_json(directory / "config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json cannot be read"),
        (lambda d: (d / "config.json").write_text("{"), "not JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "holds a list, not an object"),
        (lambda d: edit_config(d, codec="mp3"), "'mp3'"),
        (lambda d: edit_config(d, format_version=99), "format version 99"),
        (lambda d: edit_config(d, format_version=1), "train the codec again"),
        (lambda d: edit_config(d, spectral={"colour": 1}), "sizes of a codec"),
        (lambda d: edit_config(d, spectral={"codebooks": 4}), "expected"),
        (lambda d: edit_config(d, spectral={"encoder_channels": 17}), "its config.json expects"),
        (lambda d: edit_config(d, codec="encodec"), 'no "source"'),
        (lambda d: (d / "codec.safetensors").unlink(), "codec.safetensors is missing"),
        (lambda d: (d / "codec.safetensors").write_bytes(b"\x80" * 100), "no(t a)? safetensors"),
        (lambda d: os.truncate(w := d / "codec.safetensors", w.stat().st_size - 50), "no(t a)? safetensors"),
    ],
)
def test_bad_parts_are_input_errors(tmp_path, damage, found):
    codecs.save_spectral(tmp_path, SMALL, small_params())
    damage(tmp_path)
    with pytest.raises(InputError, match=found):
        codecs.load_codec(tmp_path)


def test_diverged_weights_are_not_written(tmp_path):
    params = {**small_params(), "codebooks": small_params()["codebooks"] * np.inf}
    with pytest.raises(InputError, match="not finite"):
        codecs.save_spectral(tmp_path, SMALL, params)
    assert not list(tmp_path.iterdir())


def test_measure_counts_and_compares():
    codec = small_codec()
    figures, codes_in_use = codecs.measure(codec, [audio_of(20)[0], audio_of(31)[0]], (4, None))
    assert set(figures) == {4, None}
    for distances in figures.values():
        assert len(distances) == 2 and np.isfinite(distances).all() and min(distances) >= 0
    assert len(codes_in_use) == 8 and 1 <= max(codes_in_use) <= 51
