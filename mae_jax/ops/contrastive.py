"""Contrastive losses: NT-Xent of SimCLR (arXiv 2002.05709), InfoNCE of MoCo v3 (arXiv 2104.02057),
that of NNCLR (arXiv 2104.14548), whose positives come from a queue, and those of images and texts:
CLIP (arXiv 2103.00020) and SigLIP (arXiv 2303.15343).

Under jit with sharded arrays, the negatives are those of the global batch: embeddings are gathered
from all devices, and each device computes the similarities of its own rows.
"""

import jax
import jax.numpy as jnp
import optax

from mae_jax.types import UserError

FAR = -1e30
"""Logit of candidates that are left out: finite, so that rows without any have gradients of 0."""


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


def nnclr(
    neighbors: jax.Array, predictions: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """The loss of NNCLR (arXiv 2104.14548, section 3.2) for one order of the views: InfoNCE of each
    neighbor among the B predictions, and of each prediction among the B neighbors.

    Args:
        neighbors: [B, D] unit rows, the nearest neighbors of one view; see `nearest`.
        predictions: [B, D], from the other view of the same images.
        temperature: divides the cosine similarities, positive.

    Returns:
        Mean loss of both directions, at least 0, and top-1 accuracy: the fraction of neighbors
        whose most similar prediction is that of their image. Scalars, float32.
    """
    _check_others(len(neighbors))
    similarity = jnp.matmul(neighbors, unit(predictions).T, precision="highest")  # [B, B]
    logits, labels = similarity / temperature, jnp.arange(len(neighbors))
    (one, accuracy), (other, _) = (_cross_entropy(x, labels) for x in (logits, logits.T))
    return (one + other) / 2, accuracy


def image_text(
    images: jax.Array, texts: jax.Array, valid: jax.Array, *, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The loss of CLIP (arXiv 2103.00020, figure 3): InfoNCE of each image among the B texts, and
    of each text among the B images.

    Args:
        images, texts: [B, D].
        valid: [B] bool; False for pairs without a text, or without an image. They are left out.
        scale: factor of the cosine similarities, the inverse of the temperature.

    Returns:
        Mean loss of both directions, at least 0; and top-1 accuracy: the fraction of images whose
        most similar text is their own. Scalars, float32, 0 if no pair is valid.
    """
    _check_others(len(images))
    logits = scale * jnp.matmul(unit(images), unit(texts).T, precision="highest")  # [B, B]
    own, count = jnp.diagonal(logits), jnp.maximum(valid.sum(), 1)
    others = jnp.where(valid, logits, FAR), jnp.where(valid, logits.T, FAR)
    losses = [jax.nn.logsumexp(x, axis=1) - own for x in others]  # [B] each
    hits = jnp.argmax(others[0], axis=1) == jnp.arange(len(own))
    mean = lambda x: jnp.sum(jnp.where(valid, x, 0)) / count
    return mean(sum(losses) / 2), mean(hits)


def image_text_sigmoid(
    images: jax.Array, texts: jax.Array, valid: jax.Array, *, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The loss of SigLIP (arXiv 2303.15343, section 3.2): a binary classification of all B x B
    pairs, summed over the texts and averaged over the images.

    Args:
        images, texts, valid, scale: see `image_text`.
        bias: added to the scaled similarities.

    Returns:
        The loss and the top-1 accuracy, see `image_text`.
    """
    _check_others(len(images))
    logits = scale * jnp.matmul(unit(images), unit(texts).T, precision="highest") + bias  # [B, B]
    count = jnp.maximum(valid.sum(), 1)
    signs = 2 * jnp.eye(len(images)) - 1  # 1 for pairs, -1 for all others
    losses = jnp.where(valid[:, None] & valid, jax.nn.softplus(-signs * logits), 0)
    hits = jnp.argmax(jnp.where(valid, logits, FAR), axis=1) == jnp.arange(len(images))
    return losses.sum() / count, jnp.sum(hits & valid) / count


def nearest(queries: jax.Array, queue: jax.Array) -> jax.Array:
    """The most similar row of a queue [N, D] of unit rows for each of queries [B, D], by cosine:
    [B, D], without gradients.
    """
    similarity = jnp.matmul(unit(queries), queue.T, precision="highest")  # [B, N]
    return jax.lax.stop_gradient(queue[jnp.argmax(similarity, axis=1)])  # [B, D]


def enqueue(queue: jax.Array, rows: jax.Array) -> jax.Array:
    """A queue [N, D] with rows [B, D], scaled to length 1, in front of it, without its oldest rows,
    which are the last. New rows keep their order in the global batch.
    """
    return jax.lax.stop_gradient(jnp.concatenate([unit(rows), queue])[: len(queue)])


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
