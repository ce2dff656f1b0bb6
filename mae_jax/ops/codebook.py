"""Vector quantization with a codebook of moving averages (VQ-VAE, van den Oord et al. 2017, arXiv
1711.00937, section 3 and appendix A.1).

In shapes, N is the number of vectors in the global batch, K the number of codes, and Z their width.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

PRECISION = jax.lax.Precision.HIGHEST
"""Of the products: with fewer bits, a vector may get another code than its nearest."""


def nearest(vectors: jax.Array, codes: jax.Array) -> jax.Array:
    """Index of the code with the smallest Euclidean distance, [...] int32.

    Args:
        vectors: [..., Z] float32.
        codes: [K, Z] float32.
    """
    # |v - c|^2 without |v|^2, which is the same for all codes. [..., K]
    products = jnp.einsum("...z,kz->...k", vectors, codes, precision=PRECISION)
    return jnp.argmin(jnp.square(codes).sum(axis=1) - 2 * products, axis=-1).astype(jnp.int32)


def straight_through(vectors: jax.Array, quantized: jax.Array) -> jax.Array:
    """The quantized vectors, with the gradient copied to the vectors before quantization."""
    return vectors + jax.lax.stop_gradient(quantized - vectors)


def statistics(vectors: jax.Array, index: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Number of vectors of each code, [K] float32, and their sum, [K, Z] float32.

    Both are sums over the global batch, so they do not depend on the number of devices.

    Args:
        vectors: [N, Z] float32.
        index: [N] int32, the code of each.
        count: number of codes K.
    """
    members = jax.nn.one_hot(index, count)  # [N, K]
    sums = jnp.einsum("nk,nz->kz", members, vectors, precision=PRECISION)
    return members.sum(axis=0), sums


def usage(index: jax.Array, count: int) -> dict[str, jax.Array]:
    """How a batch uses the codebook.

    Args:
        index: [...] int32, codes.
        count: number of codes K.

    Returns:
        'perplexity', the exponential of the entropy of the codes, from 1 to K; and 'codes_used',
        the share of codes that occur, in (0, 1].
    """
    shares = jax.nn.one_hot(index.reshape(-1), count).mean(axis=0)  # [K]
    return {
        "perplexity": jnp.exp(-xlogy(shares, shares).sum()),
        "codes_used": jnp.mean(shares > 0),
    }


def averaged(
    codes: jax.Array, counts: jax.Array, new: jax.Array, sums: jax.Array, decay: float
) -> tuple[jax.Array, jax.Array]:
    """Moves each code to the moving average of its vectors (arXiv 1711.00937, equations 6 to 8).

    Args:
        codes: [K, Z] float32.
        counts: [K] float32, moving average of the number of vectors of each code.
        new, sums: the batch's, see `statistics`.
        decay: of the averages, in [0, 1).

    Returns:
        The new codes and counts.
    """
    moved = decay * counts + (1 - decay) * new  # [K]
    # The average of the sums is not stored: it is codes * counts. [K, Z]
    total = decay * counts[:, None] * codes + (1 - decay) * sums
    weights = moved[:, None]  # [K, 1]
    return jnp.where(weights > 0, total / jnp.where(weights > 0, weights, 1), codes), moved


def revived(
    key: jax.Array, codes: jax.Array, counts: jax.Array, vectors: jax.Array, share: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Replaces dead codes by random vectors of the batch, as in Jukebox (arXiv 2005.00341).

    With all counts zero all codes are dead, so the first batch initializes the codebook.

    Args:
        codes, counts: see `averaged`.
        vectors: [N, Z] float32 of the global batch.
        share: a code is dead if its count is at most this share of the mean count; -1: none.

    Returns:
        The new codes and counts. A revived code has the mean count, but at least 1.
    """
    mean = counts.mean()
    dead = counts <= share * mean  # [K]
    rows = jax.random.randint(key, counts.shape, 0, len(vectors))
    drawn = jnp.take(vectors, rows, axis=0, mode="clip")  # [K, Z]
    return (
        jnp.where(dead[:, None], drawn, codes),
        jnp.where(dead, jnp.maximum(mean, 1), counts),
    )
