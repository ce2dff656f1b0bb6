"""Segmentation at the original size of images: counts and metrics against scikit-learn, windows and
buckets against the definitions, a whole evaluation against a loop over images.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from mae_jax.data import Data
from mae_jax.data.images import cut
from mae_jax.data.order import evaluated
from mae_jax.data.sources import Source
from mae_jax.evals import segmentation
from mae_jax.evals.buckets import EvalSize, buckets, resize_matrix, windows
from mae_jax.evals.full_size import label_map, make_batch, predictions, resized
from mae_jax.ops.interpolate import bilinear_matrix
from mae_jax.types import IGNORE, UserError

NAMES = ("sky", "road", "tree", "never", "guessed")
SIZES = [(20, 31), (24, 24), (31, 20), (24, 24), (20, 30)]


class Scenes(Source):
    """Images of several sizes with labels; pixels are brighter the larger their class."""

    def __init__(self, sizes=SIZES, seed=0):
        rng = np.random.default_rng(seed)
        self.labels_ = [rng.choice([0, 1, 2, IGNORE], size) for size in sizes]
        self.images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
        self.num_examples, self.names = len(sizes), {"segmentation": NAMES}

    def read(self, indices):
        return {
            "image": [self.images[i] for i in indices],
            "segmentation": [self.labels_[i] for i in indices],
        }

    def name(self, index):
        return f"scene {index}.png"


def data_of(source):
    return Data(
        sources={"test": source},
        batch_size=4,
        eval_batch_size=4,
        transforms={"train": [], "eval": []},
        fields=("segmentation",),
        pipeline="arrays",
        workers=2,
        on_error="raise",
        views=1,
        seed=0,
        process_index=0,
        process_count=1,
    )


WEIGHTS = np.random.default_rng(1).normal(size=(3, len(NAMES)))


def logits_of(images):
    """[..., K]: a network that looks at single pixels. The class 3 is never predicted."""
    x = images / 255.0 @ WEIGHTS
    return x + np.array([0.0, 0, 0, -100, 0])


@jax.jit
def network(batch):
    logits = jnp.asarray(batch["image"], jnp.float32) / 255 @ WEIGHTS
    return {"segmentation": logits + jnp.array([0.0, 0, 0, -100, 0])}


def predictor(reduce):
    return lambda batch: jax.jit(reduce)(network(batch), batch)


def whole(image, size, flip=False):
    """Logits at the original size, by float64 matrices."""
    height, width = image.shape[:2]
    small = cut(image, (0, 0, height, width), size, "bilinear")
    logits = logits_of(small[:, ::-1].astype(np.float64) if flip else small.astype(np.float64))
    logits = logits[:, ::-1] if flip else logits
    rows, columns = bilinear_matrix(height, size[0]), bilinear_matrix(width, size[1])
    return np.einsum("Hh,hwk,Ww->HWk", rows.astype(float), logits, columns.astype(float))


@pytest.mark.parametrize("options", [dict(), dict(flip=True, scales=(1, 1.5))], ids=str)
def test_an_evaluation_is_a_loop_over_the_images(options):
    source = Scenes()
    evaluator = segmentation.make(size=16, long=24, step=4, **options)
    found = evaluator(predictor(evaluator.reduce), data_of(source))
    matrix = np.zeros((5, 5))
    for image, label in zip(source.images, source.labels_, strict=True):
        size = EvalSize(16, 24, 4).of(image.shape[:2])
        logits = whole(image, size)
        if options:
            larger = tuple(round(n * 1.5 / 4) * 4 for n in size)
            parts = [whole(image, s, f) for s in (size, larger) for f in (False, True)]
            logits = np.mean([np.exp(p) / np.exp(p).sum(-1, keepdims=True) for p in parts], axis=0)
        known = label != IGNORE
        matrix += confusion_matrix(label[known], logits.argmax(-1)[known], labels=range(5))
    correct, predicted, labeled = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    iou = correct[[0, 1, 2, 4]] / (predicted + labeled - correct)[[0, 1, 2, 4]]
    assert predicted[4] and not labeled[4] and "iou/never" not in found
    assert found["miou"] == pytest.approx(iou.mean(), abs=1e-9) and found["iou/guessed"] == 0
    assert found["macc"] == pytest.approx((correct[:3] / labeled[:3]).mean(), abs=1e-9)
    assert found["aacc"] == pytest.approx(correct.sum() / labeled.sum(), abs=1e-9)
    assert all(name in evaluator.metrics or name.startswith("iou/") for name in found)


def test_label_maps_have_the_sizes_of_the_images():
    source, how = Scenes(), segmentation.inference(size=16, long=24, step=4)
    seen = set()
    for found in predictions(predictor(label_map), data_of(source), how):
        for index, (height, width), labels in zip(
            found["indices"], found["sizes"], found["map"], strict=True
        ):
            if index >= 0:
                seen.add(int(index))
                image = source.images[index]
                expected = whole(image, how.rule.of(image.shape[:2])).argmax(-1)
                np.testing.assert_array_equal(labels[:height, :width], expected)
    assert seen == set(range(5))
    few = predictions(predictor(label_map), data_of(source), how, limit=3)
    few = {int(index) for found in few for index in found["indices"] if index >= 0}
    assert few == {*evaluated(5, 3)} != {0, 1, 2}, "spread over the set"


def test_few_shapes_and_every_example_once():
    sizes = np.random.default_rng(0).integers(200, 800, (500, 2))
    found = buckets(sizes, EvalSize(512, 2048, 64))
    assert sorted(i for bucket in found for i in bucket.indices) == list(range(500))
    assert len({bucket.inputs for bucket in found}) < 60
    for inputs, labels, indices in found:
        assert all(n % 64 == 0 for n in inputs) and min(inputs) == 512
        assert (sizes[indices] <= labels).all() and (np.array(labels) - sizes[indices] < 128).all()


@pytest.mark.parametrize(
    ("size", "crop", "stride", "count"),
    [((8, 8), 8, 5, 1), ((10, 17), 8, 5, 6), ((512, 683), 512, 341, 2), ((9, 8), 8, 8, 2)],
)
def test_windows_cover_every_pixel(size, crop, stride, count):
    """As many as mmsegmentation has: max(side - crop + stride - 1, 0) // stride + 1 for an axis."""
    corners, seen = windows(size, crop, stride), np.zeros(size, int)
    for top, left in corners:
        assert 0 <= top <= size[0] - crop and 0 <= left <= size[1] - crop
        seen[top : top + crop, left : left + crop] += 1
    assert len(corners) == count and seen.min() >= 1


