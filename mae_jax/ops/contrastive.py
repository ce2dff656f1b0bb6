"""Contrastive losses: NT-Xent of SimCLR (arXiv 2002.05709) and InfoNCE of MoCo v3 (arXiv
2104.02057).

Under jit with sharded arrays, the negatives are those of the global batch: embeddings are gathered
from all devices, and each device computes the similarities of its own rows.
"""

import jax
import jax.numpy as jnp
import optax

from mae_jax.types import UserError


def unit(x: jax.Array) -> jax.Array:
    """L2-normalizes rows [N, D], in float32. Rows of zeros stay zero, with a gradient of zero."""
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    zero = square < 1e-24
    return jnp.where(zero, 0, x * jax.lax.rsqrt(jnp.where(zero, 1, square)))


def nt_xent(one: jax.Array, two: jax.Array, *, temperature: float) -> tuple[jax.Array, jax.Array]:
    """The normalized temperature-scaled cross-entropy of SimCLR (arXiv 2002.05709, equation 1): for
    each of the 2 B views, the positive is the other view of its image, among 2 B - 1 candidates.

    Args:
        one, two: [B, D], embeddings of two views of the same images.
        temperature: divides the cosine similarities, positive.

    Returns:
        Mean loss over the views, at least 0, and top-1 accuracy: the fraction of views whose
        nearest candidate is the positive. Scalars, float32.
    """
    _check_others(len(one))
    # Image i has rows 2 i and 2 i + 1, so that both are on its device. Concatenated views would
    # have to move between devices.
    z = jnp.stack([unit(one), unit(two)], axis=1).reshape(2 * len(one), -1)  # [2 B, D]
    rows = jnp.arange(len(z))
    logits = jnp.matmul(z, z.T, precision="highest") / temperature  # [2 B, 2 B]
    logits = jnp.where(rows[:, None] == rows, -jnp.inf, logits)  # a view is no candidate of itself
    return _cross_entropy(logits, rows ^ 1)  # 2 i <-> 2 i + 1


def info_nce(
    queries: jax.Array, keys: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """The InfoNCE loss of MoCo v3 (arXiv 2104.02057, algorithm 1) in one direction: the positive of
    a query is the key of the same row, among the B keys. Scaled by 2 x temperature.

    Args:
        queries, keys: [B, D]; gradients do not flow to the keys.
        temperature: divides the cosine similarities, positive.

    Returns:
        Mean loss over the queries, at least 0, and top-1 accuracy: the fraction of queries whose
        nearest key is the positive. Scalars, float32.
    """
    _check_others(len(queries))
    keys = jax.lax.stop_gradient(unit(keys))
    logits = jnp.matmul(unit(queries), keys.T, precision="highest") / temperature  # [B, B]
    loss, accuracy = _cross_entropy(logits, jnp.arange(len(keys)))
    return 2 * temperature * loss, accuracy


def _check_others(count: int) -> None:
    """Raises UserError if an image has no negatives, which would make the loss constant."""
    if count < 2:
        raise UserError(
            "contrastive learning needs at least 2 images in a batch, and with config.accumulate "
            f"in each microbatch, but has {count}: raise config.data.batch_size, or lower "
            "config.accumulate"
        )


def _cross_entropy(logits, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), jnp.mean(jnp.argmax(logits, axis=1) == labels)
