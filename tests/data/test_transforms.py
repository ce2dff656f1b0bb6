"""Crops, flips and resizing against plain reimplementations, with all that belongs to an image."""

import math

import numpy as np
import pytest

from mae_jax.data import transforms as T
from mae_jax.data.fields import move
from mae_jax.data.geometry import Window
from mae_jax.data.images import BadImage, cut
from mae_jax.data.random import hash_words
from mae_jax.data.transforms.center_crop import make as center_crop
from mae_jax.data.transforms.flip import make as flip
from mae_jax.data.transforms.random_resized_crop import make as random_resized_crop
from mae_jax.data.transforms.resize import make as resize
from mae_jax.types import UserError

# Heights and widths; from the seventh on, no box of an allowed aspect ratio can be large enough.
SIZES = [(32, 32), (33, 47), (100, 61), (7, 5), (224, 300), (1, 1), (10, 1000), (999, 3), (1, 40)]


def noise(height, width, channels=3, seed=0):
    """[H, W, C] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def seeds_of(count):
    """[count] uint64."""
    return hash_words(11, np.arange(count))


def box_in_floats(numbers, height, width, scale, ratio):
    """(top, left, height, width): ten tries, then the largest central box of an allowed ratio.

    Args:
        numbers: 40 uniform numbers, four for each try: area, aspect, place in y and in x.
    """
    for i in range(0, 40, 4):
        area = height * width * (scale[0] + numbers[i] * (scale[1] - scale[0]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + numbers[i + 1] * (high - low))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= rows <= height and 1 <= columns <= width:
            top = math.floor(numbers[i + 2] * (height - rows + 1))
            left = math.floor(numbers[i + 3] * (width - columns + 1))
            return top, left, rows, columns
    rows, columns = height, width
    if width / height < ratio[0]:
        rows = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        columns = max(1, round(height * ratio[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def apply(transform, image, params=()):
    """The image [H, W, C] alone, transformed."""
    return transform.apply({"image": image}, np.asarray(params, float))["image"]


def boxes_of(crop, height, width, count):
    """[count, 4] boxes of the crop."""
    params = T.draw([crop], seeds_of(count))[0]
    return np.array([crop.box(height, width, one) for one in params])


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 0.3), (0.9, 2.0)])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_crops(height, width, scale):
    crop = random_resized_crop(32, scale=scale, ratio=(3 / 4, 4 / 3))
    numbers = np.random.default_rng(1).random((100, 40))
    for row, params in zip(numbers, crop.plan(numbers), strict=True):
        box = crop.box(height, width, params)
        assert box == box_in_floats(row.tolist(), height, width, scale, (3 / 4, 4 / 3))
        top, left, rows, columns = box
        assert 0 <= top <= top + rows <= height and rows >= 1
        assert 0 <= left <= left + columns <= width and columns >= 1


def test_areas_and_aspects_stay_in_their_ranges():
    """Up to the rounding of a side of 200 pixels or more, half a pixel."""
    boxes = boxes_of(random_resized_crop(8, scale=(0.25, 0.5), ratio=(0.5, 2)), 600, 600, 2000)
    area = boxes[:, 2] * boxes[:, 3] / 600**2
    aspect = boxes[:, 3] / boxes[:, 2]
    assert 0.249 < area.min() < 0.255 and 0.495 < area.max() < 0.501
    assert 0.499 < aspect.min() < 0.51 and 1.96 < aspect.max() < 2.005
    assert area.mean() == pytest.approx(0.375, abs=0.006), "uniform in the area"
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.03), "uniform in the logarithm"
    assert np.log(aspect).std() == pytest.approx(2 * math.log(2) / math.sqrt(12), abs=0.02)


def test_places_are_uniform():
    """A quarter of the area of a square of 40: places 0 ... 20 in both directions."""
    boxes = boxes_of(random_resized_crop(8, scale=(0.25, 0.25), ratio=(1, 1)), 40, 40, 4200)
    assert (boxes[:, 2:] == 20).all()
    for place in boxes[:, :2].T:
        counts = np.bincount(place.astype(int), minlength=21)
        assert len(counts) == 21 and ((counts - 200) ** 2 / 200).sum() < 20 + 6 * math.sqrt(40)
    assert abs(np.corrcoef(boxes[:, :2].T)[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 1000, (0, 493, 10, 13)),
        (1000, 10, (493, 0, 13, 10)),
        (1, 40, (0, 19, 1, 1)),
        (100, 110, (0, 0, 100, 110)),
    ],
)
def test_what_fits_nowhere_is_cropped_in_the_middle(height, width, box):
    boxes = boxes_of(random_resized_crop(8, scale=(2, 3)), height, width, 5)
    np.testing.assert_array_equal(boxes, np.tile(box, (5, 1)))


def test_random_resized_crop_resizes_the_box():
    image = noise(41, 57)
    crop = random_resized_crop((12, 20), scale=(0.3, 0.6))
    for params in T.draw([crop], seeds_of(5))[0]:
        top, left, rows, columns = crop.box(41, 57, params)
        part = image[top : top + rows, left : left + columns]
        expected = cut(part, (0, 0, rows, columns), (12, 20))
        np.testing.assert_array_equal(apply(crop, image, params), expected)


def test_flip():
    image = noise(3, 5)
    np.testing.assert_array_equal(apply(flip(), image, [1.0]), image[:, ::-1])
    np.testing.assert_array_equal(apply(flip(), image, [0.0]), image)
    params = T.draw([flip()], seeds_of(10_000))[0]
    assert set(params.ravel()) == {0.0, 1.0} and params.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("size", "old", "new"),
    [
        (256, (480, 640), (256, 341)),
        (256, (640, 480), (341, 256)),
        (10, (5, 11), (10, 22)),
        (10, (10, 13), (10, 13)),
        (1, (3, 1), (3, 1)),
        ((8, 24), (10, 13), (8, 24)),
        ([8, 24], (10, 13), (8, 24)),
    ],
)
def test_resize(size, old, new):
    image = noise(*old)
    found = apply(resize(size), image)
    assert found.shape == (*new, 3)
    np.testing.assert_array_equal(found, cut(image, (0, 0, *old), new))


@pytest.mark.parametrize(
    ("size", "old", "top", "left"),
    [(4, (10, 10), 3, 3), (4, (9, 10), 2, 3), ((3, 8), (10, 9), 3, 0), (5, (5, 5), 0, 0)],
)
def test_center_crop(size, old, top, left):
    image = noise(*old)
    rows, columns = (size, size) if isinstance(size, int) else size
    found = apply(center_crop(size), image)
    np.testing.assert_array_equal(found, image[top : top + rows, left : left + columns])


def test_center_crop_of_a_smaller_image():
    with pytest.raises(UserError, match=r"center_crop\(6, 4\) of an image of 5 x 8: put resize"):
        apply(center_crop((6, 4)), noise(5, 8))


def test_parse():
    crop, mirror, whole, center = T.make_transforms(
        "random_resized_crop(32, scale=(0.5, 1), ratio=(1, 1))|flip|resize((8, 9))|center_crop(4)"
    )
    assert (crop.size, crop.scale, crop.ratio) == ((32, 32), (0.5, 1), (1, 1))
    assert type(mirror) is type(flip())
    assert whole.pair == (8, 9) and center.size == (4, 4)
    assert T.make_transforms("") == []


def test_defaults_of_random_resized_crop_are_those_of_the_paper():
    crop = random_resized_crop(224)
    assert (crop.scale, crop.ratio) == ((0.2, 1.0), (3 / 4, 4 / 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "data transforms has no 'flop': did you mean 'flip'?"),
        (
            "zzz",
            "choose center_clip, center_crop, class_crop, color_jitter, corruption, flip, "
            "large_scale_jitter, multi_scale_crop, pad, rand_augment, random_clip, random_crop, "
            "random_erasing, random_resized_crop",
        ),
        ("flip(1)", "flip: too many positional arguments"),
        ("resize", "resize: missing a required argument: 'size'"),
        ("random_resized_crop(32, scales=1)", "no 'scales': did you mean 'scale'?"),
        ("resize(0)", "size 0 should be a positive number or (height, width)"),
        ("center_crop((4, -1))", "size (4, -1) should be"),
        ("resize((4, 4, 4))", "size (4, 4, 4) should be a positive number or (height, width)"),
        ("center_crop(())", "size () should be a positive number or (height, width), or one for"),
        ("random_crop((4, 0))", "size (4, 0) should be"),
        ("resize(2.5)", "size 2.5 should be"),
        ("random_resized_crop(None)", "size None should be"),
        ("random_resized_crop(8, scale=(1, 0.2))", "scale (1, 0.2) is not an ascending range"),
        ("random_resized_crop(8, scale=(0, 1))", "scale (0, 1) is not an ascending range"),
        ("random_resized_crop(8, ratio=(-1, 1))", "ratio (-1, 1) is not an ascending range"),
        ("random_resized_crop(8, scale=0.5)", "scale 0.5 is not an ascending range"),
        ("random_resized_crop(8, ratio=(1, 2, 3))", "ratio (1, 2, 3) is not an ascending range"),
    ],
)
def test_wrong_transforms_are_explained(text, message):
    with pytest.raises(UserError) as error:
        T.make_transforms(text)
    assert message in str(error.value)


def test_every_transform_of_a_chain_draws_for_itself():
    first, second = T.draw(T.make_transforms("flip|flip"), seeds_of(1000))
    assert (first != second).mean() == pytest.approx(0.5, abs=0.06)


def scene(height=40, width=60):
    """A bright rectangle on black, its segmentation (7) and its box, and a box of nothing."""
    image, segmentation = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), int)
    image[8:24, 12:42], segmentation[8:24, 12:42] = 255, 7
    share = np.array([8 / height, 12 / width, 24 / height, 42 / width], np.float32)
    return {"image": image, "segmentation": segmentation, "box": np.stack([share, np.zeros(4)])}


@pytest.mark.parametrize(
    "text",
    [
        "random_resized_crop(48, scale=(0.3, 1))|flip",
        "flip|random_resized_crop((32, 64), scale=(0.3, 1))",
        "resize(64)|center_crop(56)",
        "flip|resize((25, 31))|flip",
    ],
)
def test_segmentations_and_boxes_move_with_the_image(text):
    transforms = T.make_transforms(text)
    found = 0
    for numbers in zip(*T.draw(transforms, seeds_of(40)), strict=True):
        example = {**scene(), "label": 3}
        for transform, params in zip(transforms, numbers, strict=True):
            example = transform.apply(example, params)
        height, width = T.shape_of(example, "a test")
        bright, inside = example["image"][:, :, 0] > 127, example["segmentation"] == 7
        assert example["label"] == 3 and example["segmentation"].shape == (height, width)
        edge = 2 * (height + width)
        assert (bright != inside).sum() <= edge, "they agree up to the rectangle's border"
        assert set(np.unique(example["segmentation"])) <= {0, 7}, "labels are never mixed"
        box, nothing = example["box"]
        assert (nothing == 0).all() and example["box"].dtype == np.float32
        if inside.any():
            found += 1
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            extent = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
            np.testing.assert_allclose(box * [height, width, height, width], extent, atol=1.01)
    assert found >= 35


def test_a_box_that_is_cut_away_is_empty():
    moved = move(scene(), Window(box=(30, 0, 10, 60), size=(10, 60)))
    assert (moved["box"] == 0).all() and (moved["segmentation"] == 0).all()


def test_a_segmentation_of_another_size_is_a_bad_image():
    example = {**scene(), "segmentation": np.zeros((3, 4), int)}
    with pytest.raises(BadImage, match=r"segmentation is \(3, 4\), the image \(40, 60\)"):
        move(example, Window(box=(0, 0, 40, 60), size=(20, 30)))
