"""Matching and sampling: equal to loops, blind to padding, of static size."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax.engine.mesh import make_mesh
from mae_jax.ops.matching import match, sample
from mae_jax.ops.top import top_k
from tests.ops.test_boxes import iou_of, random_boxes

JITTED = jax.jit(match)


def test_matches_are_those_of_a_loop():
    boxes, objects = random_boxes(40), random_boxes(6)
    boxes[7:9] = objects[2]  # ties for the best box of an object
    objects[5] = objects[2]  # and for the best object of a box
    valid = np.array([1, 1, 1, 0, 1, 1], bool)
    found = JITTED(boxes, objects, valid)
    overlap = np.array([[iou_of(a, b) for b in objects] for a in boxes])
    overlap[:, ~valid] = -1
    for i, row in enumerate(overlap):
        assert found.index[i] == row.argmax()
        np.testing.assert_allclose(found.iou[i], max(row.max(), 0), atol=1e-6)
        tied = any(
            valid[j] and row[j] > 0 and row[j] >= overlap[:, j].max() - 1e-9 for j in range(6)
        )
        assert found.best[i] == tied, i
    assert found.best[7] and found.best[8] and found.index[7] == 2


def test_padding_is_never_matched():
    boxes, objects = random_boxes(10), random_boxes(4)
    objects[2:] = boxes[:2]
    valid = np.array([1, 1, 0, 0], bool)
    found = JITTED(boxes, objects, valid)
    objects[2:] = 0
    for one, other in zip(found, JITTED(boxes, objects, valid), strict=True):
        np.testing.assert_array_equal(one, other)
    empty = JITTED(boxes, objects, np.zeros(4, bool))
    assert not empty.index.any() and not empty.iou.any() and not empty.best.any()


@pytest.mark.parametrize(("positive", "negative"), [(3, 20), (12, 20), (0, 3), (12, 2), (0, 0)])
def test_samples_have_the_positives_first_and_are_filled_up(positive, negative):
    kinds = np.repeat([1, 0, -1], [positive, negative, 32 - positive - negative])
    kinds = np.random.default_rng(0).permutation(kinds)
    draw = jax.jit(partial(sample, count=10, positives=4))
    many = [draw(jax.random.key(i), kinds == 1, kinds == 0) for i in range(8)]
    for index, chosen, valid in many:
        expected = min(positive, 4)
        assert chosen.sum() == expected and chosen[:expected].all()
        assert valid.sum() == min(10, expected + negative) and valid[: valid.sum()].all()
        assert len({*index[valid].tolist()}) == valid.sum()
        np.testing.assert_array_equal(kinds[index[valid]], np.where(chosen, 1, 0)[valid])
    if negative == 20:
        drawn = {i for index, _, valid in many for i in index[valid].tolist()}
        assert len(drawn) > 20  # not always the same ones


def test_the_largest_are_those_of_jax_and_stay_on_their_device():
    x = np.random.default_rng(0).integers(0, 5, (4, 20)).astype(np.float32)
    run = jax.jit(jax.vmap(partial(top_k, count=7)))
    expected = jax.jit(partial(jax.lax.top_k, k=7))(x)
    for found, other in zip(run(x), expected, strict=True):
        np.testing.assert_array_equal(found, other)
    sharded = jax.device_put(x, NamedSharding(make_mesh(), P(("data", "fsdp"))))
    assert "all-gather" not in run.lower(sharded).compile().as_text()