def test_an_image_smaller_than_the_crop_is_padded_and_its_logits_are_cut():
    how = segmentation.inference(size=8, long=0, crop=16, step=4)
    (bucket,) = buckets(np.array([[8, 12]]), how.rule)
    row = {"image": Scenes([(8, 12)]).images[0], "segmentation": np.zeros((8, 12), np.uint8)}
    batch = make_batch([row, None], bucket, how, channels=3)
    assert batch["image"].shape == (2, 16, 16, 3) and batch["valid"].tolist() == [True, False]
    np.testing.assert_array_equal(batch["image"][0, :8, :12], row["image"])
    np.testing.assert_array_equal(batch["windows"], np.zeros((2, 1, 2)))
    assert "weights" not in batch
    soft = make_batch([row, None], bucket, how._replace(weighting="gaussian"), channels=3)
    places = (np.arange(16) - 7.5) / 2
    expected = np.exp(-(places[:, None] ** 2 + places**2) / 2)
    np.testing.assert_allclose(soft["weights"], [expected] * 2, rtol=1e-5)
    logits = np.random.default_rng(0).normal(size=(2, 16, 16, 5)).astype(np.float32)
    found = resized({"segmentation": logits}, batch)[0, :8, :12]
    np.testing.assert_allclose(found, logits[0, :8, :12], atol=1e-6)


def test_padding_alone_has_the_channels_of_the_images():
    how = segmentation.inference(size=8, long=0, step=4)
    (bucket,) = buckets(np.array([[8, 12]]), how.rule)
    assert make_batch([None], bucket, how, channels=2)["image"].shape == (1, 8, 12, 2)


def test_padding_of_matrices_is_zero():
    matrix = resize_matrix(5, 3, 8, 4)
    np.testing.assert_array_equal(matrix[:5, :3], bilinear_matrix(5, 3))
    assert not matrix[5:].any() and not matrix[:, 3:].any()


def test_labels_outside_of_the_classes_are_named():
    source = Scenes()
    source.labels_[2][0, 0] = 5
    evaluator = segmentation.make(size=16, step=4)
    with pytest.raises(
        UserError, match="scene 2.png has the label 5, and the 5 classes are 0 to 4"
    ):
        evaluator(predictor(evaluator.reduce), data_of(source))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(size=-1), "size=-1.* must not be negative"),
        (dict(crop=8, stride=9), "stride=9 may be at most crop=8"),
        (dict(size=512, long=256), "size=512 at most long=256"),
        (dict(scales=()), r"scales=\(\) must be factors in \(0, 8\]"),
        (dict(step=0), "step=0 at least 1"),
        (dict(weighting="hann"), "weighting 'hann' is unknown: choose gaussian, uniform"),
        (dict(limit=0), "limit=0 must be at least 1"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        segmentation.make(**options)
