"""Mask R-CNN (arXiv 1703.06870) on an encoder with a feature pyramid: ViTDet (arXiv 2203.16527) or
one with four stages. Widths and numbers have the published values by default. Cascade R-CNN (arXiv
1712.00726) is the same with three box heads.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax.models.encoder import Encoder
from mae_jax.models.feature_pyramid import FeaturePyramid
from mae_jax.models.roi_heads import (
    BOX_SIDE,
    MASK_SIDE,
    POSITIVE,
    WEIGHTS,
    BoxHead,
    Detections,
    MaskHead,
    Rois,
    box_losses,
    detections,
    mask_loss,
    mask_targets,
    match_rois,
    sample_rois,
)
from mae_jax.models.rpn import RPNHead, proposals, rpn_losses
from mae_jax.ops import boxes as boxes_of
from mae_jax.ops.anchors import pyramid_anchors
from mae_jax.ops.roi_align import pyramid_roi_align


class MaskRCNN(nn.Module):
    """The detector. Boxes are [..., 4] (ymin, xmin, ymax, xmax) in pixels of its input."""

    encoder: Encoder
    classes: int
    width: int = 256
    """Channels of the pyramid and of the heads' convolutions."""
    hidden: int = 1024
    """Channels of the last hidden layer of the box head."""
    head_convs: int = 4
    """Convolutions of each head."""
    stages: int = 1
    """Box heads of a cascade, up to 3; each refines the boxes of the one before."""
    anchor_scale: float = 8.0
    """Sides of anchors in strides of their level."""
    rpn_sample: int = 256
    """Anchors in the sample of an image."""
    proposals_before: tuple[int, int] = (2000, 1000)
    """Proposals of a level before suppression, in training and in detection."""
    proposals_after: int = 1000
    """Proposals of an image."""
    roi_sample: int = 512
    """Proposals in the sample of an image."""
    positive_share: float = 0.25
    """Maximum share of objects in it."""
    max_detections: int = 100
    """Maximum number of detections of an image."""
    candidates: int = 2000
    threshold: float = 0.05
    """See `roi_heads.detections`."""
    max_samples: int = 8
    """See `ops.roi_align.axis_weights`."""
    masks: bool = True
    """Whether to predict masks; without, the mask of an object is its box."""

    def setup(self):
        """The parts."""
        dtype = self.encoder.dtype
        shape = (self.classes, self.width, self.hidden, self.head_convs)
        self.pyramid = FeaturePyramid(self.width, dtype)
        self.rpn = RPNHead(dtype=dtype)
        self.box_head = [
            BoxHead(*shape, shared=self.stages > 1, dtype=dtype) for _ in range(self.stages)
        ]
        if self.masks:
            self.mask_head = MaskHead(self.classes, self.width, self.head_convs, dtype=dtype)

    def losses(
        self,
        images: jax.Array,
        boxes: jax.Array,
        labels: jax.Array,
        masks: jax.Array | None,
        valid: jax.Array,
        key: jax.Array,
        train: bool = True,
    ) -> dict[str, jax.Array]:
        """The losses, scalars float32 whose sum is to be minimized.

        Args:
            images: [B, H, W, C] float.
            boxes, labels: objects [B, n, 4] and [B, n] int32; their order does not matter.
            masks: [B, n, m, m] uint8, cut to the boxes, see `roi_heads.mask_targets`; None without
                masks.
            valid: [B, n] bool, False for padding, whose values do not matter.
            key: of the sampling.
            train: applies stochastic depth, which needs the random stream 'drop_path'.
        """
        sizes = jnp.full((len(images), 2), np.array(images.shape[1:3]), jnp.float32)
        objects = (boxes, labels, valid, masks)
        boxes, labels, valid, masks = jax.vmap(in_order)(*objects)
        keys = jax.random.split(key, (2, len(images)))
        levels, stride, anchors = self.features(images, train)
        logits, codes = self.rpn(levels)
        objectness, proposal_box = rpn_losses(
            logits, codes, jnp.concatenate(anchors), boxes, valid, keys[0], count=self.rpn_sample
        )
        before, _ = self.proposals_before
        found, usable = proposals(
            logits, codes, anchors, sizes, before=before, after=self.proposals_after
        )
        candidates = jnp.concatenate([found, boxes], axis=1)  # [B, proposals + n, 4]
        usable = jnp.concatenate([usable, valid], axis=1)
        objects, count = (boxes, labels, valid), min(self.roi_sample, candidates.shape[1])
        positives = max(1, int(count * self.positive_share))
        draw = partial(sample_rois, count=count, positives=positives)
        rois = sampled = jax.vmap(draw)(keys[1], self.matched(candidates, usable, objects, 0))
        score = box = 0.0
        for stage in range(self.stages):
            logits, codes = self.scored(levels, stride, rois.boxes, rois.valid, stage)
            parts = box_losses(logits, codes, rois, boxes, WEIGHTS[stage])
            score, box = score + parts[0], box + parts[1]
            if stage + 1 < self.stages:  # matched anew, but not sampled
                refined = self.refined(codes, rois.boxes, sizes, stage)
                moved = jax.lax.stop_gradient(refined[:, :, 0])
                usable = rois.valid & (boxes_of.area(moved) > 0)
                rois = self.matched(moved, usable, objects, stage + 1)
        names = ("objectness", "proposal_box", "class", "box")
        losses = dict(zip(names, (objectness, proposal_box, score, box), strict=True))
        if not self.masks:
            return losses
        first = jax.tree.map(lambda x: x[:, :positives], sampled)
        pooled = self.pooled(levels, stride, first.boxes, first.positive, MASK_SIDE)
        drawn = self.mask_head(pooled, first.label)

        def targets(masks, boxes, rois, index):
            return mask_targets(masks[index], boxes[index], rois, drawn.shape[-1], self.max_samples)

        targets = jax.vmap(targets)(masks, boxes, first.boxes, first.object)
        return losses | {"mask": mask_loss(drawn, targets, first.positive)}

    def detect(self, images: jax.Array, sizes: jax.Array) -> tuple[Detections, jax.Array]:
        """Detected objects [B, k, ...], and their masks [B, k, 28, 28] within their boxes, float32
        probabilities.

        Args:
            images: [B, H, W, C] float.
            sizes: [B, 2] float32, height and width in pixels of the images without padding, to
                which boxes are clipped.
        """
        levels, stride, anchors = self.features(images, False)
        _, before = self.proposals_before
        found, usable = proposals(
            *self.rpn(levels), anchors, sizes, before=before, after=self.proposals_after
        )
        boxes, scores = found, 0.0
        for stage in range(self.stages):
            logits, codes = self.scored(levels, stride, boxes, usable, stage)
            scores = scores + jax.nn.softmax(logits) / self.stages  # [B, R, K + 1]
            refined = self.refined(codes, boxes, sizes, stage)
            boxes = refined[:, :, 0]
        choose = partial(
            detections,
            count=self.max_detections,
            candidates=self.candidates,
            threshold=self.threshold,
        )
        objects = jax.vmap(choose)(scores, refined, usable)
        if not self.masks:
            return objects, jnp.ones((*objects.labels.shape, 2 * MASK_SIDE, 2 * MASK_SIDE))
        pooled = self.pooled(levels, stride, objects.boxes, objects.valid, MASK_SIDE)
        return objects, jax.nn.sigmoid(self.mask_head(pooled, objects.labels))

    def features(self, images: jax.Array, train: bool) -> tuple[list, float, list]:
        """The levels of the pyramid, [B, h, w, width] each, the stride of the finest in pixels, and
        the anchors of each level, [A, 4] float32.
        """
        maps = self.encoder.maps(images, train=train)
        stride = self.encoder.patch / (4 if len(maps) == 1 else 8)
        levels = self.pyramid(maps)
        grids = [x.shape[1:3] for x in levels]
        strides = [stride * 2**i for i in range(len(levels))]
        anchors = pyramid_anchors(grids, strides, self.anchor_scale)
        return levels, stride, [jnp.asarray(level) for level in anchors]

    def scored(self, levels, stride: float, boxes, valid, stage: int):
        """Logits [B, R, K + 1] and codes [B, R, K or 1, 4] of boxes [B, R, 4], by the head of this
        stage.
        """
        pooled = self.pooled(levels, stride, boxes, valid, BOX_SIDE)
        if self.stages > 1:  # the gradients of all stages add up
            pooled = pooled / self.stages + jax.lax.stop_gradient(pooled * (1 - 1 / self.stages))
        return self.box_head[stage](pooled)

    def refined(self, codes, boxes, sizes, stage: int) -> jax.Array:
        """The decoded boxes of a stage, [B, R, K or 1, 4], within images of `sizes` [B, 2]."""
        boxes = boxes_of.decode(codes, boxes[:, :, None], WEIGHTS[stage])
        return boxes_of.clip(boxes, sizes[:, None, None])

    def matched(self, candidates, usable, objects, stage: int) -> Rois:
        """See `roi_heads.match_rois`; of boxes, labels and validity of the objects of a batch."""
        match = partial(match_rois, classes=self.classes, overlap=POSITIVE[stage])
        return jax.vmap(match)(candidates, usable, *objects)

    def pooled(self, levels, stride: float, boxes, valid, out: int) -> jax.Array:
        """Features [B, R, out, out, C] of boxes [B, R, 4], from all levels but the coarsest."""
        pool = lambda levels, boxes, valid: pyramid_roi_align(
            levels, boxes, valid, out, stride, self.max_samples
        )
        return jax.vmap(pool)(levels[:-1], boxes, valid)


def in_order(
    boxes: jax.Array, labels: jax.Array, valid: jax.Array, masks: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Sorts objects by class and box, so that random samples do not depend on their order; padding
    comes last, with boxes of zeros. Arrays as in `MaskRCNN.losses`, without the batch.
    """
    boxes = jnp.where(valid[:, None], boxes, 0)
    order = jnp.lexsort((*boxes.T, labels, ~valid))
    masks = None if masks is None else masks[order]
    return boxes[order], labels[order], valid[order], masks
