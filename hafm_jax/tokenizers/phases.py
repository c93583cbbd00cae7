"""Sound from magnitudes alone, by finding phases on which overlapping STFT frames agree.

Frames come one after the other, and the phases of each are final when LOOK_AHEAD more have come. Until then all frames
under work are turned into samples and back several times, each time with the wanted magnitudes (real-time iterative
spectrogram inversion with look-ahead, Zhu, Beauregard & Wyse 2007; the extrapolation is that of the fast Griffin-Lim
algorithm, Perraudin et al. 2013). The work is linear in the length, the memory constant, and a file in pieces gives
the sound of one pass. For its error see docs/notebook.md.

Axes: F frames, L frames under work (LOOK_AHEAD + 1, the last the newest), N samples of a window, W bins.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hafm_jax.audio.stft import hann_window, overlap_add, split_frames

LOOK_AHEAD = 3  # frames: as many as begin before a frame of four hops ends
ROUNDS = 8  # ours; see docs/notebook.md
EXTRAPOLATION = 0.99  # the authors' choice for the fast Griffin-Lim algorithm
LEAST_POWER = 1e-2  # of summed squared windows, which is 1.5 inside a file: no smaller power is divided by


class State(NamedTuple):
    """The state between two frames. `done` and `power` begin where the oldest frame under work does."""

    done: jax.Array  # [N - hop]: sum of the finished frames, windowed
    power: jax.Array  # [N - hop]: the sum of their squared windows
    frames: jax.Array  # [L - 1, N]: those under work, windowed
    magnitudes: jax.Array  # [L - 1, W]
    exists: jax.Array  # [L - 1]: 1, or 0 before a file's first frame and after its last


def start(size: int, hop: int) -> State:
    """The state before a file's first frame."""
    shapes = [(size - hop,), (size - hop,), (LOOK_AHEAD, size), (LOOK_AHEAD, size // 2 + 1), (LOOK_AHEAD,)]
    return State(*(jnp.zeros(shape) for shape in shapes))


def delay_samples(size: int, hop: int) -> int:
    """By how many samples the output of `invert` is late."""
    return LOOK_AHEAD * hop + (size - hop) // 2


def invert(state: State, magnitudes: jax.Array, exists: jax.Array, size: int, hop: int) -> tuple[State, jax.Array]:
    """The next frames' magnitudes [F, W], scaled as by `stft.stft`, and which of them exist, [F] of 1 and 0
    -> the new state, and float32 [F * hop]: the next samples, late by `delay_samples`."""
    window = hann_window(size)
    to_samples = window * (window.sum() / 2)  # the inverse of stft's scale, and the window once more
    centred = jnp.asarray((-1.0) ** np.arange(size // 2 + 1))  # phases of a click in the middle of the frame

    def one_frame(state: State, new: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        wanted = jnp.concatenate([state.magnitudes, new[0][None]])  # [L, W]
        exists = jnp.concatenate([state.exists, new[1][None]])
        squares = exists[:, None] * (window * window)

        def spectra_of(frames: jax.Array, squares: jax.Array) -> jax.Array:
            """Spectra [L, W] of the samples that the finished frames and these frames make together."""
            sound, power = (overlap_add(x[None], hop)[0] for x in (frames, squares))  # [N + (L - 1) hop]
            sound = sound.at[: size - hop].add(state.done)
            power = power.at[: size - hop].add(state.power)
            sound = sound / jnp.maximum(power, LEAST_POWER)
            return jnp.fft.rfft(split_frames(sound[None], size, hop)[0] * window)

        def with_phases(spectra: jax.Array) -> jax.Array:
            length = jnp.abs(spectra)
            phases = jnp.where(length > 1e-9, spectra / jnp.maximum(length, 1e-9), centred)
            return jnp.fft.irfft(wanted * phases, n=size) * to_samples

        # The newest frame begins with the phases of the samples that older frames leave in its place.
        known = spectra_of(*(x.at[-1].set(0.0) for x in (jnp.pad(state.frames, ((0, 1), (0, 0))), squares)))
        frames = jnp.concatenate([state.frames, with_phases(known)[-1:]])

        def one_round(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            frames, before = carry
            spectra = spectra_of(frames, squares)
            further = spectra + jnp.where(number > 0, EXTRAPOLATION, 0.0) * (spectra - before)
            return with_phases(further), spectra

        frames, _ = jax.lax.fori_loop(0, ROUNDS, one_round, (frames, jnp.zeros_like(known)))
        done = jnp.pad(state.done, (0, hop)) + frames[0]
        power = jnp.pad(state.power, (0, hop)) + squares[0]
        samples = done[:hop] / jnp.maximum(power[:hop], LEAST_POWER)
        return State(done[hop:], power[hop:], frames[1:], wanted[1:], exists[1:]), samples

    state, samples = jax.lax.scan(one_frame, state, (magnitudes, exists))
    return state, samples.reshape(-1)
