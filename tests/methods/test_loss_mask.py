"""Losses that leave out the background of volumes, against loops over float64 numbers."""

import functools

import jax
import numpy as np
import pytest

from mae_jax.methods import mae
from mae_jax.types import UserError

SHAPE = (2, 4, 8, 8, 2)
PATCH = (2, 4, 4)
ARGS = dict(
    encoder="vit(width=12, depth=1, heads=2, patch=(2, 4, 4), class_tokens=0)",
    decoder_width=12,
    decoder_depth=1,
    decoder_heads=2,
    mask_ratio=0.5,
    pool="mean",
)


@functools.cache
def batch():
    """Volumes of two channels, most of them black, with classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, SHAPE)
    images[rng.random(SHAPE[:-1]) < 0.6] = 0
    images[0, :2, :4, :4] = 0
    classes = rng.choice([0, 1, 2, 255], SHAPE[:-1], p=[0.7, 0.1, 0.1, 0.1])
    return {"image": images.astype(np.uint8), "segmentation": classes.astype(np.int32)}


def computed(**options):
    """The loss, and for the loops: predictions, targets, and numbers of the predicted patches."""
    method = mae.make(**ARGS | options)

    @jax.jit
    def run(key, batch):
        params, extra = method.init(key, batch)
        images = batch["image"]
        mask = method.draw_mask(key, images)
        prediction = method.reconstruct_for_loss(params, images, mask)
        target = method.targets(extra, images, mask)
        number = np.arange(8)[None, :, None] + np.zeros((2, 1, 1), int)
        loss = method.loss(params, extra, batch, key, 0).loss
        assert ("segmentation" in method.example((4, 8, 8, 2))) == (not method.loss_mask.threshold)
        return loss, prediction, target, method.take(number, mask)[..., 0]

    return jax.device_get(run(jax.random.key(0), batch()))


def patch_of(array, number):
    """[side, side, side, ...] of one volume."""
    t, y, x = np.unravel_index(number, (2, 2, 2))
    return array[2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]


def expected(found, foreground, share=0.0, frames=None):
    """The mean of squared errors of foreground voxels, or of patches with enough of it."""
    _, prediction, target, numbers = found
    total, count = 0.0, 0
    for b, k in np.ndindex(numbers.shape):
        error = (np.float64(prediction[b, k]) - target[b, k]) ** 2
        inside = patch_of(foreground[b], numbers[b, k])
        if share:
            keep = np.full(error.size, inside.mean() >= share)
        else:
            inside = inside if frames is None else patch_of(foreground[b, frames], numbers[b, k])
            keep = np.repeat(inside.ravel(), 2)[: error.size]  # both channels
        total, count = total + error[keep].sum(), count + keep.sum()
    assert 0 < count < numbers.size * error.size
    return total / count


def bright(level):
    return (batch()["image"] > level).any(axis=-1)


def labeled():
    return np.isin(batch()["segmentation"], [1, 2])


@pytest.mark.parametrize(
    ("options", "foreground", "share"),
    [
        (dict(loss_mask="above(40)"), lambda: bright(40), 0),
        pytest.param(
            dict(loss_mask="above(100, share=0.34)", loss_on="all"),
            lambda: bright(100),
            0.34,
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            dict(loss_mask="segmentation", target="pixels(normalize=False)"),
            labeled,
            0,
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            dict(loss_mask="segmentation(share=0.2)", predict_share=0.75),
            labeled,
            0.2,
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["voxels", "patches", "classes", "share"],
)
def test_only_foreground_counts(options, foreground, share):
    found = computed(**options)
    np.testing.assert_allclose(found[0], expected(found, foreground(), share), rtol=2e-5)


@pytest.mark.thorough
def test_voxels_of_predicted_frames():
    """Of the frames 0 and 3 of 4, one in each patch."""
    found = computed(loss_mask="above(40)", target="pixels(frames=1, normalize=False)")
    first = found[1].shape[-1]
    assert first == 32
    np.testing.assert_allclose(
        found[0], expected(found, bright(40), frames=[0, 0, 3, 3]), rtol=2e-5
    )


@pytest.mark.thorough
def test_nothing_in_the_foreground_is_a_loss_of_zero():
    method = mae.make(**ARGS, loss_mask="above(200)")
    black = {"image": np.zeros(SHAPE, np.uint8)}
    loss = lambda params: method.loss(params, {}, black, jax.random.key(0), 0).loss

    @jax.jit
    def run(key):
        return jax.value_and_grad(loss)(method.init(key, black)[0])

    value, gradients = run(jax.random.key(0))
    assert value == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(loss_mask="below(3)"), "loss_mask"),
        (dict(loss_mask="above(255)"), r"above\(255\) is outside \[0, 255\)"),
        (dict(loss_mask="above(3, share=1.5)"), "share=1.5 is outside"),
        (dict(loss_mask="above(3)", target="hog(cell=2)"), "the target is not pixels: add share"),
    ],
)
def test_masks_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        mae.make(**ARGS | options)


def test_a_batch_without_the_field_is_refused():
    method = mae.make(**ARGS, loss_mask="segmentation")
    images = {"image": batch()["image"]}
    with pytest.raises(UserError, match="needs this field in batches: set config.data.fields="):
        jax.eval_shape(
            lambda key: method.loss(method.init(key, images)[0], {}, images, key, 0).loss,
            jax.random.key(0),
        )
