"""Region proposals: losses and proposals are those of loops in float64."""

import functools

import jax
import numpy as np

from mae_jax.models.rpn import RPNHead, proposals, rpn_losses
from mae_jax.ops.anchors import pyramid_anchors
from tests.ops.test_boxes import iou_of
from tests.ops.test_nms import greedy

ANCHORS = pyramid_anchors([(4, 6), (2, 3)], (8, 16), 2)
ALL = np.concatenate(ANCHORS)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, len(ALL))).astype(np.float32)
CODES = (RNG.normal(size=(2, len(ALL), 4)) / 2).astype(np.float32)
BOXES = np.array(
    [
        [[3.1, 5.2, 20.3, 22.7], [8.7, 8.3, 30.9, 40.1], [1.3, 2.1, 29.7, 19.9]],
        [[0.4, 0.6, 30.2, 9.9], [9, 9, 9, 9], [0, 0, 9, 9]],
    ],
    np.float32,
)
VALID = np.array([[1, 1, 1], [1, 0, 0]], bool)
KEYS = jax.random.split(jax.random.key(0), 2)
LOSSES = jax.jit(functools.partial(rpn_losses, count=2 * len(ALL)))


def center_size(box):
    box = box.astype(np.float64)
    sides = box[2:] - box[:2]
    return np.concatenate([box[:2] + sides / 2, sides])


def losses_of_a_loop(logits, codes, boxes, valid):
    """With all anchors in the sample."""
    score = box = 0.0
    for image in range(2):
        overlap = [[iou_of(a, b) for b in boxes[image][valid[image]]] for a in ALL]
        overlap = np.array(overlap).reshape(len(ALL), -1)
        for i, row in enumerate(overlap):
            forced = np.any((row > 0) & (row >= overlap.max(axis=0) - 1e-7))
            largest = row.max(initial=0)
            if 0.3 <= largest < 0.7 and not forced:
                continue
            sign = 1 if forced or largest >= 0.7 else -1
            score += np.log1p(np.exp(-sign * float(logits[image, i])))
            if sign == 1:
                target, anchor = center_size(boxes[image][row.argmax()]), center_size(ALL[i])
                code = (target[:2] - anchor[:2]) / anchor[2:], np.log(target[2:] / anchor[2:])
                box += np.abs(codes[image, i] - np.concatenate(code)).sum()
    return np.array([score, box]) / (2 * len(ALL))


def test_losses_are_those_of_a_loop():
    """Too large a sample takes all anchors; positives are fewer than half."""
    found = LOSSES(LOGITS, CODES, ALL, BOXES, VALID, KEYS)
    expected = losses_of_a_loop(LOGITS, CODES, BOXES, VALID)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[1] > 0


def test_padding_changes_nothing_and_without_objects_all_is_finite():
    expected = LOSSES(LOGITS, CODES, ALL, BOXES, VALID, KEYS)
    other = np.where(VALID[:, :, None], BOXES, [[[7, 7, 20, 25]]]).astype(np.float32)
    np.testing.assert_array_equal(LOSSES(LOGITS, CODES, ALL, other, VALID, KEYS), expected)
    total = lambda logits, codes: sum(LOSSES(logits, codes, ALL, BOXES, VALID & False, KEYS))
    for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(LOGITS, CODES):
        assert np.isfinite(gradient).all()
    assert LOSSES(LOGITS, CODES, ALL, BOXES, VALID & False, KEYS)[1] == 0


def test_proposals_are_those_of_a_loop():
    sizes, before, after = np.array([[32, 48], [20, 30]], np.float32), 40, 25
    run = jax.jit(functools.partial(proposals, before=before, after=after))
    found, valid = run(LOGITS, CODES, ANCHORS, sizes)
    for image, size in enumerate(sizes):
        kept, first = [], 0
        for level in ANCHORS:
            logits = LOGITS[image, first : first + len(level)]
            top = np.argsort(-logits, kind="stable")[:before]
            codes, boxes = CODES[image, first + top].astype(np.float64), []
            for code, anchor in zip(codes, level[top], strict=True):
                anchor = center_size(anchor)
                center = anchor[:2] + code[:2] * anchor[2:]
                half = np.exp(np.minimum(code[2:], np.log(1000 / 16))) * anchor[2:] / 2
                boxes.append(np.concatenate([center - half, center + half]))
            boxes = np.clip(boxes, 0, np.concatenate([size, size]))
            full = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) > 0
            with np.errstate(invalid="ignore"):
                keep = greedy(boxes, logits[top], np.zeros(len(top)), full, 0.7)
            kept += [(logit, box) for logit, box in zip(logits[top][keep], boxes[keep])]
            first += len(level)
        kept = sorted(kept, key=lambda row: -row[0])[:after]
        assert valid[image].sum() == len(kept) and len(kept) > 10
        np.testing.assert_allclose(found[image][: len(kept)], [b for _, b in kept], atol=1e-3)


def test_the_head_has_the_order_of_the_anchors():
    """The second convolution is an identity, and the last ones read the position of a map."""
    maps = [
        np.indices((4, 6)).transpose(1, 2, 0)[None],
        10 + np.indices((2, 3)).transpose(1, 2, 0)[None],
    ]
    maps = [x.astype(np.float32) for x in maps]
    head, identity = RPNHead(), np.zeros((3, 3, 2, 2), np.float32)
    identity[1, 1] = np.eye(2)
    shapes = jax.eval_shape(head.init, jax.random.key(0), maps)["params"]
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    for i in range(2):
        params[f"conv_{i}"]["kernel"] = identity
    params["score"]["kernel"] = np.array([[100, 100, 100], [10, 10, 10]], np.float32)
    params["score"]["bias"] = np.arange(3, dtype=np.float32)
    params["box"]["bias"] = np.arange(12, dtype=np.float32)
    logits, codes = jax.jit(head.apply)({"params": params}, maps)
    fine = [100 * i + 10 * j + k for i, j, k in np.ndindex(4, 6, 3)]
    coarse = [100 * (i + 10) + 10 * (j + 10) + k for i, j, k in np.ndindex(2, 3, 3)]
    np.testing.assert_allclose(logits[0], fine + coarse)
    np.testing.assert_allclose(codes[0], np.tile(np.arange(12).reshape(3, 4), (30, 1)))
