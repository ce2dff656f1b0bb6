"""Non-maximum suppression: keeps boxes from the highest score down, unless a kept one of the same
group overlaps them. With static shapes, as a fixed point.
"""

import jax
import jax.numpy as jnp

from mae_jax.ops.boxes import iou
from mae_jax.ops.top import top_k


def nms(
    boxes: jax.Array, scores: jax.Array, groups: jax.Array, valid: jax.Array, threshold: float
) -> jax.Array:
    """Returns which boxes are kept, [N] bool. Among equal scores the first box counts.

    The number of iterations is the length of the longest chain of boxes in which each suppresses
    the next: a few in practice, N at worst. Memory grows with N^2.

    Args:
        boxes: [N, 4].
        scores: [N].
        groups: [N] int32; boxes of different groups (classes, levels) do not suppress each other.
        valid: [N] bool; other boxes are not kept.
        threshold: overlaps above it suppress.
    """
    rank = jnp.arange(len(boxes))
    equal = scores[:, None] == scores
    earlier = (scores[:, None] < scores) | (equal & (rank[:, None] > rank))  # [N, N], of the second
    same = (groups[:, None] == groups) & valid[:, None] & valid
    suppresses = earlier & same & (iou(boxes, boxes) > threshold)

    def changed(state):
        keep, before = state
        return jnp.any(keep != before)

    def step(state):
        keep, _ = state
        return valid & ~jnp.any(suppresses & keep, axis=1), keep

    keep, _ = jax.lax.while_loop(changed, step, (valid, jnp.zeros_like(valid)))
    return keep


def best(scores: jax.Array, keep: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Indices [count] int32 of the kept boxes with the highest scores, in this order, and which
    are valid, [count] bool: all but padding.

    Args:
        scores: [N] float32, finite.
        keep: [N] bool.
        count: may exceed N.
    """
    few = min(count, len(scores))
    found, index = top_k(jnp.where(keep, scores, -jnp.inf), few)
    more = (0, count - few)
    return jnp.pad(index, more), jnp.pad(found > -jnp.inf, more)
