"""Train our neural audio codec `spectral` on the instrumentals of a songs folder.

    python tokenize/train_codec.py --songs SONGS --out TOKENIZERS

Reads SONGS/train/*/instrumental (.wav or .flac, any rate; all of it is held in memory as 16-bit mono, about 170 MB an
hour) and SONGS/validation for the final evaluation. Writes TOKENIZERS/codec: config.json, with what was trained on what
and how good it is on the validation songs, codec.safetensors and metrics.jsonl. Equal arguments on one machine give
equal weights. While it trains, TOKENIZERS/codec_training holds checkpoints: the same command goes on from the last one.

First the codec trains without quantisation, with noise on its latents. Then the codebooks start from k-means, book by
book on what the books before leave over, and follow the latents by moving averages (EMA) from there on.

Axes: B batch, S samples, F frames, K codebooks, V codes of a codebook, D latent, P points.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import platform
import shutil
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from hafm_jax.audio.files import read_audio, resample, song_folders, stem_file, to_mono
from hafm_jax.audio.stft import mel_per_hz
from hafm_jax.common.errors import InputError, run_command
from hafm_jax.common.files import write_bytes
from hafm_jax.tokenizers import codecs, spectral_codec
from hafm_jax.training.checkpoint import Checkpoints

LOG_EVERY_STEPS = 50
CHECKPOINT_EVERY_STEPS = 50  # a second's work beside minutes of training
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
LEARNING_RATE_WARM_UP = 0.02  # of all steps
UNQUANTISED = 0.06  # of all steps: enough for latents worth clustering
MAX_UNQUANTISED_STEPS = 600
KMEANS_BATCHES = 24
KMEANS_ROUNDS = 8
FREEZE_CODES = 0.9  # of all steps; after that no code is replaced, so that the decoder can settle
EMA_DECAY = 0.99  # of a code's count and sum
DEAD_SHARE = 0.1  # a code chosen less often than this, by its moving average and against an even share, is dead
# Books per example. Half of the batch has all, since that is what ships; an eighth has four, what --skip-fine decodes.
BOOKS_PROBABILITIES = (0.08, 0.08, 0.06, 0.12, 0.06, 0.05, 0.05, 0.5)
GAIN_DB = (-9.0, 0.0)  # random level of a crop, for voices and bands louder or softer than the training songs
# Against the distance in dB. With the loud error the copies of 12 unseen songs after 1,500 steps were at 3.5 dB, not
# 3.9, and their chords at 0.81, not 0.79; neither weight is tuned.
LOUD_WEIGHT = 60.0
COMMITMENT_WEIGHT = 2.5
LOUD_FLOOR = 0.01  # of a frame's summed amplitudes, which of music are about 5
LATENT_NOISE = 0.3  # standard deviation in the unquantised phase; the latents' is 1


@dataclass(frozen=True)
class Recipe:
    """What the user sets of a run."""

    steps: int = 6000
    batch_size: int = 16
    seconds: float = 1.0
    learning_rate: float = 1e-3
    seed: int = 0


def load_split(songs: Path, split: str, rate_hz: int) -> list[np.ndarray]:
    """The instrumentals of SONGS/split, each int16 [S] at `rate_hz`. Raises InputError where there are none."""
    paths = [stem_file(folder, "instrumental") for folder in song_folders(songs, split, "instrumental")]
    clips = []
    for path in tqdm(paths, desc=f"reading {split}", unit="song"):
        audio, found_hz = read_audio(path)
        mono = resample(to_mono(audio)[None], found_hz, rate_hz)[0]
        clips.append(np.round(np.clip(mono, -1, 1) * 32767).astype(np.int16))
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
    """Mean distance of two spectra as `spectral.log_magnitudes` has them, [B, F, W] -> [B], in dB. Bins count by how
    much of the mel scale they cover: those at 5 kHz by a quarter of those at 700 Hz."""
    weights = mel_per_hz(np.arange(config.bins) * config.sample_rate_hz / config.window)
    return 20 * (jnp.abs(logs - reference) * (weights / weights.mean())).mean((1, 2))


def loud_error(logs: jax.Array, reference: jax.Array) -> jax.Array:
    """Squared difference of the roots of two spectra's amplitudes over the sum of the reference's, frame by frame,
    [B, F, W] -> [B]. Where `distance_db` weighs valleys like peaks and settles on a bin's median, which of partials
    that beat is too soft, this one counts what is loud, and settles on the mean."""
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
    """Loss and what it is made of. `params` are all but the codebooks, which learn by `follow_latents` instead."""
    params = {**params, "codebooks": codebooks}
    latents = spectral_codec.encode_latents(config, params, audio)  # [B, F, D]
    out = {}
    commitment = 0.0
    if quantised:
        books = jax.random.choice(key, config.codebooks, (len(audio),), p=jnp.asarray(_book_odds(config.codebooks))) + 1
        codes, chosen, residuals = jax.lax.stop_gradient(spectral_codec.quantize(codebooks, latents))
        out |= {"codes": codes, "residuals": residuals}
        taken = (jnp.arange(config.codebooks) < books[:, None])[:, None, :, None]  # [B, 1, K, 1]
        # Pull the latent to what its first k books make of it, for every k in use.
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


def follow_latents(
    books: dict[str, jax.Array], codes: jax.Array, residuals: jax.Array, key: jax.Array, replace: jax.Array
) -> dict[str, jax.Array]:
    """Move every code to the moving average of the residuals that chose it; restart dead codes at random residuals.

    books: codebooks [K, V, D], counts [K, V], sums [K, V, D], hits bool [K, V]; codes [P, K]; residuals [P, K, D].
    """
    vocabulary = books["counts"].shape[1]

    def one_book(counts, sums, hits, codes, residuals, key):  # [V], [V, D], [V], [P], [P, D]
        new = jnp.zeros_like(counts).at[codes].add(1.0)
        counts = EMA_DECAY * counts + (1 - EMA_DECAY) * new
        sums = EMA_DECAY * sums + (1 - EMA_DECAY) * jnp.zeros_like(sums).at[codes].add(residuals)
        even = len(codes) / vocabulary
        dead = (counts < DEAD_SHARE * even) & replace
        fresh = residuals[jax.random.randint(key, (vocabulary,), 0, len(residuals))]
        counts = jnp.where(dead, even, counts)  # as if it were chosen like any other, so that it lives for a while
        sums = jnp.where(dead[:, None], fresh * even, sums)
        return counts, sums, hits | (new > 0), sums / jnp.maximum(counts, 1e-6)[:, None]

    keys = jax.random.split(key, len(books["counts"]))
    counts, sums, hits, codebooks = jax.vmap(one_book)(
        books["counts"], books["sums"], books["hits"], codes.T, jnp.moveaxis(residuals, 1, 0), keys
    )
    return {"codebooks": codebooks, "counts": counts, "sums": sums, "hits": hits}


@functools.partial(jax.jit, static_argnums=(1, 2))
def kmeans(points: jax.Array, clusters: int, rounds: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lloyd's algorithm from random points: [P, D] -> centroids [V, D] and counts [V]. An empty cluster restarts."""

    def one_round(centroids, key):
        distance = jnp.square(centroids).sum(1) - 2 * points @ centroids.T
        nearest = jnp.argmin(distance, axis=1)
        counts = jnp.zeros(clusters).at[nearest].add(1.0)
        sums = jnp.zeros_like(centroids).at[nearest].add(points)
        fresh = points[jax.random.randint(key, (clusters,), 0, len(points))]
        return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], fresh), counts

    start = points[jax.random.choice(key, len(points), (clusters,), replace=len(points) < clusters)]
    centroids, counts = jax.lax.scan(one_round, start, jax.random.split(key, rounds))
    return centroids, counts[-1]


