"""Masks cut to their boxes: exact for scenes, drawn only where asked for, and moved with the image
like shapes that are known analytically.
"""

import dataclasses

import numpy as np
import pytest

from mae_jax.data import box_masks, make_data, objects
from mae_jax.data.fields import NO_BOX, move
from mae_jax.data.geometry import Affine, Padded, Window
from mae_jax.data.objects import OBJECTS, Objects, cut_to_box
from mae_jax.data.sources import fashion_scenes
from mae_jax.evals.full_size_objects import paste
from mae_jax.types import UserError

SHAPE = (120, 160)
BOXES = np.array([[20.0, 30, 70, 90], [60, 100, 110, 150], [0, 0, 0, 0]])


def inside(y, x, box):
    """Whether points are in the ellipse of a box."""
    (top, left), (bottom, right) = box[:2], box[2:]
    y = (2 * y - top - bottom) / (bottom - top)
    return y**2 + ((2 * x - left - right) / (right - left)) ** 2 <= 1


def example(side=56):
    """Two ellipses and a row of padding, each mask evaluated at the centers of its pixels."""
    masks = np.zeros((3, side, side), np.uint8)
    for mask, box in zip(masks[:2], BOXES):
        steps = (np.arange(side) + 0.5) / side
        y, x = (low + steps * (high - low) for low, high in zip(box[:2], box[2:]))
        mask[...] = 255 * inside(y[:, None], x, box)
    return {
        "image": np.zeros((*SHAPE, 3), np.uint8),
        "box": (BOXES / np.tile(SHAPE, 2)).astype(np.float32),
        "box_label": np.array([3, 5, NO_BOX]),
        "box_mask": masks,
    }


def overlap(first, second):
    return (first & second).sum() / max(1, (first | second).sum())


def check(found, geometry, size, share=0.93):
    """Pasted masks are the ellipses at the places in the image that pixels are from."""
    pixels = np.stack(np.mgrid[: size[0], : size[1]], axis=-1) + 0.5
    y, x = np.moveaxis(geometry.back(pixels / size, SHAPE) * SHAPE, -1, 0)
    for row in range(2):
        expected = inside(y, x, BOXES[row])
        box = found["box"][row] * np.tile(size, 2)
        if not expected.any():
            assert not box.any() and not found["box_mask"][row].any()
            assert found["box_label"][row] == NO_BOX
            continue
        pasted = paste(found["box_mask"][row] / 255, box, size)
        assert overlap(pasted, expected) > share and found["box_label"][row] == (3, 5)[row]
        ends = [np.flatnonzero(expected.any(axis)) for axis in (1, 0)]
        ends = np.array([ends[0][0], ends[1][0], ends[0][-1] + 1, ends[1][-1] + 1])
        assert np.abs(box - ends).max() < 0.03 * max(size) + 1, "its box is its extent"


