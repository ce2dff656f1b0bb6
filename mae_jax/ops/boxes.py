"""Boxes of object detection: (ymin, xmin, ymax, xmax) in pixels, continuous, so that a width is
xmax - xmin. Offsets between boxes are coded as in Faster R-CNN (arXiv 1506.01497, section 3.1.2).
All is float32; narrower types would move overlaps across their thresholds.
"""

import math

import jax
import jax.numpy as jnp

OUTPUTS = ("det_box", "det_score", "det_label", "det_valid", "det_mask")
"""Outputs of a model that detects: boxes [B, k, 4] (ymin, xmin, ymax, xmax) as fractions of its
input, scores [B, k], classes [B, k] int, whether a row is a detection [B, k] bool, and masks
[B, k, m, m] of probabilities within the boxes."""
LARGEST = math.log(1000 / 16)
"""Upper limit of the decoded logarithm of a scale, so that exp() does not overflow."""


def area(boxes: jax.Array) -> jax.Array:
    """Areas [...] of boxes [..., 4] in square pixels; 0 where a side is negative."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)  # [..., 2]
    return sides[..., 0] * sides[..., 1]


def iou(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Intersection over union of each pair: [..., N, 4] and [..., M, 4] to [..., N, M] in [0, 1]; 0
    for two boxes without area.
    """
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]

    def common(axis: int) -> jax.Array:
        # [..., N, M]. TPUs would pad an axis of coordinates to 128.
        low = jnp.maximum(boxes[..., axis], others[..., axis])
        high = jnp.minimum(boxes[..., axis + 2], others[..., axis + 2])
        return jnp.maximum(high - low, 0)

    shared = common(0) * common(1)
    union = area(boxes) + area(others) - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1), 0)


def clip(boxes: jax.Array, sizes: jax.Array) -> jax.Array:
    """Boxes [..., 4] within images of `sizes` [..., 2], (height, width) in pixels."""
    return jnp.clip(boxes, 0, jnp.concatenate([sizes, sizes], axis=-1))


def center_size(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centers [..., 2] and sides [..., 2] of boxes [..., 4], (vertical, horizontal)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def encode(boxes: jax.Array, anchors: jax.Array, weights: tuple[float, float]) -> jax.Array:
    """Offsets (dy, dx, dh, dw) from anchors to boxes, [..., 4] each. A side that is not positive
    counts as 1, so that the result and its gradients are finite for padding.

    Args:
        weights: factors of (dy, dx) and of (dh, dw).
    """
    (to, to_size), (at, size) = center_size(boxes), center_size(anchors)
    to_size, size = (jnp.where(sides > 0, sides, 1) for sides in (to_size, size))
    shift = (to - at) / size * weights[0]
    return jnp.concatenate([shift, jnp.log(to_size / size) * weights[1]], axis=-1)


def decode(offsets: jax.Array, anchors: jax.Array, weights: tuple[float, float]) -> jax.Array:
    """The inverse of `encode`, with scales of at most 1000 / 16: boxes [..., 4]."""
    offsets = offsets.astype(jnp.float32)
    at, size = center_size(anchors)
    center = at + offsets[..., :2] / weights[0] * size
    half = jnp.exp(jnp.minimum(offsets[..., 2:] / weights[1], LARGEST)) * size / 2
    return jnp.concatenate([center - half, center + half], axis=-1)
