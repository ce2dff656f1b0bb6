"""Segmentation: ignored pixels, images of any size, sliding windows, and global batches."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from mae_jax.engine.mesh import make_mesh, put_batch
from mae_jax.ops.interpolate import resize
from mae_jax.ops.resample import resample_positions
from mae_jax.rules import map_rules
from mae_jax.tasks import segment
from mae_jax.types import UserError

VIT = "vit(width=16, depth=1, heads=2, patch=4)"
RELATIVE = "vit(width=16, depth=1, heads=2, patch=4, relative_positions=True)"
PLAIN = dict(classes=3, head="linear", crop=8, drop_path=0.0)
KEY = jax.random.key(0)
ALL = ("segmentation",)


def images_of(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


def batch_of(count, side=8):
    labels = np.random.default_rng(1).integers(0, 3, (count, side, side)).astype(np.int32)
    return {"image": images_of(count, side, side), "segmentation": labels}


class Made:
    """A task with parameters and statistics that are not those of the start."""

    def __init__(self, **options):
        self.task = segment.make(**{"encoder": VIT, **PLAIN, **options})
        params, extra = jax.jit(self.task.init)(KEY, batch_of(2, self.task.crop))
        rng = np.random.default_rng(0)
        noise = lambda x: x + 0.3 * rng.uniform(size=x.shape).astype(np.float32)
        self.params, self.extra = jax.tree.map(noise, jax.device_get((params, extra)))
        self.predict = jax.jit(
            lambda batch: self.task.predict(self.params, self.extra, batch, outputs=ALL)[ALL[0]]
        )
        self.loss = jax.jit(lambda b: self.task.loss(self.params, self.extra, b, KEY, 0))


@pytest.fixture(scope="module")
def plain():
    """The linear head."""
    return Made()


def test_ignored_pixels_change_nothing(plain):
    batch = batch_of(2)
    labels = batch["segmentation"].copy()
    labels[:, :3] = 255
    found = plain.loss(batch | {"segmentation": labels})
    images = plain.task.normalize(batch["image"])
    variables = {"params": plain.params, **plain.extra}

    @jax.jit
    def full(images):
        (logits,), _ = plain.task.model.apply(variables, images, True, mutable=["batch_stats"])
        return resize(logits, (8, 8))

    logits = np.asarray(full(images), np.float64)
    errors, hits = [], []
    for b, y, x in np.ndindex(2, 8, 8):
        if labels[b, y, x] != 255:
            row = logits[b, y, x]
            errors.append(np.log(np.exp(row).sum()) - row[labels[b, y, x]])
            hits.append(row.argmax() == labels[b, y, x])
    np.testing.assert_allclose(found.loss, np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(found.metrics["accuracy"], np.mean(hits), rtol=1e-6)
    nothing = plain.loss(batch | {"segmentation": np.full_like(labels, 255)})
    assert float(nothing.loss) == 0


def test_images_of_any_size_are_padded_by_the_mean_color(plain):
    """And positions are resampled, as the encoder's own are for another size of crops."""
    task, params = plain.task, plain.params
    black = segment.make(encoder=VIT, **PLAIN, mean=(0.0,))
    images = images_of(2, 9, 15)
    found = plain.predict({"image": images})
    assert found.shape == (2, 9, 15, 3) and found.dtype == np.float32
    padded = np.pad(images, ((0, 0), (0, 3), (0, 1), (0, 0)))
    run = jax.jit(lambda x: black.predict(params, plain.extra, {"image": x}, outputs=ALL)[ALL[0]])
    np.testing.assert_allclose(run(images), run(padded)[:, :9, :15], atol=1e-5)

    @jax.jit
    def resampled(padded):
        table = resample_positions(params["encoder"]["positions"], (2, 2), (3, 4))
        moved = {**params, "encoder": {**params["encoder"], "positions": table}}
        (logits,) = black.model.apply({"params": moved, **plain.extra}, black.normalize(padded))
        return resize(logits, (12, 16))

    np.testing.assert_allclose(run(padded), resampled(padded), atol=1e-5)
    predict = functools.partial(task.predict, outputs=("tokens", "features"))
    outputs = jax.eval_shape(predict, params, plain.extra, {"image": images})
    assert outputs["tokens"].shape == (2, 1 + 12, 16) and outputs["features"].shape == (2, 16)


def test_one_window_is_the_whole_crop_also_of_a_smaller_image(plain):
    at = lambda n: dict(windows=np.zeros((2, n, 2), np.int32))
    images = images_of(2, 8, 8)
    whole = plain.predict({"image": images})
    np.testing.assert_allclose(plain.predict({"image": images, **at(1)}), whole, atol=1e-6)
    small = plain.predict({"image": images[:, :5, :7], **at(2)})
    assert small.shape == (2, 5, 7, 3)


