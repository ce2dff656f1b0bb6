"""Boxes and anchors: equal to loops in float64, and finite for boxes of no extent."""

import jax
import numpy as np
import pytest

from mae_jax.ops import boxes
from mae_jax.ops.anchors import level_anchors, pyramid_anchors

RNG = np.random.default_rng(0)
DEGENERATE = np.array([[0, 0, 0, 0], [3, 3, 3, 9], [5, 5, 2, 7], [0, 0, 1e-3, 1e3]], np.float32)


def random_boxes(count, size=50):
    low, sides = RNG.uniform(-5, size, (count, 2)), RNG.uniform(0, size, (count, 2))
    return np.concatenate([low, low + sides], axis=1).astype(np.float32)


def iou_of(a, b):
    """One pair in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    sides = lambda box: max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = sides(a) + sides(b) - height * width
    return height * width / union if union > 0 else 0.0


def test_overlaps_are_those_of_a_loop():
    first = np.concatenate([random_boxes(20), DEGENERATE, np.array([[0, 0, 2, 2]], np.float32)])
    second = np.concatenate([first[:3], random_boxes(10), DEGENERATE])
    found = np.asarray(jax.jit(boxes.iou)(first, second))
    expected = [[iou_of(a, b) for b in second] for a in first]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0, 0] == 1
    batched = jax.jit(boxes.iou)(first[None], second[None])
    np.testing.assert_array_equal(batched[0], found)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (10.0, 5.0)])
def test_codes_are_those_of_a_loop_and_decode_to_the_boxes(weights):
    anchors, targets = random_boxes(30) + [0, 0, 1, 1], random_boxes(30) + [0, 0, 1, 1]
    anchors, targets = anchors.astype(np.float32), targets.astype(np.float32)
    found = np.asarray(jax.jit(boxes.encode, static_argnums=2)(targets, anchors, weights))
    for code, box, anchor in zip(found, targets.astype(float), anchors.astype(float), strict=True):
        for axis in (0, 1):
            size = anchor[axis + 2] - anchor[axis]
            new = box[axis + 2] - box[axis]
            shift = (box[axis] + new / 2 - anchor[axis] - size / 2) / size
            np.testing.assert_allclose(code[axis], weights[0] * shift, rtol=1e-4, atol=1e-4)
            expected = weights[1] * np.log(new / size)
            np.testing.assert_allclose(code[axis + 2], expected, rtol=1e-4, atol=1e-4)
    decoded = jax.jit(boxes.decode, static_argnums=2)(found, anchors, weights)
    np.testing.assert_allclose(decoded, targets, atol=2e-3)


def test_scales_are_limited_above_only():
    anchor = np.array([[0, 0, 8, 8]], np.float32)
    decode = jax.jit(boxes.decode, static_argnums=2)
    large = decode(np.array([[0, 0, 100, 0]], np.float32), anchor, (1.0, 1.0))[0]
    np.testing.assert_allclose(large, [4 - 250, 0, 4 + 250, 8], rtol=1e-5)
    small = decode(np.array([[0, 0, -20, 0]], np.float32), anchor, (1.0, 1.0))[0]
    assert 0 <= small[2] - small[0] < 1e-6


def test_codes_of_boxes_without_extent_have_finite_gradients():
    code = lambda box, anchor: (boxes.encode(box, anchor, (10.0, 5.0)) ** 2).sum()
    for found in jax.jit(jax.grad(code, argnums=(0, 1)))(DEGENERATE, DEGENERATE[::-1]):
        assert np.isfinite(found).all()


def test_boxes_are_clipped_to_their_image():
    sizes = np.array([[10, 20]], np.float32)
    box = np.concatenate([[[-3, 5, 12, 30]], DEGENERATE[:3]]).astype(np.float32)
    found, area = jax.jit(lambda *args: (boxes.clip(*args), boxes.area(boxes.clip(*args))))(
        box, sizes
    )
    np.testing.assert_array_equal(found[0], [0, 5, 10, 20])
    np.testing.assert_array_equal(area, [150, 0, 0, 0])


def test_anchors_of_the_published_pyramid():
    grids = [(1024 // s, 1024 // s) for s in (4, 8, 16, 32, 64)]
    levels = pyramid_anchors(grids, (4, 8, 16, 32, 64), 8)
    assert sum(map(len, levels)) == 261_888 and len(levels[-1]) == 768
    root = np.sqrt(2)
    first = [[-16 / root, -16 * root, 16 / root, 16 * root], [-16, -16, 16, 16]]
    np.testing.assert_allclose(levels[0][:2], first, rtol=1e-6)
    last = [960 - 256 * root, 960 - 256 / root, 960 + 256 * root, 960 + 256 / root]
    np.testing.assert_allclose(levels[-1][-1], last, rtol=1e-6)


def test_anchors_are_ordered_by_row_column_and_ratio():
    found = level_anchors((2, 3), 4, 10).reshape(2, 3, 3, 4)
    for row, column, ratio in np.ndindex(2, 3, 3):
        box, tall = found[row, column, ratio], (0.5, 1, 2)[ratio]
        height, width = box[2] - box[0], box[3] - box[1]
        np.testing.assert_allclose([box[0] + height / 2, box[1] + width / 2], [4 * row, 4 * column])
        np.testing.assert_allclose([height / width, height * width], [tall, 100], rtol=1e-5)
