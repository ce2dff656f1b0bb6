"""Non-maximum suppression: equal to the greedy loop, with ties, groups and padding."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mae_jax.ops import nms

COUNT = 24


def greedy(boxes, scores, groups, valid, threshold):
    """The definition, in float64."""
    boxes = boxes.astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    common = np.prod(np.maximum(np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - low, 0), axis=-1)
    overlap = common / (area[:, None] + area - common)
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if valid[i] and not any(groups[i] == groups[j] and overlap[i, j] > threshold for j in kept):
            kept.append(i)
    return np.isin(np.arange(len(boxes)), kept)


def random_set(rng):
    """Crowded boxes of whole sides, so that overlaps and scores tie."""
    low, sides = rng.integers(0, 8, (COUNT, 2)), rng.integers(1, 10, (COUNT, 2))
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    scores = (rng.integers(0, 9, COUNT) / 8).astype(np.float32)
    groups = rng.integers(0, rng.integers(1, 4), COUNT).astype(np.int32)
    return boxes, scores, groups, rng.random(COUNT) < 0.9


def test_it_is_that_of_torchvision():
    """Of stored results, with equal scores."""
    with np.load(Path(__file__).parent.parent / "golden" / "torchvision.npz") as arrays:
        boxes, scores, kept = (arrays[name] for name in ("boxes", "scores", "kept"))
        thresholds = arrays["thresholds"].tolist()
    same = np.zeros(scores.shape, np.int32)
    run = jax.jit(jax.vmap(nms.nms, (0, 0, 0, 0, None)))
    for threshold, expected in zip(thresholds, kept, strict=True):
        found = run(boxes, scores, same, same == 0, threshold)
        np.testing.assert_array_equal(found, expected)
        assert 0 < expected.sum() < expected.size


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_it_is_the_greedy_loop(threshold):
    """On 1,000 sets."""
    rng = np.random.default_rng(0)
    sets = [random_set(rng) for _ in range(1000)]
    run = jax.jit(jax.vmap(lambda *args: nms.nms(*args, threshold)))
    found = np.asarray(run(*(np.stack(parts) for parts in zip(*sets, strict=True))))
    expected = np.stack([greedy(*args, threshold) for args in sets])
    np.testing.assert_array_equal(found, expected)
    assert 0.1 < found.mean() < 0.9


def test_a_chain_is_followed_to_its_end():
    """Of boxes that each overlap the next: every second one is kept."""
    start = np.arange(30, dtype=np.float32) * 3
    boxes = np.stack([start, 0 * start, start + 10, 0 * start + 10], axis=1)
    scores, groups, valid = -start, np.zeros(30, np.int32), np.ones(30, bool)
    found = jax.jit(nms.nms, static_argnums=4)(boxes, scores, groups, valid, 0.5)
    np.testing.assert_array_equal(found, np.arange(30) % 2 == 0)


def test_padding_changes_nothing_and_is_never_kept():
    boxes, scores, groups, valid = random_set(np.random.default_rng(1))
    run = jax.jit(nms.nms, static_argnums=4)
    expected = np.asarray(run(boxes, scores, groups, valid, 0.5))
    boxes[~valid], scores[~valid] = boxes[0], 99
    np.testing.assert_array_equal(run(boxes, scores, groups, valid, 0.5), expected)
    assert not expected[~valid].any()
    assert not run(boxes, scores, groups, np.zeros(COUNT, bool), 0.5).any()


def test_the_best_come_in_order_and_are_padded():
    scores, keep = np.float32([0.1, 0.9, 0.5, 0.9, 0.7]), np.array([1, 1, 0, 1, 1], bool)
    index, valid = nms.best(scores, keep, 7)
    np.testing.assert_array_equal(index[:4], [1, 3, 4, 0])
    np.testing.assert_array_equal(valid, [1, 1, 1, 1, 0, 0, 0])
    assert nms.best(scores, keep, 2)[0].tolist() == [1, 3]