def test_windows_are_averaged_at_each_pixel(plain):
    images = images_of(2, 10, 13)
    windows = np.array([[(0, 0), (2, 5), (1, 3)], [(2, 0), (0, 2), (0, 0)]], np.int32)
    batch = {"image": images, "windows": windows}
    found = plain.predict(batch)
    total, count = np.zeros((2, 10, 13, 3)), np.zeros((2, 10, 13, 1))
    for b, i in np.ndindex(windows.shape[:2]):
        top, left = windows[b, i]
        part = np.s_[b, top : top + 8, left : left + 8]
        crop = plain.predict({"image": np.stack([images[part]] * 2)})[0]
        total[part] += crop
        count[part] += 1
    assert (count == 0).any() and (count > 1).any()
    np.testing.assert_allclose(found, total / np.maximum(count, 1), atol=1e-5)


def test_relative_positions_fix_the_size_but_not_of_windows():
    """And the auxiliary head is not there in predictions."""
    task = segment.make(encoder=RELATIVE, **PLAIN | dict(head="upernet", width=4))
    params, extra = jax.eval_shape(task.init, KEY, batch_of(2))
    del params["auxiliary"]
    predict = functools.partial(task.predict, outputs=ALL)
    shape = lambda batch: jax.eval_shape(predict, params, extra, batch)[ALL[0]].shape
    assert shape({"image": images_of(2, 8, 8)}) == (2, 8, 8, 3)
    with pytest.raises(UserError, match="relative_positions=True images have to be 8 x 8"):
        shape({"image": images_of(2, 8, 12)})
    more = dict(windows=np.zeros((2, 1, 2), np.int32))
    assert shape({"image": images_of(2, 8, 12), **more}) == (2, 8, 12, 3)


@pytest.mark.parametrize("head", ["linear", pytest.param("upernet", marks=pytest.mark.thorough)])
def test_devices_that_share_a_batch_have_one_loss_and_one_set_of_statistics(head, plain):
    """Where they have different numbers of valid pixels."""
    made = plain if head == "linear" else Made(head=head, width=4)
    batch = batch_of(8)
    batch["segmentation"][:4, :6] = 255
    alone = made.loss(batch)
    shared = made.loss(put_batch(batch, make_mesh(data=2)))
    np.testing.assert_allclose(shared.loss, alone.loss, rtol=2e-5)
    for (path, expected), found in zip(
        jax.tree_util.tree_leaves_with_path(alone.extra), jax.tree.leaves(shared.extra), strict=True
    ):
        # Each norm in a row amplifies rounding; statistics of a device's own rows differ by 10%.
        atol = 1e-3 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=atol, err_msg=str(path))


def test_a_frozen_encoder_stays_and_drops_no_paths(plain):
    task = segment.make(encoder=VIT, **PLAIN | dict(drop_path=0.5), trainable=0)
    assert task.encoder.drop_path == 0
    rules = map_rules(plain.params, task.rules())
    learns = {
        name: jax.tree.leaves(tree, is_leaf=lambda x: x is None) for name, tree in rules.items()
    }
    assert set(learns["encoder"]) == {None} and None not in learns["head"]


def test_colors_are_distorted_in_training(plain):
    task = dataclasses.replace(plain.task, photometric=True)
    images = batch_of(2)["image"]
    distorted, plainly = jax.jit(lambda x: (task.crops(x, KEY), task.normalize(x)))(images)
    assert np.abs(np.asarray(distorted) - plainly).max() > 0.1
    loss = jax.jit(lambda batch: task.loss(plain.params, plain.extra, batch, KEY, 0).loss)
    expected = loss(batch_of(2))
    assert float(expected) != float(plain.loss(batch_of(2)).loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(head="fcn"), "head 'fcn' is unknown: choose linear, transposed, upernet"),
        (dict(classes=256), "classes=256 must be from 2 to 255"),
        (dict(crop=10), "crop=10 is not a positive multiple of 4, the patch of vit("),
        (dict(width=0), "width=0 must be positive"),
        (dict(trainable=7), "trainable 7: choose 'all', 'mlp' or a number up to 1"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError) as error:
        segment.make(**{"encoder": VIT, **PLAIN, **options})
    assert message in str(error.value)


def test_training_images_are_crops():
    with pytest.raises(UserError, match=r"crops of 8 x 8 pixels, and these are 12 x 12: set conf"):
        segment.make(encoder=VIT, **PLAIN).init(KEY, batch_of(1, 12))
