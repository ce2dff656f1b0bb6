"""The second stage of Mask R-CNN: samples, losses, targets and detections are those of loops."""

import functools

import jax
import numpy as np
import pytest

from mae_jax.models import roi_heads
from mae_jax.models.roi_heads import BoxHead, MaskHead, Rois
from tests.models.test_rpn import center_size
from tests.ops.test_boxes import iou_of, random_boxes
from tests.ops.test_nms import greedy
from tests.ops.test_roi_align import expected as roi_align_of

RNG = np.random.default_rng(0)
K = 3


def test_samples_hold_the_objects_and_their_classes():
    proposals, boxes = random_boxes(20), random_boxes(5)
    boxes[2] = proposals[4] + np.float32([0, 0, 1, 1])
    labels, valid = np.int32([0, 2, 1, 2, -1]), np.array([1, 1, 1, 1, 0], bool)
    boxes[4] = proposals[3]  # padding
    usable = np.arange(20) < 18

    @jax.jit
    def draw(*args):
        rois = roi_heads.match_rois(*args, classes=K, overlap=0.5)
        return roi_heads.sample_rois(jax.random.key(0), rois, count=25, positives=25)

    candidates = np.concatenate([proposals, boxes]), np.concatenate([usable, valid])
    rois = draw(*candidates, boxes, labels, valid)
    found = {tuple(box): row for box, row in zip(rois.boxes.tolist(), zip(*rois[1:], strict=True))}
    expected = [*proposals[usable], *boxes[valid]]
    assert rois.valid.sum() == len(expected) == 22
    for box in expected:
        label, at, positive, _ = found[tuple(box.tolist())]
        overlaps = [iou_of(box, other) for other in boxes[valid]]
        assert positive == (max(overlaps) >= 0.5)
        assert label == (labels[np.argmax(overlaps)] if positive else K)
        assert at == np.argmax(overlaps) or max(overlaps) == 0
    assert 4 <= rois.positive.sum() < 22 and rois.positive[: rois.positive.sum()].all()


def rois_of(objects):
    """Two images with six proposals each."""
    boxes = random_boxes(12).reshape(2, 6, 4) + np.float32([0, 0, 1, 1])
    return Rois(
        boxes=boxes,
        label=np.int32([[0, 2, 1, K, K, K], [1, K, K, K, K, K]]),
        object=RNG.integers(0, objects, (2, 6)).astype(np.int32),
        positive=np.arange(6) < np.array([[3], [1]]),
        valid=np.arange(6) < np.array([[6], [4]]),
    )


def test_losses_of_boxes_are_those_of_a_loop():
    objects = random_boxes(8).reshape(2, 4, 4) + np.float32([0, 0, 1, 1])
    rois = rois_of(4)
    logits = RNG.normal(size=(2, 6, K + 1)).astype(np.float32)
    codes = RNG.normal(size=(2, 6, K, 4)).astype(np.float32)
    score = box = 0.0
    for i, r in zip(*np.nonzero(rois.valid), strict=True):
        row = logits[i, r].astype(np.float64)
        score += np.log(np.exp(row).sum()) - row[rois.label[i, r]]
        if rois.positive[i, r]:
            target = center_size(objects[i, rois.object[i, r]])
            own = center_size(rois.boxes[i, r])
            shift = 10 * (target[:2] - own[:2]) / own[2:], 5 * np.log(target[2:] / own[2:])
            box += np.abs(codes[i, r, rois.label[i, r]] - np.concatenate(shift)).sum()
    run = jax.jit(functools.partial(roi_heads.box_losses, weights=(10.0, 5.0)))
    found = run(logits, codes, rois, objects)
    np.testing.assert_allclose(found, np.array([score, box]) / 10, rtol=1e-5)
    own = np.take_along_axis(codes, np.minimum(rois.label, K - 1)[:, :, None, None], axis=2)
    np.testing.assert_allclose(run(logits, own, rois, objects), found, rtol=1e-5)  # for all classes
    none = rois._replace(positive=rois.positive & False, valid=rois.valid & False)
    gradient = jax.grad(lambda *args: sum(run(*args, none, objects)), argnums=(0, 1))(logits, codes)
    assert not any(map(np.any, gradient))


