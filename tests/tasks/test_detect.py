"""Detection: what it loads, learns and predicts; what it refuses."""

import functools

import jax
import numpy as np
import pytest

from mae_jax.ops.boxes import OUTPUTS
from mae_jax.ops.posemb import sincos
from mae_jax.ops.resample import resample_positions
from mae_jax.tasks import detect
from mae_jax.types import UserError
from tests.tasks.tiny.detect import ARGS

KEY = jax.random.key(0)


def batch_of(task, count=2):
    """Shapes of a batch of images with objects."""
    return {
        name: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype)
        for name, x in task.example((16, 16, 3)).items()
    }


@pytest.mark.parametrize("tokens", [0, 1])
def test_learned_positions_keep_the_grid_of_pre_training(tokens):
    """Without class tokens, also where the size of images is not known."""
    task = detect.make(**ARGS)  # position_grid=4
    table = sincos((6, 6), 16)
    stored = np.concatenate([np.full((tokens, 16), 9.0), table])
    expected = resample_positions(table, (6, 6), (4, 4), prefix=0)
    for old in ((24, 24, 3), None):
        found = task.adapt((16, 16, 3), old)("positions", stored)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    of_detector = task.adapt((16, 16, 3), (64, 64, 3))("positions", sincos((3, 3), 16))
    expected = resample_positions(sincos((3, 3), 16), (3, 3), (4, 4), prefix=0)
    np.testing.assert_allclose(of_detector, expected, atol=1e-6)
    kernel = np.zeros((48, 16), np.float32)
    assert task.adapt((16, 16, 1), (16, 16, 3))("embed/kernel", kernel).shape == (16, 16)


@pytest.mark.thorough
def test_boxes_alone():
    task = detect.make(**ARGS | dict(masks=False))
    batch = batch_of(task)
    assert {*batch} == {"image", "box", "box_label"}
    params, extra = jax.eval_shape(task.init, KEY, batch)
    assert "mask_head" not in params
    output = jax.eval_shape(task.loss, params, extra, batch, KEY, 0)
    assert {*output.metrics} == {"objectness", "proposal_box", "class", "box"}
    predict = functools.partial(task.predict, outputs=OUTPUTS)
    found = jax.eval_shape(predict, params, extra, {"image": batch["image"]})
    assert found["det_mask"].shape == (2, 4, 28, 28)


def test_a_cascade_has_three_box_heads():
    task = detect.make(**ARGS | dict(cascade=True))
    params, _ = jax.eval_shape(task.init, KEY, {"image": batch_of(task)["image"]})
    assert {"box_head_0", "box_head_1", "box_head_2"} <= {*params}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(size=18), "size=18 is not a multiple of 4, the patch of vitdet("),
        (dict(classes=0), "classes=0: counts must be positive integers"),
        (dict(layer_decay=0.0), "layer_decay in (0, 1]"),
        (
            dict(encoder="vit(width=16, depth=2, heads=2, patch=4)"),
            "each block: write vitdet(width=16",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError) as error:
        detect.make(**ARGS | options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_images_of_another_size_are_refused():
    task = detect.make(**ARGS)
    batch = batch_of(task) | {"image": jax.ShapeDtypeStruct((2, 16, 20, 3), np.uint8)}
    with pytest.raises(UserError, match="images of 16 x 16 pixels, and these are 16 x 20"):
        jax.eval_shape(task.init, KEY, batch)