GEOMETRIES = {
    "crop": Window(box=(0, 40, 100, 70), size=(100, 70)),
    "one outside": Window(box=(10, 20, 45, 60), size=(90, 120)),
    "part of a pixel": Window(box=(30.3, 41.7, 50.2, 80.9), size=(64, 100)),
    "mirrored crop": Window(box=(30, 50, 50, 80), size=(50, 80), mirror=True),
    "whole": Window(box=(0, 0, 120, 160), size=(60, 100)),
    "affine": Affine(matrix=np.array([[0.9, 0.3, -10], [-0.25, 1.1, 20]]), fill=(0, 0, 0)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_masks_and_boxes_move_like_shapes(name):
    geometry = GEOMETRIES[name]
    found = move(example(), geometry)
    check(found, geometry, found["image"].shape[:2])
    assert found["box_mask"].dtype == np.uint8 and found["box"].dtype == np.float32
    assert not found["box"][2].any() and found["box_label"][2] == NO_BOX


def test_what_is_not_cut_keeps_its_mask():
    before = example()
    whole = move(before, GEOMETRIES["whole"])
    padded = move(before, Padded(size=(200, 160), fill=(0, 0, 0)))
    for found in (whole, padded):
        np.testing.assert_array_equal(found["box_mask"], before["box_mask"])
    np.testing.assert_allclose(padded["box"][:2, 2] * 200, BOXES[:2, 2], rtol=1e-6)
    flip = Window(box=(0, 0, *SHAPE), size=SHAPE, mirror=True)
    once = move(before, flip)
    np.testing.assert_array_equal(once["box_mask"], before["box_mask"][:, :, ::-1])
    again = move(once, flip)
    np.testing.assert_array_equal(again["box_mask"], before["box_mask"])
    np.testing.assert_allclose(again["box"], before["box"], atol=1e-6)


def test_a_crop_equals_a_loop_over_points():
    rng = np.random.default_rng(0)
    mask, old = rng.integers(0, 256, (9, 9)).astype(np.uint8), np.array([0.1, 0.2, 0.7, 0.9])
    window = Window(box=(30.0, 50.5, 60.0, 80.25), size=(33, 44))
    new = window.boxes(old[None], SHAPE)
    back = lambda points: window.back(points, SHAPE)
    found, boxes = box_masks.moved(mask[None], old[None], new, back)
    expected = np.zeros((9, 9))
    for i in range(9):
        for j in range(9):
            y = boxes[0, 0] + (i + 0.5) / 9 * (boxes[0, 2] - boxes[0, 0])
            x = boxes[0, 1] + (j + 0.5) / 9 * (boxes[0, 3] - boxes[0, 1])
            y = ((30 + 60 * y) / SHAPE[0] - old[0]) / (old[2] - old[0]) * 9 - 0.5
            x = ((50.5 + 80.25 * x) / SHAPE[1] - old[1]) / (old[3] - old[1]) * 9 - 0.5
            y, x = min(max(y, 0), 8), min(max(x, 0), 8)
            for a in (int(y), min(int(y) + 1, 8)) if y % 1 else (int(y),):
                for b in (int(x), min(int(x) + 1, 8)) if x % 1 else (int(x),):
                    expected[i, j] += mask[a, b] * (1 - abs(y - a)) * (1 - abs(x - b))
    np.testing.assert_allclose(found[0], expected, atol=0.5 + 1e-3)


def test_a_box_whose_mask_is_outside_becomes_padding():
    before = example()
    before["box_mask"][0, :, 20:] = 0  # what is left ends at a third of the box
    found = move(before, Window(box=(0, 60, 120, 100), size=(120, 100)))
    assert found["box_label"].tolist() == [NO_BOX, 5, NO_BOX] and not found["box"][0].any()
    without = {name: value for name, value in before.items() if name != "box_mask"}
    boxes = move(without, Window(box=(0, 60, 120, 100), size=(120, 100)))
    assert boxes["box_label"].tolist() == [3, 5, NO_BOX], "boxes alone are clipped"
    far = move(without, Window(box=(0, 95, 120, 65), size=(120, 65)))
    assert far["box_label"].tolist() == [NO_BOX, 5, NO_BOX] and not far["box"][0].any()


def test_thin_objects_stay_and_empty_masks_become_padding():
    """A line of a pixel covers less than half of every pixel of a coarse mask."""
    line = np.zeros((200, 300), bool)
    line[np.arange(200), 20 + np.arange(200)] = True
    box = np.array([[0.0, 20, 200, 220], [0, 20, 200, 220]])
    mask = cut_to_box(line, box[0], 28)
    assert 10 < mask.max() < 128
    before = {
        "image": np.zeros((200, 300, 3), np.uint8),
        "box": np.float32(box / np.tile((200, 300), 2)),
        "box_label": np.array([1, 2]),
        "box_mask": np.stack([mask, np.zeros_like(mask)]),
    }
    found = move(before, Window(box=(100, 0, 100, 300), size=(100, 300)))
    assert found["box_label"].tolist() == [1, NO_BOX] and not found["box"][1].any()
    np.testing.assert_allclose(found["box"][0] * np.tile((100, 300), 2), [0, 120, 100, 220], atol=9)


# Scenes -----------------------------------------------------------------------------------------

SCENES = "fashion_scenes(num_examples=12, size=64, objects=(1, 6))"


def batch_of(fields, transform=""):
    data = make_data(
        train=SCENES, batch_size=12, train_transform="", eval_transform=transform, fields=fields,
        workers=1,
    )  # fmt: skip
    return next(data.eval("train"))


def test_masks_of_scenes_are_exact():
    batch = batch_of(("box", "box_label", "box_mask", "segmentation"))
    assert batch["box_mask"].shape == (12, 6, 28, 28) and batch["box_mask"].dtype == np.uint8
    source, overlaps = fashion_scenes.make(num_examples=12, size=64, objects=(1, 6)), []
    for scene, annotated in enumerate(source.read(np.arange(12))[OBJECTS]):
        classes = np.zeros((64, 64), int)
        for row, label in enumerate(annotated.labels):
            mask = annotated.bitmap(row)
            assert annotated.areas[row] == mask.sum()
            classes[mask] = label + 1
            pasted = paste(
                batch["box_mask"][scene, row] / 255, batch["box"][scene, row] * 64, (64, 64)
            )
            overlaps.append(overlap(pasted, mask))
        np.testing.assert_array_equal(classes, batch["segmentation"][scene])
        shown = batch["box_label"][scene] != NO_BOX
        assert not batch["box_mask"][scene][~shown].any()
    assert len(overlaps) > 20 and np.mean(overlaps) > 0.98 and min(overlaps) > 0.8


def test_masks_are_drawn_for_batches_that_hold_them_only(monkeypatch):
    def refuse(self):
        raise AssertionError

    monkeypatch.setattr(objects.BoxMasks, "drawn", refuse)
    batch = batch_of(("box", "box_label"), "resize(32)|flip")
    assert batch.keys() == {"image", "box", "box_label", "valid"}
    with pytest.raises(
        UserError, match="its fields are box, box_label, box_mask, image, labels, s"
    ):
        batch_of(("boxes",))
    with pytest.raises(UserError, match="mask_size=0 should be an integer from 1 to 512"):
        fashion_scenes.make(objects=(1, 2), mask_size=0)


def test_the_largest_objects_come_first_and_crowds_never():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 40, 40], [5, 5, 30, 30], [0, 0, 50, 50.0]])
    crowd = np.array([False, False, False, True])
    areas = np.array([100.0, 1600, 625, 2500])
    annotated = Objects(size=(50, 50), boxes=boxes, labels=np.arange(4), areas=areas, crowd=crowd)
    assert annotated.largest(2).tolist() == [1, 2] and annotated.largest(9).tolist() == [1, 2, 0]
    rounded = dataclasses.replace(annotated, areas=np.array([100.0, 1600 - 1e-9, 1600, 2500]))
    assert rounded.largest(2).tolist() == [1, 2]


def test_a_box_outside_of_its_image_has_no_mask():
    mask = np.ones((10, 10), bool)
    assert not cut_to_box(mask, np.array([12.0, 3, 20, 8]), 4).any()
    assert (cut_to_box(mask, np.array([-5.0, 3, 20, 8]), 4) == 255).all()
