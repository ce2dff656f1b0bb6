"""Mask R-CNN: blind to padding and to the order of objects and images, finite without objects, of
the published size.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.models import convnext, vitdet
from mae_jax.models.mask_rcnn import MaskRCNN
from mae_jax.models.roi_heads import detections
from mae_jax.models.rpn import proposals
from mae_jax.ops.boxes import clip, decode

KEY = jax.random.key(0)
VIT = dict(width=8, depth=1, heads=2, patch=8, window=2, position_grid=2)
SMALL = dict(
    width=4,
    hidden=6,
    head_convs=1,
    proposals_before=(12, 8),
    proposals_after=10,
    max_detections=5,
)
"""Samples are larger than what there is to sample, so that losses do not depend on the key."""
NAMES = {"objectness", "proposal_box", "class", "box", "mask"}


def batch_of(seed=0):
    """Two images with three and one objects."""
    rng = np.random.default_rng(seed)
    low, sides = rng.uniform(0, 12, (2, 4, 2)), rng.uniform(8, 20, (2, 4, 2))
    valid = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    return dict(
        images=rng.normal(size=(2, 32, 48, 3)).astype(np.float32),
        boxes=np.concatenate([low, low + sides], axis=-1).astype(np.float32),
        labels=np.where(valid, rng.integers(0, 3, (2, 4)), -1).astype(np.int32),
        masks=rng.integers(0, 2, (2, 4, 6, 6)).astype(np.uint8) * 255,
        valid=valid,
    )


@functools.cache
def made():
    """The network, random parameters, and its jitted losses with their gradient."""
    encoder = vitdet.make(**VIT, global_blocks=1)
    model = MaskRCNN(encoder, 3, roi_sample=64, positive_share=1.0, rpn_sample=4000, **SMALL)
    init = functools.partial(model.init, method="losses", train=False)
    shapes = jax.eval_shape(init, KEY, **batch_of(), key=KEY)
    rng = np.random.default_rng(0)
    noise = lambda x: (rng.normal(size=x.shape) / 4).astype(np.float32)
    variables = jax.tree.map(noise, shapes)

    @jax.jit
    def losses(batch, variables=variables, key=KEY):
        run = lambda v: model.apply(v, **batch, key=key, train=False, method="losses")
        total = lambda v: (lambda found: (sum(found.values()), found))(run(v))
        (_, found), gradient = jax.value_and_grad(total, has_aux=True)(variables)
        return found, gradient

    return model, variables, losses


def same(one, other, rtol=1e-5):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5 + rtol * np.abs(y).max())


@pytest.mark.thorough
def test_all_losses_are_finite_and_reach_all_parameters():
    _, _, losses = made()
    found, gradient = losses(batch_of())
    assert {*found} == NAMES and all(np.isfinite(x) and x > 0 for x in found.values())
    for path, x in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(x).all(), jax.tree_util.keystr(path)
        assert x.any(), jax.tree_util.keystr(path)


@pytest.mark.thorough
def test_padding_and_orders_change_no_loss_and_no_gradient():
    _, _, losses = made()
    batch = batch_of()
    expected = losses(batch)
    hidden = ~batch["valid"]
    other = {name: x.copy() for name, x in batch.items()}
    other["boxes"][hidden], other["labels"][hidden], other["masks"][hidden] = [1, 2, 30, 40], 2, 255
    same(losses(other), expected, rtol=0)
    other["boxes"][hidden], other["labels"][hidden] = np.nan, 99
    same(losses(other), expected, rtol=0)
    order = np.array([2, 3, 0, 1])
    objects = ("boxes", "labels", "masks", "valid")
    same(losses(batch | {name: batch[name][:, order] for name in objects}), expected, rtol=0)
    same(losses({name: x[::-1] for name, x in batch.items()}), expected)


def test_images_without_objects_have_only_losses_of_background():
    _, _, losses = made()
    batch = batch_of()
    found, gradient = losses(batch | dict(valid=batch["valid"] & False))
    assert found["proposal_box"] == found["box"] == found["mask"] == 0
    assert found["class"] > 0 and found["objectness"] > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_it_compiles_once_for_any_objects():
    _, _, losses = made()
    for seed in range(3):
        batch = batch_of(seed)
        losses(batch | dict(valid=batch["valid"] & (seed > 1)))
    assert losses._cache_size() == 1


@pytest.mark.thorough
def test_detections_lie_within_their_image():
    model, variables, _ = made()
    model = model.clone(threshold=0.1)
    run = jax.jit(functools.partial(model.apply, method="detect"))
    images, sizes = batch_of()["images"], np.float32([[32, 48], [20, 30]])
    objects, masks = jax.device_get(run(variables, images, sizes))
    assert masks.shape == (2, 5, 28, 28) and 0 <= masks.min() and masks.max() <= 1
    assert objects.valid.any(axis=1).all() and objects.labels.dtype == jnp.int32
    for boxes, scores, valid, size in zip(
        objects.boxes, objects.scores, objects.valid, sizes, strict=True
    ):
        assert (boxes[valid] >= 0).all() and (boxes[valid] <= np.tile(size, 2)).all()
        assert (scores[valid] > 0.1).all() and (np.diff(scores) <= 0).all()
    swapped, _ = jax.device_get(run(variables, images[::-1], sizes[::-1]))
    same(jax.tree.map(lambda x: x[::-1], swapped), objects)


@pytest.mark.thorough
def test_an_encoder_with_stages_serves_too():
    encoder = convnext.make(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), kernel=3)
    model = MaskRCNN(encoder, 3, **SMALL)
    batch = batch_of() | dict(images=np.zeros((2, 64, 32, 3), np.float32))
    init = functools.partial(model.init, method="losses")
    shapes = jax.eval_shape(init, KEY, **batch, key=KEY)["params"]
    assert shapes["pyramid"]["lateral_0"]["conv"]["kernel"].shape == (1, 1, 4, 4)


def by_hand(model, variables, images, sizes):
    """The proposals, and scores and boxes of a cascade's stages, one after another."""
    run = lambda method, *args: model.apply(variables, *args, method=method)
    levels, stride, anchors = run("features", images, False)
    logits, codes = run(lambda model, levels: model.rpn(levels), levels)
    boxes, usable = proposals(logits, codes, anchors, sizes, before=8, after=10)
    scores = []
    for stage, weights in enumerate([(10, 5), (20, 10), (30, 15)]):
        logits, codes = run("scored", levels, stride, boxes, usable, stage)
        scores.append(jax.nn.softmax(logits))
        boxes = clip(decode(codes[:, :, 0], boxes, weights), sizes[:, None])
    return sum(scores) / 3, boxes, usable


