"""How the codebooks of `spectral` learn: they start from k-means and then follow the latents by moving averages (EMA).

Axes: K codebooks, V codes of a codebook, D latent, P points.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from hafm_jax.tokenizers import spectral_codec

# All ours.
KMEANS_ROUNDS = 8
EMA_DECAY = 0.99  # of a code's count and sum
DEAD_SHARE = 0.1  # a code chosen less often than this, by its moving average and against an even share, is dead


def unfitted_codebooks(codebooks: jax.Array) -> dict[str, jax.Array]:
    """The state of `follow_latents` for random codebooks [K, V, D], in the shapes of `start_codebooks`."""
    counts = jnp.ones(codebooks.shape[:2])
    return {"codebooks": codebooks, "counts": counts, "sums": codebooks + 0, "hits": jnp.zeros(counts.shape, bool)}


def start_codebooks(
    config: spectral_codec.SpectralConfig, latents: jax.Array, frames: int, key: jax.Array
) -> dict[str, jax.Array]:
    """Codebooks and EMA state from latents [P, D], book by book on what the books before it leave over.

    Counts and sums are scaled from the P points to a batch of `frames`.
    """
    residual, codebooks, all_counts = latents, [], []
    for book_key in jax.random.split(key, config.codebooks):
        book, counts = kmeans(residual, config.vocabulary, KMEANS_ROUNDS, book_key)
        residual = residual - spectral_codec.quantize(book[None], residual)[1][:, 0]
        codebooks.append(book)
        all_counts.append(counts)
    books, counts = jnp.stack(codebooks), jnp.stack(all_counts)
    counts = jnp.maximum(counts, 1.0) / len(latents)
    return {
        "codebooks": books,
        "counts": counts * frames,
        "sums": books * counts[..., None] * frames,
        "hits": jnp.zeros(counts.shape, bool),
    }


def follow_latents(
    books: dict[str, jax.Array], codes: jax.Array, residuals: jax.Array, key: jax.Array, replace: jax.Array
) -> dict[str, jax.Array]:
    """Move every code to the moving average of the residuals that chose it; restart dead codes at random residuals.

    books: codebooks [K, V, D], counts [K, V], sums [K, V, D], hits bool [K, V]; codes [P, K]; residuals [P, K, D].
    Without `replace` (a bool array []) dead codes stay where they are.
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
