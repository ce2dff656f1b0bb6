"""The region proposal network of Faster R-CNN (arXiv 1506.01497) on a feature pyramid: scores
anchors as objects, and refines them to the proposals of which the second stage decides.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.ops import boxes as boxes_of
from mae_jax.ops import nms
from mae_jax.ops.anchors import RATIOS
from mae_jax.ops.matching import match, sample
from mae_jax.ops.top import top_k

POSITIVE, NEGATIVE = 0.7, 0.3
"""Overlaps from which, and below which, an anchor counts as an object or as background."""
OVERLAP = 0.7
"""Proposals of a level that overlap by more are suppressed."""
WEIGHTS = (1.0, 1.0)
"""Factors of the codes of boxes."""

head_init = nn.initializers.normal(0.01)


class RPNHead(nn.Module):
    """Convolutions that all levels of a pyramid share."""

    convs: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Maps [B, H, W, C] to logits [B, A] of objects and codes [B, A, 4] of boxes, float32, in
        the order of the anchors.
        """
        width, ratios = maps[0].shape[-1], len(RATIOS)
        conv = partial(nn.Conv, kernel_size=(3, 3), kernel_init=head_init, dtype=self.dtype)
        convs = [conv(width, name=f"conv_{i}") for i in range(self.convs)]
        score = nn.Dense(ratios, kernel_init=head_init, name="score")
        box = nn.Dense(4 * ratios, kernel_init=head_init, name="box")
        logits, codes = [], []
        for x in maps:
            for layer in convs:
                x = nn.relu(layer(x))
            x = x.astype(jnp.float32)
            logits.append(score(x).reshape(len(x), -1))  # of [B, H, W, ratios]
            codes.append(box(x).reshape(len(x), -1, 4))  # of [B, H, W, ratios * 4]
        return jnp.concatenate(logits, axis=1), jnp.concatenate(codes, axis=1)


def rpn_losses(
    logits: jax.Array,
    codes: jax.Array,
    anchors: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    keys: jax.Array,
    *,
    count: int,
) -> tuple[jax.Array, jax.Array]:
    """Losses of objectness and of boxes, both divided by `count` and the number of images.

    An anchor is positive if it overlaps an object by at least `POSITIVE`, or if no other overlaps
    some object more. In each image, up to half of `count` positives are sampled, and negatives.

    Args:
        logits, codes: [B, A] and [B, A, 4], see `RPNHead`.
        anchors: [A, 4].
        boxes, valid: objects [B, n, 4], and [B, n] bool.
        keys: [B] keys of the sampling.
        count: anchors in the sample of an image.
    """
    count = min(count, len(anchors))

    def per_image(logits, codes, boxes, valid, key):
        found = match(anchors, boxes, valid)
        positive = (found.iou >= POSITIVE) | found.best
        negative = (found.iou < NEGATIVE) & ~positive
        chosen = sample(key, positive, negative, count=count, positives=count // 2)
        target = chosen.positive.astype(jnp.float32)  # [count]
        score = optax.sigmoid_binary_cross_entropy(logits[chosen.index], target)
        expected = boxes_of.encode(
            boxes[found.index[chosen.index]], anchors[chosen.index], WEIGHTS
        )  # [count, 4]
        error = jnp.abs(codes[chosen.index] - expected).sum(axis=-1)
        return jnp.sum(score * chosen.valid), jnp.sum(jnp.where(chosen.positive, error, 0))

    score, box = jax.vmap(per_image)(logits, codes, boxes, valid, keys)  # [B] each
    return score.mean() / count, box.mean() / count


def proposals(
    logits: jax.Array,
    codes: jax.Array,
    anchors: Sequence[jax.Array],
    sizes: jax.Array,
    *,
    before: int,
    after: int,
) -> tuple[jax.Array, jax.Array]:
    """The best boxes of each image, [B, after, 4], and which are valid, [B, after] bool. Without
    gradient.

    Args:
        logits, codes: [B, A] and [B, A, 4], see `RPNHead`.
        anchors: [A_l, 4] of each level.
        sizes: [B, 2] float32, height and width in pixels of the images without padding, to which
            boxes are clipped. Boxes of no extent are dropped.
        before: boxes of a level from which overlapping ones are suppressed.
        after: boxes of all levels.
    """

    def per_image(logits, codes, size):
        levels, first = [], 0
        for level in anchors:
            part = slice(first, first + len(level))
            score, at = top_k(logits[part], min(before, len(level)))
            boxes = boxes_of.decode(codes[part][at], level[at], WEIGHTS)
            boxes = boxes_of.clip(boxes, size)
            valid = boxes_of.area(boxes) > 0
            keep = nms.nms(boxes, score, jnp.zeros_like(at), valid, OVERLAP)
            levels.append((boxes, score, keep))
            first += len(level)
        boxes, scores, keep = map(jnp.concatenate, zip(*levels, strict=True))
        index, valid = nms.best(scores, keep, after)
        return boxes[index], valid

    found = jax.vmap(per_image)(*map(jax.lax.stop_gradient, (logits, codes)), sizes)
    return found