def start_codebooks(config: spectral_codec.SpectralConfig, latents: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
    """Codebooks and EMA state from latents [P, D], book by book on what the books before it leave over."""
    residual, codebooks, all_counts = latents, [], []
    for book_key in jax.random.split(key, config.codebooks):
        book, counts = kmeans(residual, config.vocabulary, KMEANS_ROUNDS, book_key)
        residual = residual - spectral_codec.quantize(book[None], residual)[1][:, 0]
        codebooks.append(book)
        all_counts.append(counts)
    books, counts = jnp.stack(codebooks), jnp.stack(all_counts)
    counts = jnp.maximum(counts, 1.0) / len(latents)  # share of points; scaled to a batch by the caller
    return {
        "codebooks": books,
        "counts": counts,
        "sums": books * counts[..., None],
        "hits": jnp.zeros(counts.shape, bool),
    }


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
    """One update of `state` (params, optimiser, books) on audio [B, S]."""
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


def start_workdir(workdir: Path, recipe: Recipe, clips: list[np.ndarray]) -> None:
    """Note what is trained, or check that what the directory holds is the same run. Raises InputError if not."""
    path = workdir / "recipe.json"
    asked = {**asdict(recipe), "songs": len(clips), "samples": sum(map(len, clips))}
    if not path.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        write_bytes(path, (json.dumps(asked) + "\n").encode())
    elif (found := json.loads(path.read_text())) != asked:
        raise InputError(
            f"{workdir} holds an unfinished run of {found}; asked for is {asked}: give the same arguments and songs, "
            "or remove the directory"
        )


def train(
    clips: list[np.ndarray], config: spectral_codec.SpectralConfig, recipe: Recipe, workdir: Path
) -> tuple[dict, dict[str, Any]]:
    """Train on int16 clips; gives the parameters and the facts of the run.

    `workdir` gets checkpoints and metrics.jsonl; where it holds an unfinished run, that one goes on, to the same end.
    """
    start_workdir(workdir, recipe, clips)
    with closing(Checkpoints(workdir, keep=1)) as checkpoints:  # interrupted, it waits for what is being written
        return _train(clips, config, recipe, workdir, checkpoints)


def _train(
    clips: list[np.ndarray],
    config: spectral_codec.SpectralConfig,
    recipe: Recipe,
    workdir: Path,
    checkpoints: Checkpoints,
) -> tuple[dict, dict[str, Any]]:
    samples = max(1, round(recipe.seconds * config.frame_rate_hz)) * config.hop
    frames = recipe.batch_size * samples // config.hop
    params = jax.jit(spectral_codec.init, static_argnums=0)(config, jax.random.key(recipe.seed))
    codebooks = params.pop("codebooks")
    counts = jnp.ones(codebooks.shape[:2])
    books = {"codebooks": codebooks, "counts": counts, "sums": codebooks + 0, "hits": jnp.zeros(counts.shape, bool)}
    unquantised = min(MAX_UNQUANTISED_STEPS, max(1, round(UNQUANTISED * recipe.steps)))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, max(1, round(LEARNING_RATE_WARM_UP * recipe.steps)), recipe.steps
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(CLIP_NORM), optax.adamw(schedule, b1=0.9, b2=0.99, weight_decay=WEIGHT_DECAY)
    )
    state = {"params": params, "optimiser": optimiser.init(params), "books": books}
    key = jax.random.key(recipe.seed + 1)
    first_step = checkpoints.latest() or 0
    if first_step:
        state = checkpoints.restore(first_step, state)
    metrics = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if first_step else []
    lines = [line for line in lines if line["step"] <= first_step]
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
            state["books"] = start_codebooks(config, jnp.concatenate(latents), key)
            for name in ("counts", "sums"):
                state["books"][name] *= frames
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
                raise InputError(f"the loss became {line['loss']} at step {done}: lower --learning-rate")
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
    """Mean figures on clips at 1, 4 and 8 books, and the codes in use per book."""
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    recipe = Recipe()
    parser.add_argument("--songs", type=Path, required=True, help="songs folder; reads its splits train and validation")
    parser.add_argument("--out", type=Path, required=True, help="tokenizers folder; writes OUT/codec")
    parser.add_argument("--steps", type=int, default=recipe.steps, help="updates")
    parser.add_argument("--batch-size", type=int, default=recipe.batch_size, help="crops an update")
    parser.add_argument("--seconds", type=float, default=recipe.seconds, help="length of a crop")
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate, help="peak, warmed up then cosine")
    parser.add_argument("--seed", type=int, default=recipe.seed)
    args = parser.parse_args()
    for name in ("steps", "batch_size", "seconds", "learning_rate"):
        if not getattr(args, name) > 0:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected a number above 0")
    recipe = Recipe(args.steps, args.batch_size, args.seconds, args.learning_rate, args.seed)
    config = spectral_codec.SpectralConfig()
    clips = load_split(args.songs, "train", config.sample_rate_hz)
    held_out = load_split(args.songs, "validation", config.sample_rate_hz)
    directory, workdir = args.out / "codec", args.out / "codec_training"
    params, facts = train(clips, config, recipe, workdir)
    codecs.save_spectral(directory, config, params, training=facts)
    shutil.copy(workdir / "metrics.jsonl", directory)
    evaluation = evaluate(codecs.load_codec(directory), held_out)  # of the float16 weights, which are what ships
    codecs.save_spectral(directory, config, params, training=facts, evaluation=evaluation)
    shutil.rmtree(workdir)  # only now: an evaluation that is cut off trains nothing anew
    print(json.dumps(evaluation, indent=2))


if __name__ == "__main__":
    run_command(main)