@pytest.mark.thorough
def test_a_cascade_refines_boxes_and_averages_scores():
    model, _, _ = made()
    model, batch = model.clone(stages=3, threshold=0.1), batch_of()
    init = functools.partial(model.init, method="losses", train=False)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: (rng.normal(size=x.shape) / 4).astype(np.float32),
        jax.eval_shape(init, KEY, **batch, key=KEY),
    )
    assert variables["params"]["box_head_2"]["box"]["bias"].shape == (4,)
    sizes = np.float32([[32, 48], [20, 30]])
    found, _ = jax.jit(functools.partial(model.apply, method="detect"))(
        variables, batch["images"], sizes
    )
    scores, boxes, usable = jax.jit(functools.partial(by_hand, model))(
        variables, batch["images"], sizes
    )
    choose = functools.partial(detections, count=5, candidates=2000, threshold=0.1)
    same(found, jax.jit(jax.vmap(choose))(scores, boxes[:, :, None], usable))
    assert found.valid.any()

    @jax.jit
    def losses(variables, batch):
        return model.apply(variables, **batch, key=KEY, train=False, method="losses")

    total = lambda variables, batch: sum(losses(variables, batch).values())
    for valid in (batch["valid"], batch["valid"] & False):
        gradient = jax.jit(jax.grad(total))(variables, batch | dict(valid=valid))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert all(gradient["params"][f"box_head_{i}"]["score"]["bias"].any() for i in range(3))


def published(width, depth, stages, classes=80):
    """Parameters of the parts, from the published description of the layers."""
    norm, size = 2 * width, 64
    block = 2 * norm + width * 3 * width + 3 * width + width * width + width
    block += 2 * 4 * width * width + 5 * width
    tables = (depth - 4) * 2 * 27 * size + 4 * 2 * 127 * size
    positions = 14 * 14 * width
    encoder = 16 * 16 * 3 * width + width + positions + depth * block + tables
    half, quarter = width // 2, width // 4
    ups = (
        4 * width * half + half + 2 * half + 4 * half * quarter + quarter + 4 * width * half + half
    )
    lateral = (quarter + half + width + width) * 256 + 4 * 512
    pyramid = ups + lateral + 4 * (9 * 256 * 256 + 512)
    rpn = 2 * (9 * 256 * 256 + 256) + 257 * 3 + 257 * 12
    convs = 4 * (9 * 256 * 256 + 512)
    codes = 4 * classes if stages == 1 else 4
    box = stages * (convs + (7 * 7 * 256 + 1) * 1024 + 1025 * (classes + 1 + codes))
    mask = convs + 4 * 256 * 256 + 256 + 257 * classes
    return encoder, pyramid, rpn, box, mask


@pytest.mark.parametrize(
    ("size", "stages", "millions"),
    [
        ("B", 1, 111),
        pytest.param("B", 3, 141, marks=pytest.mark.thorough),
        pytest.param("L", 1, 331, marks=pytest.mark.thorough),
    ],
)
def test_it_has_the_published_number_of_parameters(size, stages, millions):
    """Part by part, and in all."""
    encoder = vitdet.make(size)
    model = MaskRCNN(encoder.clone(grid=(64, 64)), 80, stages=stages)
    batch = batch_of() | dict(images=np.zeros((2, 64, 64, 3), np.float32))
    init = functools.partial(model.init, method="losses")
    shapes = jax.eval_shape(init, KEY, **batch, key=KEY)["params"]
    count = lambda part: sum(
        math.prod(x.shape)
        for name, tree in shapes.items()
        for x in jax.tree.leaves(tree)
        if name.startswith(part)
    )
    parts = [count(part) for part in ("encoder", "pyramid", "rpn", "box_head", "mask_head")]
    assert parts == [*published(encoder.width, encoder.depth, stages)]
    assert round(sum(parts) / 1e6) == millions
