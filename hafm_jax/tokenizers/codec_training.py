"""Training the `spectral` codec: batches, losses, one update, and the run that can be interrupted.

First the codec trains without quantisation, with noise on its latents. Then its codebooks start from k-means and follow
the latents from there on (hafm_jax.tokenizers.codebooks).

Axes: B batch, S samples, F frames, W frequency bins, K codebooks, V codes of a codebook, D latent.
"""

from __future__ import annotations

import functools
import json
import math
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from hafm_jax.audio.files import read_mono, song_folders, stem_file
from hafm_jax.audio.stft import mel_per_hz
from hafm_jax.common.errors import InputError
from hafm_jax.common.files import write_bytes
from hafm_jax.common.resume import check_same_run, whole_lines
from hafm_jax.tokenizers import codecs, spectral_codec
from hafm_jax.tokenizers.choices import Recipe
from hafm_jax.tokenizers.codebooks import follow_latents, start_codebooks, unfitted_codebooks

METRICS_FILE = "metrics.jsonl"
# All constants below are ours.
LOG_EVERY_STEPS = 50
CHECKPOINT_EVERY_STEPS = 50
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
LEARNING_RATE_WARM_UP = 0.02  # of all steps
UNQUANTISED = 0.06  # of all steps: enough for latents worth clustering
MAX_UNQUANTISED_STEPS = 600
KMEANS_BATCHES = 24
FREEZE_CODES = 0.9  # of all steps; after that no code is replaced, so that the decoder can settle
# Books per example. Half of the batch has all, as in use; an eighth has four, the number that --skip-fine decodes.
BOOKS_PROBABILITIES = (0.08, 0.08, 0.06, 0.12, 0.06, 0.05, 0.05, 0.5)
GAIN_DB = (-9.0, 0.0)  # random level of a crop, for voices and bands louder or softer than the training songs
# Weights beside the distance in dB, neither of them tuned; see docs/notebook.md.
LOUD_WEIGHT = 60.0
COMMITMENT_WEIGHT = 2.5
LOUD_FLOOR = 0.01  # of a frame's summed amplitudes, which in music are about 5
LATENT_NOISE = 0.3  # standard deviation in the unquantised phase; the latents' is 1


class Checkpoints(Protocol):
    """Where the state of a run is kept: hafm_jax.training.checkpoint.Checkpoints, from a room above this one."""

    def save(self, step: int, state: Any) -> None: ...

    def restore_latest(self, like: Any) -> tuple[int, Any] | None: ...


def load_split(songs: Path, split: str, rate_hz: int) -> list[np.ndarray]:
    """The instrumentals of SONGS/split, each int16 [S] at `rate_hz`. Raises InputError where there are none."""
    paths = [stem_file(folder, "instrumental") for folder in song_folders(songs, split, "instrumental")]
    clips = []
    for path in tqdm(paths, desc=f"reading {split}", unit="song"):
        clips.append(np.round(np.clip(read_mono(path, rate_hz), -1, 1) * 32767).astype(np.int16))
    return clips


def make_batch(clips: list[np.ndarray], recipe: Recipe, samples: int, step: int) -> np.ndarray:
    """Crops float32 [B, S] at random places, levels and polarities: a pure function of (seed, step)."""
    rng = np.random.default_rng((recipe.seed, step))
    lengths = np.array([len(clip) for clip in clips], np.float64)
    batch = np.zeros((recipe.batch_size, samples), np.float32)
    for row, song in enumerate(rng.choice(len(clips), recipe.batch_size, p=lengths / lengths.sum())):
        start = rng.integers(max(1, len(clips[song]) - samples + 1))
        crop = clips[song][start : start + samples]
        batch[row, : len(crop)] = crop
    gain = 10 ** (rng.uniform(*GAIN_DB, (recipe.batch_size, 1)) / 20) * rng.choice([-1, 1], (recipe.batch_size, 1))
    return (batch * gain / 32767).astype(np.float32)


def distance_db(config: spectral_codec.SpectralConfig, logs: jax.Array, reference: jax.Array) -> jax.Array:
    """Mean distance in dB of two spectra as `spectral_codec.log_magnitudes` gives them, [B, F, W] -> [B].

    Bins count by how much of the mel scale they cover: those at 5 kHz by a quarter of those at 700 Hz.
    """
    weights = mel_per_hz(np.arange(config.bins) * config.sample_rate_hz / config.window)
    return 20 * (jnp.abs(logs - reference) * (weights / weights.mean())).mean((1, 2))


