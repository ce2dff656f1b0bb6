"""Masks of texts with padding, for an encoder of visible tokens (M3AE, arXiv 2205.14204), and the
loss of masked tokens.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class TextMask(NamedTuple):
    """The mask of a batch of texts of T positions, of which at most S are encoded."""

    order: jax.Array
    """[B, T] int32: all positions of the text: visible tokens, masked tokens, padding."""
    seen: jax.Array
    """[B, S] bool: which of the first S positions in this order are visible tokens. The others are
    left out of the attention."""
    valid: jax.Array
    """[B, T] bool, in this order: True for tokens, False for padding."""

    @property
    def masked(self) -> jax.Array:
        """[B, T] bool, in this order: True for masked tokens."""
        rest = self.valid.shape[1] - self.seen.shape[1]
        return self.valid & ~jnp.pad(self.seen, ((0, 0), (0, rest)))

    def sort(self, x: jax.Array) -> jax.Array:
        """Rows [B, T] of the text to this order."""
        return jnp.take_along_axis(x, self.order, axis=1)

    def unsort(self, x: jax.Array) -> jax.Array:
        """Rows [B, T] in this order to those of the text."""
        return jnp.take_along_axis(x, jnp.argsort(self.order, axis=1), axis=1)


def draw(key: jax.Array, valid: jax.Array, ratio: float) -> TextMask:
    """Masks tokens at random, each example by itself, without its padding.

    Of n tokens, floor(n (1 - ratio) + u) stay visible, with u uniform in [0, 1): a share of
    1 - ratio in expectation, for texts of any length. Short texts may have no visible token, or no
    masked one.

    Args:
        valid: [B, T] bool, False for padding.
        ratio: fraction of masked tokens, in [0, 1).
    """
    keys = jax.random.split(key)
    batch, length = valid.shape
    # Padding comes last: noise is below 1.
    noise = jax.random.uniform(keys[0], valid.shape) + 2 * ~valid
    order = jnp.argsort(noise, axis=1).astype(jnp.int32)
    count = jnp.sum(valid, axis=1)  # [B]
    visible = jnp.floor(count * (1 - ratio) + jax.random.uniform(keys[1], (batch,)))
    slots = math.ceil(length * (1 - ratio) - 1e-6)
    # In float32 the sum may round up to the next integer.
    visible = jnp.minimum(visible.astype(count.dtype), jnp.minimum(count, slots))
    places = jnp.arange(length)
    return TextMask(order, places[:slots] < visible[:, None], places < count[:, None])


def whole(valid: jax.Array) -> TextMask:
    """The mask of texts without masked tokens, in the order of the text.

    Args:
        valid: [B, T] bool, False for padding.
    """
    order = jnp.broadcast_to(jnp.arange(valid.shape[1], dtype=jnp.int32), valid.shape)
    return TextMask(order, valid, valid)


def cross_entropy(
    logits: jax.Array, tokens: jax.Array, scored: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cross-entropy of tokens, averaged over the scored ones of each text, and then over the
    texts that have any.

    Args:
        logits: [B, T, V].
        tokens: [B, T] int32.
        scored: [B, T] bool.

    Returns:
        Loss, and the fraction of the scored tokens that have the largest logit; scalars float32, 0
        if nothing is scored.
    """
    logits = logits.astype(jnp.float32)
    errors = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)  # [B, T]
    count = scored.sum(axis=1)  # [B]
    each = jnp.sum(errors * scored, axis=1) / jnp.maximum(count, 1)
    right = (jnp.argmax(logits, axis=-1) == tokens) & scored
    loss = each.sum() / jnp.maximum((count > 0).sum(), 1)
    return loss, right.sum() / jnp.maximum(count.sum(), 1)
