"""Segmentation of volumes by windows: blocks against whole arrays, and metrics against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.data import Data
from mae_jax.data.images import BadImage
from mae_jax.data.lazy import Lazy
from mae_jax.data.sources import Source
from mae_jax.data.transforms import make_transforms
from mae_jax.evals import sliding as windows
from mae_jax.evals.volume_segmentation import count, make, metrics
from mae_jax.types import UserError

NAMES = ("background", "a", "b", "c")
WEIGHTS = np.random.default_rng(1).normal(size=(1, len(NAMES)))
SIZES = [(9, 11, 6), (4, 5, 6), (12, 6, 7), (4, 5, 6)]


class Slabs(Lazy):
    """A volume that counts the slices that are read at once, and may be damaged."""

    dtype = np.dtype(np.uint8)

    def __init__(self, array, damaged=False):
        self.array, self.shape, self.damaged, self.most = array, array.shape, damaged, 0

    def __getitem__(self, part):
        if self.damaged:
            raise BadImage("it ends early")
        found = self.array[part]
        self.most = max(self.most, len(found))
        return found


class Volumes(Source):
    """Volumes of several sizes; the class c is never labeled, and b is in one volume only."""

    def __init__(self, damaged=()):
        rng = np.random.default_rng(0)
        self.images = [
            Slabs(rng.integers(0, 256, (*size, 1)).astype(np.uint8), n in damaged)
            for n, size in enumerate(SIZES)
        ]
        self.labels_ = [
            rng.choice([0, 1, 2, 255] if n == 2 else [0, 1, 255], size)
            for n, size in enumerate(SIZES)
        ]
        self.num_examples, self.names = len(SIZES), {"segmentation": NAMES}

    def read(self, indices):
        return {
            "image": [self.images[i] for i in indices],
            "segmentation": [self.labels_[i] for i in indices],
        }

    def name(self, index):
        return f"volume {index}"


def data_of(source, on_error="raise", transform="", field="segmentation"):
    return Data(
        sources={"test": source},
        batch_size=1,
        eval_batch_size=1,
        transforms={"train": [], "eval": make_transforms(transform)},
        fields=(field,),
        pipeline="arrays",
        workers=1,
        on_error=on_error,
        views=1,
        seed=0,
        process_index=0,
        process_count=1,
    )


PLACES = np.random.default_rng(2).normal(size=(5, 4, 3, len(NAMES))).astype(np.float32)


def logits(images):
    """A network that looks at single voxels, and at their places in the window."""
    return images.astype(np.float64) / 255 @ WEIGHTS + PLACES


@jax.jit
def network(image):
    return {"logits": image.astype(jnp.float32) / 255 @ WEIGHTS.astype(np.float32) + PLACES}


def predict(batch):
    sizes.add(len(batch["image"]))
    return network(batch["image"])


sizes = set()
HOW = dict(crop=(5, 4, 3), batch_size=4)


def whole(image, how, fill=0):
    """Classes of a volume, from float64 means of all windows."""
    space = image.shape[:-1]
    padded = np.full((*map(max, space, how.crop), 1), fill, np.uint8)
    padded[tuple(map(slice, space))] = image
    total, weight = np.zeros((*padded.shape[:-1], len(NAMES))), np.zeros(padded.shape)
    lines = []
    for side in how.crop:
        at = np.arange(side) - (side - 1) / 2
        lines.append(np.exp(-(at**2) / (2 * (side / 8) ** 2)))
    gaussian = np.einsum("i,j,k->ijk", *lines) if how.weighting == "gaussian" else 1.0
    gaussian = np.broadcast_to(gaussian, how.crop)[..., None]
    starts = [windows.starts(n, c, how.overlap) for n, c in zip(padded.shape, how.crop)]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                part = np.s_[z : z + 5, y : y + 4, x : x + 3]
                total[part] += gaussian * logits(padded[part])
                weight[part] += gaussian
    assert (weight > 0).all()
    return (total / weight).argmax(-1)[tuple(map(slice, space))]


@pytest.mark.parametrize("weighting", ["gaussian", "uniform"])
def test_blocks_make_up_the_whole(weighting):
    how = windows.sliding(**HOW, weighting=weighting, fill=7, overlap=0.4)
    for image in Volumes().images:
        image.most = 0
        blocks = list(windows.label_blocks(predict, image, how))
        parts = [part for part, _ in blocks]
        assert [p.start for p in parts] == [0, *(p.stop for p in parts[:-1])]
        assert image.most == min(5, image.shape[0]), "never more slices than a window has"
        found = np.concatenate([labels for _, labels in blocks])
        assert found.dtype == np.uint8 and all(len(x) <= 5 for _, x in blocks)
        np.testing.assert_array_equal(found, whole(image.array, how, fill=7))
    assert sizes <= {jax.device_count() * n for n in (1, 2, 4)}


@pytest.mark.parametrize("crop", [1, 3, 8])
@pytest.mark.parametrize("overlap", [0, 0.5, 0.9])
def test_starts_cover_an_axis_and_overlap(crop, overlap):
    for length in range(crop, 40):
        found = windows.starts(length, crop, overlap)
        assert found[0] == 0 and found[-1] == length - crop and found == sorted(found)
        steps = np.diff(found)
        assert (steps <= max(1, np.ceil(crop * (1 - overlap)))).all()
        assert np.ptp(steps) <= 1 if len(steps) else length == crop


def test_weights_are_gaussian_and_symmetric():
    found = windows.weights((8, 5), "gaussian")
    z, y = np.mgrid[:8, :5]
    expected = np.exp(-((z - 3.5) ** 2) / 2 - ((y - 2) / 0.625) ** 2 / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found > 0).all() and (windows.weights((2, 3, 4), "uniform") == 1).all()


def scores(predicted, label, k):
    """Dice and IoU of a class in one volume, voxel by voxel; None: it is nowhere."""
    both = ours = theirs = 0
    for p, t in zip(predicted.ravel(), label.ravel()):
        if t != 255:
            ours, theirs, both = ours + (p == k), theirs + (t == k), both + (p == k == t)
    if ours + theirs == 0:
        return None
    return 2 * both / (ours + theirs), both / (ours + theirs - both)


def test_an_evaluation_is_a_loop_over_the_volumes():
    source = Volumes()
    evaluator = make(**HOW).for_method(Learner)
    found = evaluator(predict, data_of(source))
    how = windows.sliding(**HOW)
    expected = {}
    for k, name in enumerate(NAMES):
        rows = [
            scores(whole(image.array, how), label, k)
            for image, label in zip(source.images, source.labels_)
        ]
        rows = np.array([row for row in rows if row is not None])
        expected[f"dice/{name}"], expected[f"iou/{name}"] = rows.mean(0)
    for metric in ("dice", "iou"):
        expected[metric] = np.mean([expected[f"{metric}/{name}"] for name in NAMES[1:]])
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([*map(found.get, expected)], [*expected.values()], rtol=1e-12)
    assert found["dice/c"] == 0 and found["dice/b"] > 0
    few = make(**HOW, limit=1, background=True).for_method(Learner)(predict, data_of(source))
    assert few["dice"] == np.mean([few[f"dice/{name}"] for name in NAMES])


def test_a_limit_is_spread_over_the_set():
    """The volumes are those that `Data.eval` reads, in its order."""
    source = Volumes()
    for limit in (1, 2, 3, 4, 9, None):
        found = [index for index, _ in windows.volumes(data_of(source), "test", limit)]
        read = data_of(source, transform="center_crop((4, 5, 6))").eval("test", limit)
        middles = [center(image.array) for image in source.images]
        same = [[np.array_equal(batch["image"][0], one) for one in middles] for batch in read]
        assert found == [row.index(True) for row in same]
    assert [index for index, _ in windows.volumes(data_of(source), "test", 2)] != [0, 1]


def center(array):
    """The middle 4 x 5 x 6 voxels."""
    begins = [(side - crop) // 2 for side, crop in zip(array.shape, (4, 5, 6))]
    return array[tuple(slice(a, a + n) for a, n in zip(begins, (4, 5, 6)))]


class Learner:
    """A method that learns these classes."""

    labels = staticmethod(lambda: {"segmentation": len(NAMES)})


def test_classes_that_are_nowhere_do_not_count():
    label, perfect = np.array([[0, 0, 1, 255]]), np.array([[0, 0, 1, 2]])
    counts = count(perfect, label, 4)
    assert counts.tolist() == [[2, 2, 2], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    found = metrics(counts[None], NAMES, False)
    assert found == {
        "dice": 1, "dice/background": 1, "dice/a": 1, "iou": 1, "iou/background": 1, "iou/a": 1
    }  # fmt: skip
    missed = count(np.zeros_like(label), label, 4)
    wrong = count(np.array([[0, 2, 1, 1]]), label, 4)
    found = metrics(np.stack([counts, missed, wrong]), NAMES, False)
    assert found["dice/a"] == 2 / 3 and found["dice/b"] == 0 and found["dice"] == 1 / 3
    with pytest.raises(UserError, match="no class but the background is labeled or predicted"):
        metrics(count(np.zeros(3, int), np.zeros(3, int), 4)[None], NAMES, False)


def test_damaged_volumes_are_skipped_if_asked_for(caplog):
    evaluator = make(**HOW).for_method(Learner)
    source = Volumes(damaged=(0, 3))
    with pytest.raises(UserError, match="cannot read volume 0: it ends early; repair or remove"):
        evaluator(predict, data_of(source))
    found = evaluator(predict, data_of(source, on_error="skip"))
    assert "skipped: cannot read volume 3: it ends early" in caplog.text
    source.images, source.labels_ = source.images[1:3], source.labels_[1:3]
    source.num_examples = 2
    assert found == evaluator(predict, data_of(source))


def test_labels_outside_of_the_classes_are_named():
    source = Volumes()
    source.labels_[1][0, 0, 0] = 9
    with pytest.raises(UserError, match="volume 1 has the label 9, and the 4 classes are 0 to 3"):
        make(**HOW).for_method(Learner)(predict, data_of(source))


def test_images_are_refused():
    source = Volumes()
    source.images[0] = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(UserError, match="volume 0 is no volume .* use segmentation for images"):
        make(**HOW).for_method(Learner)(predict, data_of(source))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(crop=0), "crop=0 must be positive"),
        (dict(crop=(4, 5.0, 3)), "must be positive numbers of voxels"),
        (dict(overlap=1), "overlap=1 is outside"),
        (dict(weighting="hann"), "weighting 'hann' is unknown: choose gaussian, uniform"),
        (dict(batch_size=0), "batch_size=0 must be at least 1"),
        (dict(fill=256), "fill=256 a level from 0 to 255"),
        (dict(limit=0), "limit=0 must be at least 1"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError) as error:
        make(**{**HOW, **options})
    assert message in str(error.value)
