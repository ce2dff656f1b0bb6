"""Scenes of several garments: exact masks and boxes of what is visible, the same for ever."""

import zlib

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import scenes
from mae_jax.data.fields import NO_BOX
from mae_jax.data.sources import fashion_scenes
from mae_jax.types import UserError


def rows_of(indices, **options):
    """The fields that are arrays; masks of boxes are drawn later."""
    rows = fashion_scenes.make(**options).read(np.asarray(indices))
    return {name: row for name, row in rows.items() if isinstance(row, np.ndarray)}


def test_shapes_types_and_names():
    source = fashion_scenes.make(split="test", size=40, objects=(1, 6))
    rows = rows_of(range(7), split="test", size=40, objects=(1, 6))
    assert source.num_examples == 2000 and source.labels() is None and not source.class_names
    assert {name: (row.shape, row.dtype.name) for name, row in rows.items()} == {
        "image": ((7, 40, 40, 3), "uint8"),
        "segmentation": ((7, 40, 40), "uint8"),
        "box": ((7, 6, 4), "float32"),
        "box_label": ((7, 6), "int32"),
        "labels": ((7, 10), "uint8"),
    }
    assert source.names["segmentation"] == ("background", *source.names["box_label"])
    assert source.names["box_label"] == fashion_scenes.CLASS_NAMES


# If a checksum moves, scenes changed: every figure measured on this data set is void.
@pytest.mark.parametrize(
    ("split", "size", "expected"),
    [
        ("train", 64, (0x40B0962A, 0xB7386C10, 0x8F3432C6, 0x5D00B617)),
        ("test", 96, (0x10DFB486, 0x58DBB267, 0xAFC4B6E2, 0xD05D4604)),
    ],
)
def test_scenes_never_change(split, size, expected):
    rows = rows_of(range(100), split=split, size=size, objects=(1, 6))
    del rows["labels"]  # which follow from 'box_label'
    assert tuple(zlib.crc32(row.tobytes()) for row in rows.values()) == expected


def test_a_scene_depends_on_seed_split_and_index_alone():
    options = dict(size=24, objects=(1, 6), seed=3)
    at_once = rows_of(range(30), **options)
    picked = rows_of([29, 4, 4], num_examples=30, **options)
    other = rows_of(range(30), **options | {"seed": 4})
    test = rows_of(range(30), split="test", **options)
    for name, row in at_once.items():
        np.testing.assert_array_equal(picked[name], row[[29, 4, 4]])
    assert all((a != b).any() for a, b in zip(at_once["image"], other["image"]))
    assert all((a != b).any() for a, b in zip(at_once["image"], test["image"]))
    assert len({scene.tobytes() for scene in at_once["image"]}) == 30


def test_size_only_sets_the_sampling():
    small, large = (rows_of(range(60), size=size, objects=(1, 6)) for size in (32, 64))
    reduced = np.stack([np.asarray(Image.fromarray(image).reduce(2)) for image in large["image"]])
    error = np.abs(reduced.astype(float) - small["image"]).mean((1, 2, 3))
    assert error.max() < 8, "of 255; another scene differs by 24 at least"
    assert (large["segmentation"][:, ::2, ::2] == small["segmentation"]).mean() > 0.95


def test_boxes_are_the_extents_of_what_is_visible():
    """Garments whose class is alone in its scene can be found in the segmentation."""
    rows = rows_of(range(200), size=50, objects=(1, 6))
    checked = 0
    for mask, boxes, labels in zip(rows["segmentation"], rows["box"], rows["box_label"]):
        known = labels[labels != NO_BOX]
        count = len(known)
        assert (labels[:count] >= 0).all() and not boxes[count:].any()
        assert set(known + 1) == set(np.unique(mask)) - {0}
        for box, label in zip(boxes, known):
            y, x = np.nonzero(mask == label + 1)
            ends = np.float32(np.array([y.min(), x.min(), y.max() + 1, x.max() + 1]) / 50)
            if (known == label).sum() == 1:
                np.testing.assert_array_equal(box, ends)
                checked += 1
            else:
                assert (box[:2] >= ends[:2]).all() and (box[2:] <= ends[2:]).all()
    assert checked > 300


def test_as_many_garments_as_asked():
    rows = rows_of(range(300), size=32, objects=(2, 4))
    shown = (rows["box_label"] >= 0).sum(1)
    assert rows["box"].shape == (300, 4, 4) and 0 < shown.min() and shown.max() == 4
    assert (shown >= 2).mean() > 0.95, "few are hidden entirely"
    assert min((shown == count).mean() for count in (2, 3, 4)) > 0.2
    found = np.bincount(rows["box_label"][rows["box_label"] >= 0], minlength=10)
    assert len(found) == 10 and found.min() > 50


def test_a_segmentation_is_where_a_garment_covers_the_photograph(monkeypatch):
    """White garments on black photographs show the opacity itself: the mask is its upper half."""
    rows = rows_of(range(60), size=48, objects=(1, 1))
    for name, limits in {
        "BRIGHTNESS": (0.0, 0.0),
        "TINT": (1.0, 1.0),
        "SHADING": (0.0, 0.0),
    }.items():
        monkeypatch.setattr(scenes, name, limits)
    opacity = rows_of(range(60), size=48, objects=(1, 1))["image"][..., 0]
    np.testing.assert_array_equal(rows["segmentation"] > 0, opacity >= 128)
    labels = rows["segmentation"].max((1, 2)) - 1
    np.testing.assert_array_equal(labels, rows["box_label"][:, 0])


def test_garments_hide_those_behind_them(monkeypatch):
    """The same scenes with one garment more: it is in front, and nothing else changes."""
    before, after = (rows_of(range(60), size=48, objects=(n, n)) for n in (2, 3))
    changed = (before["image"] != after["image"]).any(-1)
    front = before["segmentation"] != after["segmentation"]
    assert not (front & ~changed).any()
    hidden = 0
    for k, labels in enumerate(after["box_label"]):
        label = labels[labels >= 0][-1]  # the last is in front of all
        box = (after["box"][k][labels >= 0][-1] * 48).round().astype(int)
        assert (after["segmentation"][k][front[k]] == label + 1).all()
        y, x = np.nonzero(front[k])
        assert (y >= box[0]).all() and (y < box[2]).all()
        assert (x >= box[1]).all() and (x < box[3]).all()
        hidden += (front[k] & (before["segmentation"][k] > 0)).sum()
    assert hidden > 1000


@pytest.mark.parametrize("objects", [0, 3, (1,), (0, 2), (3, 2), (1, 33), (1.0, 2), "16"])
def test_wrong_numbers_of_objects_are_one_clear_line(objects):
    with pytest.raises(
        UserError, match=r"cannot have objects=.*: use \(fewest, most\) from 1 to"
    ) as error:
        fashion_scenes.make(objects=objects)
    assert "\n" not in str(error.value)
