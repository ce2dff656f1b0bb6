"""ROIAlign: equal to a loop in float64, at borders and outside; the levels of a pyramid."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops import roi_align as module
from mae_jax.ops.roi_align import levels_of, pyramid_roi_align, roi_align

RNG = np.random.default_rng(0)
BOXES = np.array(
    [
        [0, 0, 40, 56],
        [3.3, 7.9, 21.1, 30.2],
        [-9, -30, 17, 12],  # partly outside
        [33, 50, 60, 90],
        [-50, -50, -20, -20],  # outside
        [100, 3, 140, 9],
        [5, 5, 5, 20],  # no extent
        [9, 9, 4, 12],
        [6, 6, 6.5, 6.5],  # less than a pixel
        [0, 10, 40, 12],  # long and thin
    ],
    np.float32,
)
ALL = np.ones(len(BOXES), bool)


def bilinear(features, y, x):
    """One sample."""
    height, width, _ = features.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(features.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    b, r = y - top, x - left
    upper = features[top, left] * (1 - r) + features[top, right] * r
    return upper * (1 - b) + (features[bottom, left] * (1 - r) + features[bottom, right] * r) * b


def expected(features, box, out, scale):
    """The definition, with as many samples as a bin has pixels along each axis."""
    features, box = features.astype(np.float64), box.astype(np.float64) * scale - 0.5
    sides = (box[2:] - box[:2]) / out
    counts = [max(int(np.ceil(side)), 0) for side in sides]
    found = np.zeros((out, out, features.shape[2]))
    for p, q in np.ndindex(out, out):
        for i, j in np.ndindex(*counts):
            y = box[0] + (p + (i + 0.5) / counts[0]) * sides[0]
            x = box[1] + (q + (j + 0.5) / counts[1]) * sides[1]
            found[p, q] += bilinear(features, y, x)
    return found / max(counts[0] * counts[1], 1)


@pytest.mark.parametrize(("out", "scale"), [(2, 0.25), (3, 0.5), (7, 0.25)])
def test_it_is_a_loop(out, scale):
    features = RNG.normal(size=(10, 14, 2)).astype(np.float32)
    found = jax.jit(partial(roi_align, out=out, scale=scale, max_samples=10))(features, BOXES, ALL)
    for box, values in zip(BOXES, found, strict=True):
        np.testing.assert_allclose(values, expected(features, box, out, scale), atol=1e-4)


def test_it_is_that_of_torchvision():
    """Of stored results; theirs are [R, C, out, out], and boxes (xmin, ymin, xmax, ymax)."""
    with np.load(Path(__file__).parent.parent / "golden" / "torchvision.npz") as arrays:
        stored = dict(arrays)
    boxes = stored["rois"][:, [1, 0, 3, 2]]
    out, scale = stored["pooled"].shape[-1], float(stored["scale"])
    run = jax.jit(partial(roi_align, out=out, scale=scale, max_samples=10))
    features = stored["features"].transpose(1, 2, 0)
    found = run(features, boxes, np.ones(len(boxes), bool))
    assert np.abs(stored["pooled"]).max() > 0.5
    np.testing.assert_allclose(found, stored["pooled"].transpose(0, 2, 3, 1), atol=1e-5)


def test_a_ramp_has_the_values_of_its_centers():
    """On the map y + x, whose pixel (i, j) is centered at (i + 1/2, j + 1/2) of the image."""
    ramp = np.add.outer(np.arange(4.0), np.arange(4.0))[..., None].astype(np.float32)
    run = jax.jit(partial(roi_align, out=2, scale=1.0))
    found = run(ramp, np.array([[0, 0, 4, 4]], np.float32), np.ones(1, bool))
    np.testing.assert_allclose(found[0, :, :, 0], [[1, 3], [3, 5]])


def test_invalid_boxes_are_zero_and_gradients_finite():
    features = RNG.normal(size=(10, 14, 2)).astype(np.float32)
    valid = np.arange(len(BOXES)) % 2 == 0
    run = jax.jit(partial(roi_align, out=2, scale=0.25))
    found = run(features, BOXES, valid)
    assert not found[~valid].any()
    np.testing.assert_array_equal(found[valid], run(features, BOXES, ALL)[valid])
    gradient = jax.jit(jax.grad(lambda *args: (run(*args) ** 2).sum()))(features, BOXES, valid)
    assert np.isfinite(gradient).all() and gradient.any()


def test_with_too_few_samples_only_large_boxes_change():
    features = RNG.normal(size=(10, 14, 2)).astype(np.float32)
    few, many = (
        jax.jit(partial(roi_align, out=2, scale=0.25, max_samples=n))(features, BOXES, ALL)
        for n in (3, 10)
    )
    long = np.max(BOXES[:, 2:] - BOXES[:, :2], axis=1) * 0.25 > 2 * 3
    np.testing.assert_allclose(few[~long], many[~long], atol=1e-5)
    assert not np.allclose(few[0], many[0], atol=1e-3)


def test_levels_are_the_published_ones():
    sides = np.array([1, 100, 111.9, 112, 223, 224, 447, 448, 2000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides / 2, sides * 2], axis=1)
    expected = np.clip(np.floor(4 + np.log2(sides / 224 + 1e-8)), 2, 5) - 2
    boxes[0] = 0
    run = jax.jit(levels_of, static_argnums=(1, 2))
    np.testing.assert_array_equal(run(boxes, 4, 4), expected)
    np.testing.assert_array_equal(run(boxes / 2, 4, 2), expected)


def test_a_pyramid_pools_each_box_from_its_level(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 3)  # fewer than the boxes, and no divisor of their number
    monkeypatch.setattr(module, "CANONICAL", 8)
    maps = [RNG.normal(size=(16 >> i, 24 >> i, 2)).astype(np.float32) for i in range(3)]
    boxes = np.concatenate([BOXES[:2], [[1, 2, 9, 9], [0, 0, 60, 90]]]).astype(np.float32)
    valid = np.array([1, 1, 1, 1], bool)
    run = jax.jit(lambda maps: pyramid_roi_align(maps, boxes, valid, 2, 4, max_samples=6))
    levels = np.asarray(levels_of(boxes, 3, 4))
    assert {*levels.tolist()} == {0, 1, 2}
    for level, box, found in zip(levels, boxes, run(maps), strict=True):
        values = expected(maps[level], box, 2, 1 / (4 * 2**level))
        np.testing.assert_allclose(found, values, atol=1e-4)
    loss = lambda maps: jnp.sum(run(maps) ** 2)
    assert all(np.isfinite(x).all() and x.any() for x in jax.grad(loss)(maps))