def loud_error(logs: jax.Array, reference: jax.Array) -> jax.Array:
    """Squared difference of the roots of two spectra's amplitudes over the sum of the reference's, [B, F, W] -> [B].

    `distance_db` weighs valleys like peaks and settles on a bin's median, which is too soft for partials that beat.
    This error counts loud bins, and settles on the mean.
    """
    root, wanted = (jnp.sqrt(spectral_codec.magnitudes_of(x) + 1e-8) for x in (logs, reference))
    return (jnp.square(root - wanted).sum(-1) / (jnp.square(wanted).sum(-1) + LOUD_FLOOR)).mean(1)


def loss_fn(
    params: dict,
    codebooks: jax.Array,
    config: spectral_codec.SpectralConfig,
    audio: jax.Array,
    key: jax.Array,
    quantised: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, its parts) on audio [B, S]. `params` are all but the codebooks, which `follow_latents` trains instead."""
    params = {**params, "codebooks": codebooks}
    latents = spectral_codec.encode_latents(config, params, audio)  # [B, F, D]
    out = {}
    commitment = 0.0
    if quantised:
        books = jax.random.choice(key, config.codebooks, (len(audio),), p=jnp.asarray(_book_odds(config.codebooks))) + 1
        codes, chosen, residuals = jax.lax.stop_gradient(spectral_codec.quantize(codebooks, latents))
        out |= {"codes": codes, "residuals": residuals}
        taken = (jnp.arange(config.codebooks) < books[:, None])[:, None, :, None]  # [B, 1, K, 1]
        # Pull the latent to the sum of its first k books, for every k in use.
        sums = jnp.cumsum(chosen, axis=2)  # [B, F, K, D]
        commitment = (jnp.square(latents[:, :, None] - sums) * taken).sum(2).mean()
        quantised_latents = (chosen * taken).sum(2)
        used = latents + jax.lax.stop_gradient(quantised_latents - latents)  # straight-through gradient
    else:
        used = latents + LATENT_NOISE * jax.random.normal(key, latents.shape)
    copy, wanted = (
        spectral_codec.decode_log_magnitudes(config, params, used),
        spectral_codec.log_magnitudes(config, audio),
    )
    distance, loud = distance_db(config, copy, wanted), loud_error(copy, wanted).mean()
    loss = distance.mean() + LOUD_WEIGHT * loud + COMMITMENT_WEIGHT * commitment
    out |= {"loss": loss, "commitment": jnp.asarray(commitment), "latents": latents}
    out |= {"distance_db": distance.mean(), "loud_error": loud}
    if quantised:
        full = (books == config.codebooks).astype(jnp.float32)
        out["full_distance_db"] = (distance * full).sum() / jnp.maximum(full.sum(), 1)
    return loss, out


def _book_odds(codebooks: int) -> tuple[float, ...]:
    """BOOKS_PROBABILITIES for a codec with fewer books: the last ones merge."""
    return (*BOOKS_PROBABILITIES[: codebooks - 1], sum(BOOKS_PROBABILITIES[codebooks - 1 :]))


@functools.partial(jax.jit, static_argnums=(0, 1, 6), donate_argnums=(2,))
def train_step(
    config: spectral_codec.SpectralConfig,
    optimiser: optax.GradientTransformation,
    state: dict[str, Any],
    audio: jax.Array,
    key: jax.Array,
    replace: jax.Array,
    quantised: bool,
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """One update of `state` (params, optimiser, books) on audio [B, S]; returns the state and the parts of the loss."""
    loss_key, books_key = jax.random.split(key)
    gradient = jax.grad(loss_fn, has_aux=True)
    grads, out = gradient(state["params"], state["books"]["codebooks"], config, audio, loss_key, quantised)
    updates, optimiser_state = optimiser.update(grads, state["optimiser"], state["params"])
    books = state["books"]
    if quantised:
        points = math.prod(out["codes"].shape[:2])
        residuals = out.pop("residuals").reshape(points, config.codebooks, config.latent)
        books = follow_latents(books, out.pop("codes").reshape(points, -1), residuals, books_key, replace)
    out["gradient_norm"] = optax.tree.norm(grads)
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "optimiser": optimiser_state, "books": books}, out


@functools.cache  # one optimiser for equal settings: the compiled step is of one optimiser
def make_optimiser(learning_rate: float, steps: int) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """(learning rate by step, AdamW with clipped gradients)."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(1, round(LEARNING_RATE_WARM_UP * steps)), steps
    )
    return schedule, optax.chain(
        optax.clip_by_global_norm(CLIP_NORM), optax.adamw(schedule, b1=0.9, b2=0.99, weight_decay=WEIGHT_DECAY)
    )


