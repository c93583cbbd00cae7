"""Our neural codec `spectral`: 24 kHz mono audio <-> 8 residual codebooks of 1024 at 75 frames a second.

It never convolves samples, and its codes hold no phases. The encoder reads the magnitudes of STFT frames, ConvNeXt
blocks work at the frame rate, the decoder predicts magnitudes, and hafm_jax.tokenizers.phases turns them into sound.
This is cheap enough to train on a CPU. And a held chord, whose phases turn from frame to frame, keeps its codes, which
makes them predictable for the model that generates them.

Everything is local in time: no statistic is taken over time, and every layer that reads neighbouring frames reads zeros
for frames that do not exist according to `mask`. So a chunk with `encoder_halo` or `decoder_halo` frames around it
gives the result of the whole file. hafm_jax.tokenizers.codecs does the chunking.

Flax NNX only holds the parameters. All functions are pure and take them as a nested dict of arrays.

Axes: B batch, S samples, F frames, W frequency bins, C channels, D latent, K codebooks, V codes of a codebook.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from hafm_jax.audio.stft import stft
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CODEC_SAMPLE_RATE_HZ, STREAMS

MAGNITUDE_FLOOR = 1e-4  # -80 dB below full scale
LOG_MAGNITUDE_LIMITS = (-7.0, 1.0)  # decimal log, far below silence and far above full scale: nothing can overflow
MEAN_LOG_MAGNITUDE = -2.5  # -50 dB, about the mean level of a bin of music


@dataclass(frozen=True)
class SpectralConfig:
    """Sizes of the codec. The defaults are the shipped one: 3.4 M parameters with its codebooks."""

    sample_rate_hz: int = CODEC_SAMPLE_RATE_HZ
    hop: int = CODEC_SAMPLE_RATE_HZ // STREAMS["coarse"].rate_hz  # 320 samples, 75 frames a second
    window: int = 1280  # samples, 53 ms: four hops, 19 Hz between bins
    # Channels between spectra and blocks, on either side: as many as there are bins, since sharp peaks at any pitch do
    # not fit into fewer dimensions.
    wide_channels: int = 640
    encoder_channels: int = 192
    encoder_blocks: int = 3
    decoder_channels: int = 224
    decoder_blocks: int = 4
    kernel: int = 7  # frames; with the number of blocks it sets how far the codec sees
    expansion: int = 3  # hidden channels of a block, divided by its channels
    latent: int = 48
    codebooks: int = ACOUSTIC_CODEBOOKS
    vocabulary: int = STREAMS["coarse"].vocabulary

    def __post_init__(self):
        for name, value in vars(self).items():
            if type(value) is not int or value < 1:  # not isinstance: True is an int
                raise ValueError(f"{name} is {value!r}; expected a whole number from 1")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}; expected an odd number of frames")
        if self.window < self.hop or (self.window - self.hop) % 2:
            raise ValueError(f"window is {self.window}; expected hop, {self.hop}, or more by an even number")

    @property
    def bins(self) -> int:
        return self.window // 2 + 1

    @property
    def frame_rate_hz(self) -> int:
        return self.sample_rate_hz // self.hop

    @property
    def encoder_halo(self) -> int:
        """Frames on either side of a frame that its latent depends on, without the STFT's own overlap."""
        return self.encoder_blocks * (self.kernel // 2)

    @property
    def decoder_halo(self) -> int:
        """Frames on either side of a frame whose codes its magnitudes depend on."""
        return self.decoder_blocks * (self.kernel // 2)


def normalize(x: jax.Array) -> jax.Array:
    """Mean 0 and variance 1 over the last axis, at each frame separately."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-6)


class Blocks(nnx.Module):
    """ConvNeXt blocks (Liu et al. 2022): depthwise convolution over frames, norm, two-layer MLP, scaled residual.

    The parameters of all blocks are stacked, so that the compiler sees one block in a scan.
    """

    def __init__(self, blocks: int, channels: int, kernel: int, expansion: int, *, rngs: nnx.Rngs):
        hidden = expansion * channels

        def normal(*shape: int, fan_in: int) -> nnx.Param:
            return nnx.Param(jax.random.normal(rngs.params(), (blocks, *shape)) * fan_in**-0.5)

        self.kernel = normal(kernel, channels, fan_in=kernel)
        self.kernel_bias = nnx.Param(jnp.zeros((blocks, channels)))
        self.norm_scale = nnx.Param(jnp.ones((blocks, channels)))
        self.norm_bias = nnx.Param(jnp.zeros((blocks, channels)))
        self.up = normal(channels, hidden, fan_in=channels)
        self.up_bias = nnx.Param(jnp.zeros((blocks, hidden)))
        self.down = normal(hidden, channels, fan_in=hidden)
        self.down_bias = nnx.Param(jnp.zeros((blocks, channels)))
        self.scale = nnx.Param(jnp.full((blocks, channels), 0.1, jnp.float32))  # small: a block starts near identity

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """[B, F, C], [B, F, 1] -> [B, F, C]."""

        def one_block(x: jax.Array, block: dict[str, jax.Array]) -> tuple[jax.Array, None]:
            taps, frames = block["kernel"].shape[0], x.shape[1]
            padded = jnp.pad(x * mask, ((0, 0), (taps // 2, taps // 2), (0, 0)))
            # Shifted copies and a sum fuse into one loop; XLA's grouped convolution is many times slower on CPU.
            shifted = jnp.stack([padded[:, i : i + frames] for i in range(taps)], axis=2)  # [B, F, taps, C]
            hidden = (shifted * block["kernel"]).sum(axis=2) + block["kernel_bias"]
            hidden = normalize(hidden) * block["norm_scale"] + block["norm_bias"]
            hidden = jax.nn.gelu(hidden @ block["up"] + block["up_bias"])
            return x + block["scale"] * (hidden @ block["down"] + block["down_bias"]), None

        return jax.lax.scan(one_block, x, nnx.to_pure_dict(nnx.state(self)))[0]


class SpectralNetwork(nnx.Module):
    """Holder of all parameters: encoder, codebooks, decoder."""

    def __init__(self, config: SpectralConfig, *, rngs: nnx.Rngs):
        c = config
        self.spectrum_in = nnx.Linear(c.bins, c.wide_channels, rngs=rngs)
        self.encoder_in = nnx.Linear(c.wide_channels, c.encoder_channels, rngs=rngs)
        self.encoder_norm = nnx.LayerNorm(c.encoder_channels, rngs=rngs)
        self.encoder = Blocks(c.encoder_blocks, c.encoder_channels, c.kernel, c.expansion, rngs=rngs)
        self.encoder_out_norm = nnx.LayerNorm(c.encoder_channels, rngs=rngs)
        self.encoder_out = nnx.Linear(c.encoder_channels, c.latent, rngs=rngs)
        self.codebooks = nnx.Param(jax.random.normal(rngs.params(), (c.codebooks, c.vocabulary, c.latent)) * 0.1)
        self.decoder_in = nnx.Linear(c.latent, c.decoder_channels, rngs=rngs)
        self.decoder = Blocks(c.decoder_blocks, c.decoder_channels, c.kernel, c.expansion, rngs=rngs)
        self.decoder_norm = nnx.LayerNorm(c.decoder_channels, rngs=rngs)
        self.decoder_out = nnx.Linear(c.decoder_channels, c.wide_channels, rngs=rngs)
        self.spectrum_out = nnx.Linear(c.wide_channels, c.bins, rngs=rngs)

    def encode(self, features: jax.Array, mask: jax.Array) -> jax.Array:
        """Log magnitudes [B, F, W], mask [B, F, 1] -> latents [B, F, D]."""
        x = self.encoder_norm(self.encoder_in(jax.nn.gelu(self.spectrum_in(features))))
        x = self.encoder(x, mask)
        # There is no learnt scale: every latent has mean 0 and variance 1, which fixes the quantiser's scale.
        return normalize(self.encoder_out(self.encoder_out_norm(x)))

    def decode(self, latents: jax.Array, mask: jax.Array) -> jax.Array:
        """Latents [B, F, D], mask [B, F, 1] -> log magnitudes [B, F, W]."""
        x = self.decoder_in(latents)
        x = self.decoder_out(self.decoder_norm(self.decoder(x, mask)))
        return self.spectrum_out(jax.nn.gelu(x))


def init(config: SpectralConfig, key: jax.Array) -> dict:
    """New parameters, a nested dict of float32 arrays."""
    network = SpectralNetwork(config, rngs=nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.split(network)[1])


@functools.cache
def _graph(config: SpectralConfig) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: SpectralNetwork(config, rngs=nnx.Rngs(0))))[0]


def _network(config: SpectralConfig, params: dict) -> SpectralNetwork:
    return nnx.merge(_graph(config), nnx.State(params))


def shapes(config: SpectralConfig) -> dict:
    """The parameters' shapes and dtypes (a tree of ShapeDtypeStruct), without making them."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def log_magnitudes(config: SpectralConfig, audio: jax.Array, padded: bool = False) -> jax.Array:
    """Audio [B, F * hop] -> decimal logs of floored STFT magnitudes minus MEAN_LOG_MAGNITUDE, [B, F, W].

    `padded`: as for `stft.stft`.
    """
    magnitudes = jnp.abs(stft(audio, config.window, config.hop, padded=padded))
    return jnp.log10(magnitudes + MAGNITUDE_FLOOR) - MEAN_LOG_MAGNITUDE


def encode_latents(config: SpectralConfig, params: dict, audio: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Audio [B, F * hop] -> latents [B, F, D], each of mean 0 and variance 1.

    With `mask` [B, F] (1 = the frame exists) `audio` is a chunk with the (window - hop) / 2 samples before and after
    it: [B, F * hop + window - hop], zeros where the file has none.
    """
    # With the barrier XLA computes them once, and not inside every product that reads them.
    features = jax.lax.optimization_barrier(log_magnitudes(config, audio, padded=mask is not None))
    exists = jnp.ones(features.shape[:2]) if mask is None else mask
    return _network(config, params).encode(features, exists[..., None])


def quantize(codebooks: jax.Array, latents: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Residual vector quantisation: each book takes the code nearest to the residual of the books before it.

    codebooks [K, V, D], latents [..., D] -> codes int32 [..., K], quantised [..., K, D] (the vector of each book; their
    sum is the quantised latent) and residuals [..., K, D] (the input of each book).
    """

    def one_book(residual: jax.Array, book: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
        # |r - c|^2 without |r|^2, which is the same for all codes.
        distance = jnp.square(book).sum(-1) - 2 * jnp.matmul(residual, book.T, precision="highest")  # [..., V]
        codes = jnp.argmin(distance, axis=-1).astype(jnp.int32)
        chosen = book[codes]
        return residual - chosen, (codes, chosen, residual)

    _, (codes, chosen, residuals) = jax.lax.scan(one_book, latents, codebooks)
    return jnp.moveaxis(codes, 0, -1), jnp.moveaxis(chosen, 0, -2), jnp.moveaxis(residuals, 0, -2)


def dequantize(codebooks: jax.Array, codes: jax.Array) -> jax.Array:
    """Codes [..., K'] of the first K' books -> latents [..., D]."""
    return sum(codebooks[k][codes[..., k]] for k in range(codes.shape[-1]))


def decode_log_magnitudes(
    config: SpectralConfig, params: dict, latents: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Latents [B, F, D] (mask [B, F], 1 = the frame exists) -> predicted `log_magnitudes`, [B, F, W]."""
    exists = jnp.ones(latents.shape[:2]) if mask is None else mask
    return _network(config, params).decode(latents, exists[..., None])


def magnitudes_of(log_magnitudes: jax.Array) -> jax.Array:
    """The inverse of `log_magnitudes`: [..., W] -> amplitudes [..., W]; a full-scale sine has 1."""
    logs = jnp.clip(log_magnitudes + MEAN_LOG_MAGNITUDE, *LOG_MAGNITUDE_LIMITS)
    return jnp.maximum(10.0**logs - MAGNITUDE_FLOOR, 0.0)
