"""The second stage of Mask R-CNN (arXiv 1703.06870): classes and refined boxes of proposals, and a
mask for each object, with LayerNorm in the heads as in ViTDet (arXiv 2203.16527, A.2). A cascade of
stages (arXiv 1712.00726) refines boxes repeatedly, for larger and larger overlaps.

Classes are 0 ... K - 1; logits have the background last, K.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.models.feature_pyramid import ConvLayerNorm
from mae_jax.models.pyramid import Upsample
from mae_jax.ops import boxes as boxes_of
from mae_jax.ops import nms
from mae_jax.ops.matching import match, sample
from mae_jax.ops.roi_align import axis_weights
from mae_jax.ops.top import top_k

POSITIVE = (0.5, 0.6, 0.7)
"""Overlap from which a proposal is an object, in each stage."""
WEIGHTS = ((10.0, 5.0), (20.0, 10.0), (30.0, 15.0))
"""Factors of the codes of boxes, in each stage."""
OVERLAP = 0.5
"""Detections of a class that overlap by more are suppressed."""
BOX_SIDE, MASK_SIDE = 7, 14
"""Rows and columns of the features of a box, for its class and for its mask."""

conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
dense_init = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
normal_init = nn.initializers.normal


class BoxHead(nn.Module):
    """Scores classes of proposals, and refines their boxes."""

    classes: int
    width: int = 256
    hidden: int = 1024
    convs: int = 4
    shared: bool = False
    """One code of a box for all classes, instead of one for each."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features [B, R, P, P, C] to logits [B, R, K + 1] and codes [B, R, K or 1, 4], float32."""
        for i in range(self.convs):
            conv = ConvLayerNorm(self.width, 3, self.dtype, conv_init, name=f"conv_{i}")
            x = nn.relu(conv(x))
        x = x.reshape(*x.shape[:2], -1)  # of [B, R, P, P, width]
        x = nn.Dense(self.hidden, kernel_init=dense_init, dtype=self.dtype, name="fc")(x)
        x = nn.relu(x).astype(jnp.float32)
        logits = nn.Dense(self.classes + 1, kernel_init=normal_init(0.01), name="score")(x)
        count = 1 if self.shared else self.classes
        codes = nn.Dense(4 * count, kernel_init=normal_init(0.001), name="box")(x)
        return logits, codes.reshape(*codes.shape[:2], count, 4)


class MaskHead(nn.Module):
    """Draws a mask of each class within a box."""

    classes: int
    width: int = 256
    convs: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """Features [B, R, P, P, C] and classes [B, R] to the logits of the masks of these classes,
        [B, R, 2 P, 2 P] float32.
        """
        for i in range(self.convs):
            conv = ConvLayerNorm(self.width, 3, self.dtype, conv_init, name=f"conv_{i}")
            x = nn.relu(conv(x))
        shape = x.shape
        x = Upsample(self.dtype, name="up")(x.reshape(-1, *shape[2:]))  # [B R, 2 P, 2 P, width]
        x = nn.relu(x).astype(jnp.float32)
        x = nn.Dense(self.classes, kernel_init=normal_init(0.001), name="mask")(x)
        x = x.reshape(*shape[:2], *x.shape[1:])  # [B, R, 2 P, 2 P, K]
        return jnp.einsum("brpqk,brk->brpq", x, jax.nn.one_hot(labels, self.classes))


class Rois(NamedTuple):
    """Boxes on which the heads are trained."""

    boxes: jax.Array
    """[R, 4]."""
    label: jax.Array
    """[R] int32; the number of classes, K, for background."""
    object: jax.Array
    """[R] int32, the matched object."""
    positive: jax.Array
    """[R] bool."""
    valid: jax.Array
    """[R] bool, False for padding."""


def match_rois(
    candidates: jax.Array,
    usable: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    classes: int,
    overlap: float,
) -> Rois:
    """Matches the proposals of one image, [R, 4], to its objects.

    Args:
        usable: [R] bool, False for padding.
        boxes, labels, valid: objects [n, 4], [n] int32 and [n] bool.
        classes: K.
        overlap: with an object, from which a proposal is positive.
    """
    found = match(candidates, boxes, valid)
    positive = usable & (found.iou >= overlap)
    label = jnp.where(positive, labels[found.index], classes)
    return Rois(candidates, label, found.index, positive, usable)


def sample_rois(key: jax.Array, rois: Rois, *, count: int, positives: int) -> Rois:
    """A random sample of `count` of the proposals of one image, with up to `positives` positives,
    which come first.
    """
    negative = rois.valid & ~rois.positive
    chosen = sample(key, rois.positive, negative, count=count, positives=positives)
    rois = jax.tree.map(lambda x: x[chosen.index], rois)
    return rois._replace(positive=chosen.positive, valid=chosen.valid)


