"""Our neural codec `spectral`: 24 kHz mono audio <-> 8 residual codebooks of 1024 at 75 frames a second.

It never convolves samples. The encoder reads STFT frames, ConvNeXt blocks work at the frame rate, and the decoder
predicts the STFT of the output, which the inverse transform turns into samples (Vocos, Siuzdak 2023, is the idea's
source). That makes it cheap enough to train on a CPU.

Everything is local in time: no statistic is taken over time, and every layer that looks at neighbouring frames sees
zeros for frames that a `mask` says do not exist. So a chunk with `encoder_halo` or `decoder_halo` frames around it
gives what the whole file gives. hafm_jax.audio.codecs does the chunking.

Flax NNX holds the parameters only. All functions are pure and take them as a nested dict of arrays.

Axes: B batch, S samples, F frames, W frequency bins, C channels, D latent, K codebooks, V codes of a codebook.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from hafm_jax.audio.spectra import istft, stft
from hafm_jax.streams import ACOUSTIC_CODEBOOKS, CODEC_SAMPLE_RATE_HZ, STREAMS

# Magnitude exponent of the encoder's input, a usual choice for complex spectra: loud partials do not drown quiet ones.
COMPRESSION = 0.3
MAGNITUDE_FLOOR = 1e-4  # -80 dB below full scale
LOG_MAGNITUDE_LIMITS = (-16.0, 3.0)  # natural log, far below silence and far above full scale: exp cannot overflow
INITIAL_LOG_MAGNITUDE = -6.0  # -52 dB, about the mean level of a bin of music


@dataclass(frozen=True)
class SpectralConfig:
    """Sizes of the codec. The defaults are the shipped one: 2.1 M parameters with its codebooks."""

    sample_rate_hz: int = CODEC_SAMPLE_RATE_HZ
    hop: int = CODEC_SAMPLE_RATE_HZ // STREAMS["coarse"].rate_hz  # 320 samples, 75 frames a second
    window: int = 1280  # samples, 53 ms: four hops, 19 Hz between bins
    phase_bins_in: int = 256  # up to 4.8 kHz the encoder sees phase, above it magnitude only
    phase_bins_out: int = 160  # up to 3 kHz the decoder predicts phase as a vector, above it as an angle
    encoder_channels: int = 160
    encoder_blocks: int = 3
    decoder_channels: int = 192
    decoder_blocks: int = 4
    kernel: int = 7  # frames; with the blocks this sets how far the codec sees
    expansion: int = 3  # hidden channels of a block over its channels
    latent: int = 32
    codebooks: int = ACOUSTIC_CODEBOOKS
    vocabulary: int = STREAMS["coarse"].vocabulary

    @property
    def bins(self) -> int:
        return self.window // 2 + 1

    @property
    def frame_rate_hz(self) -> int:
        return self.sample_rate_hz // self.hop

    @property
    def encoder_halo(self) -> int:
        """Frames on either side of a frame that its latent depends on, the STFT's own overlap not counted."""
        return self.encoder_blocks * (self.kernel // 2)

    @property
    def decoder_halo(self) -> int:
        """Frames on either side of a hop whose codes its samples depend on: the blocks' and the inverse STFT's."""
        return self.decoder_blocks * (self.kernel // 2) + -(-(self.window - self.hop) // (2 * self.hop))


def normalize(x: jax.Array) -> jax.Array:
    """Mean 0 and variance 1 over the last axis, at each frame by itself."""
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
        self.encoder_in = nnx.Linear(c.bins + 2 * c.phase_bins_in, c.encoder_channels, rngs=rngs)
        self.encoder_norm = nnx.LayerNorm(c.encoder_channels, rngs=rngs)
        self.encoder = Blocks(c.encoder_blocks, c.encoder_channels, c.kernel, c.expansion, rngs=rngs)
        self.encoder_out_norm = nnx.LayerNorm(c.encoder_channels, rngs=rngs)
        self.encoder_out = nnx.Linear(c.encoder_channels, c.latent, rngs=rngs)
        self.codebooks = nnx.Param(jax.random.normal(rngs.params(), (c.codebooks, c.vocabulary, c.latent)) * 0.1)
        self.decoder_in = nnx.Linear(c.latent, c.decoder_channels, rngs=rngs)
        self.decoder = Blocks(c.decoder_blocks, c.decoder_channels, c.kernel, c.expansion, rngs=rngs)
        self.decoder_norm = nnx.LayerNorm(c.decoder_channels, rngs=rngs)
        # Log magnitude of all bins, a vector for the phase of the low ones, an angle for the phase of the high ones.
        self.head = nnx.Linear(c.decoder_channels, 2 * c.bins + c.phase_bins_out, rngs=rngs)

    def encode(self, features: jax.Array, mask: jax.Array) -> jax.Array:
        """STFT features [B, F, bins + 2 phase_bins_in], mask [B, F, 1] -> latents [B, F, D]."""
        x = self.encoder_norm(self.encoder_in(features))
        x = self.encoder(x, mask)
        # No learnt scale: every latent has mean 0 and variance 1, which fixes the quantiser's scale.
        return normalize(self.encoder_out(self.encoder_out_norm(x)))

    def decode(self, latents: jax.Array, mask: jax.Array) -> jax.Array:
        """Latents [B, F, D], mask [B, F, 1] -> the head's outputs [B, F, 2 bins + phase_bins_out]."""
        x = self.decoder_in(latents)
        return self.head(self.decoder_norm(self.decoder(x, mask)))


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


def num_params(config: SpectralConfig) -> int:
    """Number of parameters, codebooks included."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(config)))


def features_of(config: SpectralConfig, spectra: jax.Array) -> jax.Array:
    """What the encoder reads of spectra [B, F, W]: log magnitudes and compressed complex low bins, float32."""
    magnitude = jnp.abs(spectra)
    log_magnitude = jnp.log10(magnitude + MAGNITUDE_FLOOR) + 2.5  # of music: about -1.5 .. 1.5
    low = spectra[..., : config.phase_bins_in]
    low = low * (magnitude[..., : config.phase_bins_in] + MAGNITUDE_FLOOR) ** (COMPRESSION - 1) * 3
    return jnp.concatenate([log_magnitude, low.real, low.imag], axis=-1)


def encode_latents(config: SpectralConfig, params: dict, audio: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Audio [B, F * hop] -> latents [B, F, D], each of mean 0 and variance 1.

    With `mask` [B, F] (1 = the frame exists) `audio` is a chunk that brings the (window - hop) / 2 samples before and
    after it along: [B, F * hop + window - hop], zeros where the file has none.
    """
    spectra = stft(audio, config.window, config.hop, padded=mask is not None)
    exists = jnp.ones(spectra.shape[:2]) if mask is None else mask
    # So that XLA computes the features once, not inside every product that reads them.
    features = jax.lax.optimization_barrier(features_of(config, spectra))
    return _network(config, params).encode(features, exists[..., None])


def quantize(codebooks: jax.Array, latents: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Residual vector quantisation: each book takes the code nearest to what the books before it left over.

    codebooks [K, V, D], latents [..., D] -> codes int32 [..., K], quantised [..., K, D] (the vector of each book; their
    sum is the quantised latent) and residuals [..., K, D] (what each book was given).
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


def decode_latents(
    config: SpectralConfig, params: dict, latents: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Latents [B, F, D] (mask [B, F], 1 = the frame exists) -> audio float32 [B, F * hop]."""
    exists = jnp.ones(latents.shape[:2]) if mask is None else mask
    out = _network(config, params).decode(latents, exists[..., None])
    split = (config.bins, config.bins + config.phase_bins_out, config.bins + 2 * config.phase_bins_out)
    log_magnitude, real, imag, angle = jnp.split(out, split, axis=-1)
    magnitude = jnp.exp(jnp.clip(log_magnitude + INITIAL_LOG_MAGNITUDE, *LOG_MAGNITUDE_LIMITS))
    # The low bins' phase is the direction of a vector: linear outputs suffice for it, where an angle would have to
    # wrap. Its length is squashed to 0..1, so a frame whose phase is unknown may fade instead of guessing.
    length = jnp.sqrt(jnp.square(real) + jnp.square(imag) + 0.1)
    cosine = jnp.concatenate([real / length, jnp.cos(angle)], axis=-1)
    sine = jnp.concatenate([imag / length, jnp.sin(angle)], axis=-1)
    return istft(jax.lax.complex(magnitude * cosine, magnitude * sine), config.window, config.hop, mask)
