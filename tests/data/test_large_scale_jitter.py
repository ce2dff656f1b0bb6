"""Large-scale jitter: its range, pixels of crops, and shapes that are known analytically."""

import itertools

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data import transforms as T
from mae_jax.data.fields import IGNORE, NO_BOX
from mae_jax.data.images import cut
from mae_jax.data.random import hash_words
from mae_jax.data.transforms.large_scale_jitter import make
from mae_jax.data.transforms.pad import FILL
from mae_jax.evals.full_size_objects import paste
from mae_jax.types import UserError

SHAPE = (60, 90)
BOX = np.array([12.0, 20, 48, 80])


def inside(y, x):
    y, x = (2 * y - BOX[0] - BOX[2]) / 36, (2 * x - BOX[1] - BOX[3]) / 60
    return y**2 + x**2 <= 1


def example(shape=SHAPE):
    steps = (np.arange(56) + 0.5) / 56
    mask = 255 * inside(12 + 36 * steps[:, None], 20 + 60 * steps).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    return {
        "image": image,
        "segmentation": np.ones(shape, np.uint8),
        "box": np.float32([BOX / np.tile(SHAPE, 2), np.zeros(4)]),
        "box_label": np.array([4, NO_BOX], np.int32),
        "box_mask": np.stack([mask, np.zeros_like(mask)]),
    }


def params_of(transform, count, seed=3):
    return T.draw([transform], hash_words(seed, np.arange(count)))[0]


def test_scales_and_places_are_uniform():
    params = params_of(make(32), 4000)
    assert 0.1 <= params[:, 0].min() < 0.102 and 1.99 < params[:, 0].max() < 2
    assert abs(params[:, 0].mean() - 1.05) < 0.03 and abs(params[:, 1:].mean() - 0.5) < 0.02


def test_a_scale_of_one_changes_nothing():
    before = example()
    found = make(SHAPE, scale=(1, 1)).apply(before, np.array([1.0, 0.3, 0.8]))
    for name, value in before.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("size", "scale", "inner"),
    [
        (48, 0.5, (16, 24)),  # the longer side fits into 24
        (48, 2.0, (48, 48)),
        (48, 1.25, (40, 48)),
        ((90, 60), 1.0, (40, 60)),
        (16, 0.001, (1, 1)),
    ],
)
def test_pixels_are_those_of_the_scaled_image(size, scale, inner):
    transform, before = make(size), example()
    height, width = transform.size
    factor = scale * min(height / 60, width / 90)
    scaled = tuple(max(1, int(n * factor + 0.5)) for n in SHAPE)
    whole = cut(before["image"], (0, 0, *SHAPE), scaled, "bilinear").astype(int)
    for y, x in ((0.0, 0.0), (0.4, 0.7), (0.999, 0.999)):
        found = transform.apply(before, np.array([scale, y, x]))
        assert found["image"].shape == (height, width, 3)
        start = [int((n - m) * u + 0.5) for n, m, u in zip(scaled, inner, (y, x))]
        part = found["image"][: inner[0], : inner[1]].astype(int)
        expected = whole[start[0] : start[0] + inner[0], start[1] : start[1] + inner[1]]
        difference = np.abs(part - expected)[2:-2, 2:-2]  # borders are repeated where it is cut
        assert difference.size == 0 or difference.max() <= 2
        outside = np.ones((height, width), bool)
        outside[: inner[0], : inner[1]] = False
        assert (found["image"][outside] == FILL).all()
        np.testing.assert_array_equal(found["segmentation"], np.where(outside, IGNORE, 1))


def test_masks_and_boxes_follow_the_image():
    transform, before, seen = make(64), example(), [0, 0]
    for scale, y, x in params_of(transform, 40):
        found = transform.apply(before, np.array([scale, y, x]))
        factor = scale * 64 / 90
        scaled = [int(n * factor + 0.5) for n in SHAPE]
        starts = [int((n - min(64, n)) * u + 0.5) for n, u in zip(scaled, (y, x))]
        rows, columns = (
            (np.arange(64) + 0.5 + start) * own / n for start, own, n in zip(starts, SHAPE, scaled)
        )
        expected = inside(rows[:, None], columns)
        box = found["box"][0] * 64
        drawn = paste(found["box_mask"][0] / 255, box, (64, 64))
        if not expected.any():
            assert found["box_label"][0] == NO_BOX and not box.any()
            continue
        if expected.sum() > 60:
            assert (drawn & expected).sum() / (drawn | expected).sum() > 0.9
            ends = [np.flatnonzero(expected.any(axis)) for axis in (1, 0)]
            ends = [ends[0][0], ends[1][0], ends[0][-1] + 1, ends[1][-1] + 1]
            assert np.abs(box - ends).max() < 2.5
            seen[int(scale > 1)] += 1
        assert found["box_label"].tolist() == [4, NO_BOX] and not found["box"][1].any()
    assert min(seen) > 8


def test_batches_of_scenes():
    data = make_data(
        train="fashion_scenes(num_examples=32, size=64, objects=(1, 6))",
        batch_size=8,
        train_transform="flip|large_scale_jitter(48)",
        eval_transform="",
        fields=("box", "box_label", "box_mask"),
        workers=1,
    )
    first = list(itertools.islice(data.train(0), 2))
    again = next(data.train(1))
    for name, rows in first[1].items():
        np.testing.assert_array_equal(rows, again[name])
    batch = first[0]
    assert batch["image"].shape == (8, 48, 48, 3) and batch["box_mask"].shape == (8, 6, 28, 28)
    filled = (batch["box"][..., :2] < batch["box"][..., 2:]).all(-1)
    np.testing.assert_array_equal(filled, batch["box_label"] != NO_BOX)
    np.testing.assert_array_equal(filled, (batch["box_mask"] >= 128).any((-2, -1)))
    assert 8 < filled.sum() < 48 and batch["box"].min() >= 0 and batch["box"].max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(size=0), "size 0 should be a positive number"),
        (dict(size=32, scale=(2, 1)), r"scale \(2, 1\) is not an ascending range"),
        (dict(size=32, kernel="blur"), "large_scale_jitter: kernel 'blur' is unknown"),
    ],
)
def test_arguments_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)