def box_losses(
    logits: jax.Array, codes: jax.Array, rois: Rois, boxes: jax.Array, weights: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of classes and L1 error of codes of the positives' own class, both divided by
    the number of proposals in the batch.

    Args:
        logits, codes: [B, R, K + 1] and [B, R, K or 1, 4].
        rois: [B, R, ...].
        boxes: objects [B, n, 4].
        weights: of the codes.
    """
    count = jnp.maximum(rois.valid.sum(), 1)
    score = optax.softmax_cross_entropy_with_integer_labels(logits, rois.label)  # [B, R]
    own = jax.nn.one_hot(rois.label, codes.shape[2])  # [B, R, K]; of background 0
    code = codes[:, :, 0] if codes.shape[2] == 1 else jnp.einsum("brkc,brk->brc", codes, own)
    target = jnp.take_along_axis(boxes, rois.object[:, :, None], axis=1)  # [B, R, 4]
    error = jnp.abs(code - boxes_of.encode(target, rois.boxes, weights)).sum(axis=-1)
    box = jnp.sum(jnp.where(rois.positive, error, 0))
    return jnp.sum(jnp.where(rois.valid, score, 0)) / count, box / count


def mask_targets(
    masks: jax.Array, boxes: jax.Array, rois: jax.Array, out: int, max_samples: int = 8
) -> jax.Array:
    """Resamples the masks of objects within other boxes, [R, out, out] bool.

    Args:
        masks: [R, m, m] uint8, cut to the object's box, 255 inside the object.
        boxes: [R, 4], those of the objects.
        rois: [R, 4].
        out: rows and columns.
        max_samples: see `ops.roi_align.axis_weights`.
    """
    side = masks.shape[-1]
    # A row of zeros around, as there is no object outside of its box.
    masks = jnp.pad(masks.astype(jnp.float32), ((0, 0), (1, 1), (1, 1)))  # [R, m + 2, m + 2]
    weights = []
    for i in (0, 1):
        length = boxes[:, i + 2] - boxes[:, i]
        scale = side / jnp.where(length > 0, length, 1)
        low, high = ((rois[:, j] - boxes[:, i]) * scale + 1 for j in (i, i + 2))
        weights.append(axis_weights(low, high, side + 2, out, max_samples))  # [R, out, m + 2]
    x = jnp.einsum("rph,rhw->rpw", weights[0], masks, precision="highest")
    return jnp.einsum("rpw,rqw->rpq", x, weights[1], precision="highest") >= 127.5


def mask_loss(logits: jax.Array, targets: jax.Array, positive: jax.Array) -> jax.Array:
    """Mean binary cross-entropy over the pixels of positives; 0 if there are none.

    Args:
        logits, targets: [B, R, out, out] float32 and bool.
        positive: [B, R] bool.
    """
    error = optax.sigmoid_binary_cross_entropy(logits, targets.astype(jnp.float32))
    error = error.mean(axis=(-2, -1))  # [B, R]
    return jnp.sum(jnp.where(positive, error, 0)) / jnp.maximum(positive.sum(), 1)


class Detections(NamedTuple):
    """Detected objects, from the highest score down."""

    boxes: jax.Array
    """[k, 4]."""
    scores: jax.Array
    """[k] float32 in [0, 1]."""
    labels: jax.Array
    """[k] int32."""
    valid: jax.Array
    """[k] bool, False for padding."""


def detections(
    scores: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    *,
    count: int,
    candidates: int,
    threshold: float,
) -> Detections:
    """The objects of one image.

    Args:
        scores: [R, K + 1] probabilities.
        boxes: [R, K or 1, 4], refined for each class or for all.
        valid: [R] bool, False for padding.
        count: maximum number of objects.
        candidates: number of pairs (proposal, class) with the highest scores from which overlapping
            ones are suppressed; memory grows with its square.
        threshold: pairs with lower scores are dropped.
    """
    scores = scores[:, :-1]  # [R, K]
    boxes = jnp.broadcast_to(boxes, (*scores.shape, 4)).reshape(-1, 4)
    usable = valid[:, None] & (scores > threshold)
    flat = jnp.where(usable, scores, -1).reshape(-1)  # [R K]
    labels = jnp.arange(len(flat)) % scores.shape[1]
    scores, at = top_k(flat, min(candidates, len(flat)))
    boxes, labels = boxes[at], labels[at]
    keep = nms.nms(boxes, scores, labels, scores > 0, OVERLAP)
    index, valid = nms.best(scores, keep, count)
    scores = jnp.where(valid, scores[index], 0)
    return Detections(boxes[index], scores, labels[index], valid)