def test_targets_of_masks_are_roi_align_within_the_box():
    masks = RNG.integers(0, 2, (5, 8, 8)).astype(np.uint8) * 255
    boxes = random_boxes(5) + np.float32([0, 0, 5, 5])
    rois = boxes + RNG.uniform(-3, 3, (5, 4)).astype(np.float32)
    found = jax.jit(roi_heads.mask_targets, static_argnums=(3, 4))(masks, boxes, rois, 6, 8)
    checked = 0
    for mask, box, roi, drawn in zip(masks, boxes.astype(float), rois, found, strict=True):
        frame = np.concatenate([box[:2], box[:2]]), np.tile(box[2:] - box[:2], 2)
        own = (roi - frame[0]) / frame[1] * 8 + 1
        values = roi_align_of(np.pad(mask, 1)[..., None] / 255, own, 6, 1)[..., 0]
        sure = np.abs(values - 0.5) > 1e-3
        np.testing.assert_array_equal(drawn[sure], (values >= 0.5)[sure])
        checked += sure.sum()
    assert checked > 120


def test_a_full_mask_ends_at_its_box():
    masks, box = np.full((1, 4, 4), 255, np.uint8), np.float32([[10, 10, 18, 18]])
    run = jax.jit(roi_heads.mask_targets, static_argnums=3)
    assert run(masks, box, box, 6).all()
    double = run(masks, box, np.float32([[6, 6, 22, 22]]), 8)[0]
    np.testing.assert_array_equal(double, np.pad(np.ones((4, 4), bool), 2))
    assert not run(masks, 0 * box, box, 6).any()  # padding


def test_the_loss_of_masks_is_the_mean_over_positives():
    logits, targets = RNG.normal(size=(2, 3, 4, 4)), RNG.integers(0, 2, (2, 3, 4, 4))
    positive = np.array([[1, 0, 1], [0, 0, 0]], bool)
    loss = jax.jit(roi_heads.mask_loss)
    found = loss(logits.astype(np.float32), targets == 1, positive)
    each = np.log1p(np.exp(np.where(targets == 1, -logits, logits)))
    np.testing.assert_allclose(found, each[positive].mean(), rtol=1e-5)
    assert loss(logits.astype(np.float32), targets == 1, positive & False) == 0


@pytest.mark.parametrize(("candidates", "shared"), [(60, False), (12, False), (60, True)])
def test_detections_are_those_of_a_loop(candidates, shared):
    """From all pairs of proposals and classes, or from the best ones."""
    count = 15
    logits = np.exp(2 * RNG.normal(size=(20, K + 1)))
    scores = (logits / logits.sum(axis=1, keepdims=True)).astype(np.float32)
    boxes = np.stack([random_boxes(20) for _ in range(1 if shared else K)], axis=1)
    valid = np.arange(20) < 18
    run = functools.partial(roi_heads.detections, count=count, candidates=candidates, threshold=0.2)
    found = jax.jit(run)(scores, boxes, valid)
    pairs = [(scores[i, k], i, k) for i, k in np.ndindex(20, K) if scores[i, k] > 0.2 and valid[i]]
    pairs = sorted(pairs, key=lambda row: -row[0])[:candidates]
    chosen = np.array([boxes[i, 0 if shared else k] for _, i, k in pairs])
    values, _, labels = map(np.array, zip(*pairs, strict=True))
    keep = greedy(chosen, values, labels, values > 0, 0.5)
    total = min(keep.sum(), count)
    assert found.valid.sum() == total and found.valid[:total].all()
    np.testing.assert_array_equal(found.boxes[:total], chosen[keep][:count])
    np.testing.assert_array_equal(found.scores[:total], values[keep][:count])
    np.testing.assert_array_equal(found.labels[:total], labels[keep][:count])
    assert not found.scores[total:].any()


def test_heads_have_an_output_for_each_class():
    x = RNG.normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
    (logits, codes), _ = jax.jit(BoxHead(K, 6, 8, convs=1).init_with_output)(jax.random.key(0), x)
    assert logits.shape == (2, 3, K + 1) and codes.shape == (2, 3, K, 4)
    head, labels = MaskHead(K, 6, convs=1), np.int32([[0, 1, 2], [2, 2, K]])
    masks, variables = jax.jit(head.init_with_output)(jax.random.key(0), x, labels)
    assert masks.shape == (2, 3, 8, 8) and not masks[1, 2].any()
    params = variables["params"]
    bias = params["mask"]["bias"] + np.arange(1.0, K + 1)
    other = {"params": params | {"mask": params["mask"] | {"bias": bias}}}
    moved = jax.jit(head.apply)(other, x, labels) - masks
    expected = np.array([[1, 2, 3], [3, 3, 0]])[:, :, None, None]
    np.testing.assert_allclose(moved, np.broadcast_to(expected, moved.shape), atol=1e-5)