def train(
    clips: list[np.ndarray],
    config: spectral_codec.SpectralConfig,
    recipe: Recipe,
    workdir: Path,
    checkpoints: Checkpoints,
) -> tuple[dict, dict[str, Any]]:
    """Train on int16 clips [S]; returns the parameters and the facts of the run.

    The existing folder `workdir` gets metrics.jsonl. Where `checkpoints` holds an unfinished run, that one resumes and
    comes to the same end. Raises InputError where the folder is of another run, and where the loss is not finite.
    """
    check_same_run(workdir, {**asdict(recipe), "songs": len(clips), "samples": sum(map(len, clips))})
    samples = max(1, round(recipe.seconds * config.frame_rate_hz)) * config.hop
    frames = recipe.batch_size * samples // config.hop
    unquantised = min(MAX_UNQUANTISED_STEPS, max(1, round(UNQUANTISED * recipe.steps)))
    schedule, optimiser = make_optimiser(recipe.learning_rate, recipe.steps)
    params = jax.jit(spectral_codec.init, static_argnums=0)(config, jax.random.key(recipe.seed))
    books = unfitted_codebooks(params.pop("codebooks"))
    state = {"params": params, "optimiser": optimiser.init(params), "books": books}
    key = jax.random.key(recipe.seed + 1)
    first_step, state = checkpoints.restore_latest(state) or (0, state)
    metrics = workdir / METRICS_FILE
    lines = [line for line in map(json.loads, whole_lines(metrics)) if line["step"] <= first_step]
    write_bytes(metrics, "".join(json.dumps(line) + "\n" for line in lines).encode())
    began_s = time.monotonic() - (60 * lines[-1]["minutes"] if lines else 0)
    latents: list[jax.Array] = []
    progress = tqdm(
        range(first_step, recipe.steps),
        initial=first_step,
        total=recipe.steps,
        desc="training",
        unit="step",
        mininterval=2.0,
    )
    for step in progress:
        quantised = step >= unquantised
        if step == unquantised:
            state["books"] = start_codebooks(config, jnp.concatenate(latents), frames, key)
            latents.clear()
        audio = jnp.asarray(make_batch(clips, recipe, samples, step))
        replace = jnp.asarray(step < FREEZE_CODES * recipe.steps)
        state, out = train_step(config, optimiser, state, audio, jax.random.fold_in(key, step), replace, quantised)
        batch_latents = out.pop("latents")
        if not quantised and step >= unquantised - KMEANS_BATCHES:
            latents.append(batch_latents.reshape(-1, config.latent))
        done = step + 1
        if done % LOG_EVERY_STEPS == 0 or done == recipe.steps:
            line = {"step": done, **{name: round(float(value), 5) for name, value in out.items()}}
            if not math.isfinite(line["loss"]):
                raise InputError(
                    f"the loss is {line['loss']} at step {done}; expected a finite one: lower --learning-rate"
                )
            line["learning_rate"] = float(schedule(step))
            line["codes_in_use"] = np.asarray(state["books"]["hits"].sum(1)).tolist()
            line["minutes"] = round((time.monotonic() - began_s) / 60, 3)
            state["books"]["hits"] = jnp.zeros_like(state["books"]["hits"])
            lines.append(line)
            with metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
            progress.set_postfix(dB=line["distance_db"], refresh=False)
        # Before the codebooks start, the latents that they will start from are in no checkpoint.
        if quantised and done % CHECKPOINT_EVERY_STEPS == 0:
            checkpoints.save(done, state)
    facts = {
        **asdict(recipe),
        "unquantised_steps": unquantised,
        "minutes": round((time.monotonic() - began_s) / 60, 2),
        "songs": len(clips),
        "hours": round(sum(map(len, clips)) / config.sample_rate_hz / 3600, 3),
        "first_logged": lines[0],
        "last_logged": lines[-1],
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__},
    }
    return {**state["params"], "codebooks": state["books"]["codebooks"]}, facts


def evaluate(codec: codecs.SpectralCodec, clips: list[np.ndarray]) -> dict[str, Any]:
    """Mean spectral distance in dB on int16 clips [S] at 1, 4 and 8 books, and the number of codes in use per book."""
    audio = (clip.astype(np.float32) / 32767 for clip in tqdm(clips, desc="evaluating", unit="song"))
    figures, codes_in_use = codecs.measure(codec, audio, (1, 4, 8))
    return {
        "songs": len(clips),
        **{
            f"{books}_books": {"spectral_distance_db": round(float(np.mean(distances)), 3)}
            for books, distances in figures.items()
        },
        "codes_in_use": codes_in_use,
    }
