"""Contrastive losses: NT-Xent of SimCLR (arXiv 2002.05709) and InfoNCE as MoCo v3 has it (arXiv
2104.02057).

Under jit with arrays that are split over devices, the others that a view is told apart from are
those of the whole batch, on all devices: a row's similarities stay on its device, and only the
embeddings are gathered.
"""

import jax
import jax.numpy as jnp
import optax

from mae_jax.types import UserError


def unit(x: jax.Array) -> jax.Array:
    """Rows [N, D] scaled to length 1, float32; a row of zeros stays one, with a gradient of 0."""
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    zero = square < 1e-24
    return jnp.where(zero, 0, x * jax.lax.rsqrt(jnp.where(zero, 1, square)))


def nt_xent(one: jax.Array, two: jax.Array, *, temperature: float) -> tuple[jax.Array, jax.Array]:
    """The normalised temperature-scaled cross-entropy of SimCLR (arXiv 2002.05709, equation 1):
    each of the 2 B views has to find the other view of its image among the 2 B - 1 others.

    Args:
        one, two: [B, D], two views of the same images.
        temperature: of the cosine similarities, positive.

    Returns:
        The mean over the views, at least 0, and the share of them that find it; scalars, float32.
    """
    _check_others(len(one))
    # Rows 2 i and 2 i + 1 are image i: on the same device, which they are not one after the other.
    z = jnp.stack([unit(one), unit(two)], axis=1).reshape(2 * len(one), -1)
    rows = jnp.arange(len(z))
    logits = jnp.matmul(z, z.T, precision="highest") / temperature
    logits = jnp.where(rows[:, None] == rows, -jnp.inf, logits)
    return _cross_entropy(logits, rows ^ 1)


def info_nce(
    queries: jax.Array, keys: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """The loss of MoCo v3 (arXiv 2104.02057, algorithm 1) in one direction: each query has to find
    its key among the B keys. Scaled by 2 x temperature.

    Args:
        queries, keys: [B, D]; no gradient reaches the keys.
        temperature: of the cosine similarities, positive.

    Returns:
        The mean over the queries, at least 0, and the share of them that find it; scalars, float32.
    """
    _check_others(len(queries))
    keys = jax.lax.stop_gradient(unit(keys))
    logits = jnp.matmul(unit(queries), keys.T, precision="highest") / temperature
    loss, found = _cross_entropy(logits, jnp.arange(len(keys)))
    return 2 * temperature * loss, found


def _check_others(count: int) -> None:
    """Raises UserError if an image has no other to be told apart from: nothing would be learned."""
    if count < 2:
        raise UserError(
            "contrastive learning tells images apart, and there is one in a batch, or in the part "
            "of it that is computed at a time: raise config.data.batch_size, or lower "
            "config.accumulate"
        )


def _cross_entropy(logits, own):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, own)
    return losses.mean(), jnp.mean(jnp.argmax(logits, axis=1) == own)
