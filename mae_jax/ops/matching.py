"""Matching of anchors or proposals to objects, and random sampling of them for training (arXiv
1506.01497, section 3.1.2), with static shapes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.ops.boxes import iou
from mae_jax.ops.top import top_k


class Match(NamedTuple):
    """The object that each box overlaps most."""

    index: jax.Array
    """[N] int32, among the objects; 0 if there are none."""
    iou: jax.Array
    """[N] float32, their overlap; 0 if there are none."""
    best: jax.Array
    """[N] bool: no box overlaps some object more than this one, which may not be its `index`."""


def match(boxes: jax.Array, objects: jax.Array, valid: jax.Array) -> Match:
    """Matches boxes [N, 4] to objects [M, 4]; among equal overlaps the first object counts.

    Args:
        valid: [M] bool, False for padding, which is never matched.
    """
    # Held in memory, or two loops would compute it with different rounding and `best` miss ties.
    overlap = jax.lax.optimization_barrier(iou(boxes, objects))  # [N, M]
    overlap = jnp.where(valid, overlap, -1)
    largest = overlap.max(axis=0)  # [M]
    best = jnp.any((overlap == largest) & (largest > 0), axis=1)
    return Match(jnp.argmax(overlap, axis=1), jnp.maximum(overlap.max(axis=1), 0), best)


class Sample(NamedTuple):
    """A random choice of boxes, padded to a static number: positives, negatives, padding."""

    index: jax.Array
    """[count] int32, among the boxes."""
    positive: jax.Array
    """[count] bool."""
    valid: jax.Array
    """[count] bool, False for padding."""


def sample(
    key: jax.Array, positive: jax.Array, negative: jax.Array, *, count: int, positives: int
) -> Sample:
    """Chooses at random up to `positives` positive boxes, and fills up with negative ones.

    Args:
        positive, negative: [N] bool; boxes that are neither are not chosen.
        count: size of the sample, at most N.
        positives: maximum number of positives, at most `count`.
    """
    noise = jax.random.uniform(key, positive.shape)
    draw = lambda among, most: top_k(jnp.where(among, noise, -1), most)
    first, first_at = draw(positive, positives)
    second, second_at = draw(negative, count)
    first_valid = first >= 0  # [positives]
    second_valid = (second >= 0) & (jnp.arange(count) < count - first_valid.sum())
    valid = jnp.concatenate([first_valid, second_valid])  # [positives + count]
    # Ties keep their order, so valid ones come first and positives before negatives.
    valid, at = top_k(valid.astype(jnp.int32), count)
    index = jnp.concatenate([first_at, second_at])[at]
    return Sample(index, (at < positives) & (valid > 0), valid > 0)
