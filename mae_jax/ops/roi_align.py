"""ROIAlign (Mask R-CNN, arXiv 1703.06870, section 3): features of a box, resampled to a fixed grid.

Each bin is the mean of bilinear samples at regular points, one for each pixel that it covers along
an axis. Samples, their zeros outside of the map and the mean all separate into the two axes, so
that a box costs two matrix products.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.ops.boxes import area

CHUNK = 64
"""Number of boxes that are resampled at a time, which limits the memory."""
CANONICAL = 56
"""Side in strides of the finest level of the boxes at which the third level begins: 224 pixels at
stride 4 (arXiv 1612.03144, section 4.2)."""


def axis_weights(low, high, length: int, out: int, max_samples: int) -> jax.Array:
    """Weights [R, out, length] of the pixels of an axis in the bins of boxes.

    Args:
        low, high: [R] float32, where the boxes begin and end, in pixels of the axis.
        length: number of pixels.
        out: number of bins.
        max_samples: maximum number of samples in a bin; boxes of up to out * max_samples pixels
            are exact.
    """
    low, high = low - 0.5, high - 0.5  # pixel i is centered at i
    size = (high - low) / out  # of a bin
    count = jnp.clip(jnp.ceil(size), 0, max_samples)[:, None, None]  # [R, 1, 1]
    taps = jnp.arange(max_samples)
    bins = jnp.arange(out)[:, None] * size[:, None, None]  # [R, out, 1]
    inner = (taps + 0.5) * (size[:, None, None] / jnp.maximum(count, 1))  # [R, 1, samples]
    at = low[:, None, None] + bins + inner  # [R, out, samples]
    inside = (taps < count) & (at >= -1) & (at <= length)
    at = jnp.clip(at, 0, length - 1)[..., None]  # [R, out, samples, 1]
    hat = jnp.maximum(1 - jnp.abs(at - jnp.arange(length)), 0)  # [R, out, samples, length]
    # A sample outside is zero, but counts in the mean.
    return jnp.sum(hat * inside[..., None], axis=2) / jnp.maximum(count, 1)


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    out: int,
    scale: float,
    max_samples: int = 8,
) -> jax.Array:
    """Features [R, out, out, C] of boxes, of the type of the map; 0 for invalid boxes.

    Args:
        features: [H, W, C].
        boxes: [R, 4] in pixels of the image.
        valid: [R] bool.
        out: rows and columns of bins.
        scale: pixels of the map for each pixel of the image.
        max_samples: see `axis_weights`.
    """
    boxes = boxes.astype(jnp.float32) * scale
    axes = [
        axis_weights(boxes[:, i], boxes[:, i + 2], features.shape[i], out, max_samples)
        for i in (0, 1)
    ]
    rows = jnp.where(valid[:, None, None], axes[0], 0).astype(features.dtype)  # [R, out, H]
    columns = axes[1].astype(features.dtype)  # [R, out, W]
    x = jnp.einsum("rph,hwc->rpwc", rows, features, precision="highest")  # [R, out, W, C]
    return jnp.einsum("rqw,rpwc->rpqc", columns, x, precision="highest")


def levels_of(boxes: jax.Array, levels: int, stride: float) -> jax.Array:
    """The level of a pyramid from which boxes [..., 4] are pooled, [...] int32, by their area
    (arXiv 1612.03144, equation 1).

    Args:
        levels: number of levels.
        stride: of the finest level, 0; each further one doubles it.
    """
    size = jnp.sqrt(jnp.maximum(area(boxes), 1e-12))
    level = jnp.floor(2 + jnp.log2(size / (CANONICAL * stride) + 1e-8))
    return jnp.clip(level, 0, levels - 1).astype(jnp.int32)


def pyramid_roi_align(
    maps: Sequence[jax.Array],
    boxes: jax.Array,
    valid: jax.Array,
    out: int,
    stride: float,
    max_samples: int = 8,
) -> jax.Array:
    """Features [R, out, out, C] of boxes, each from one level of a pyramid. All levels compute all
    boxes, which costs a third more than the finest alone and keeps shapes static. The backward
    pass recomputes.

    Args:
        maps: [H, W, C] each, the finest first.
        boxes, valid, out, max_samples: as in `roi_align`.
        stride: of the finest level in pixels.
    """

    @jax.checkpoint
    def pool(chunk):
        boxes, valid = chunk
        level = levels_of(boxes, len(maps), stride)
        parts = [
            roi_align(x, boxes, valid & (level == i), out, 1 / (stride * 2**i), max_samples)
            for i, x in enumerate(maps)
        ]
        return sum(parts)

    count = len(boxes)
    chunk = min(CHUNK, count)
    fill = lambda x: jnp.pad(x, [(0, -count % chunk)] + [(0, 0)] * (x.ndim - 1))
    split = lambda x: fill(x).reshape(-1, chunk, *x.shape[1:])  # [chunks, chunk, ...]
    pooled = jax.lax.map(pool, (split(boxes), split(valid)))
    return pooled.reshape(-1, *pooled.shape[2:])[:count]  # [R, out, out, C]
