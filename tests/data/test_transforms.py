"""Crops, flips and resizing against plain reimplementations, and the same in both pipelines."""

import itertools
import math

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import Data
from mae_jax.data import transforms as T
from mae_jax.data.random import hash_words
from mae_jax.data.sources import Arrays
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


def boxes_of(crop, height, width, count):
    """[count, 4] boxes of the crop."""
    params = T.draw([crop], seeds_of(count))[0]
    size = np.float64(height), np.float64(width)
    return np.array([crop.box(np, *size, one) for one in params])


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 0.3), (0.9, 2.0)])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_crops(height, width, scale):
    crop = T.RandomResizedCrop(32, scale=scale, ratio=(3 / 4, 4 / 3))
    numbers = np.random.default_rng(1).random((100, 40))
    for row, params in zip(numbers, crop.plan(numbers), strict=True):
        box = crop.box(np, np.float64(height), np.float64(width), params)
        assert box == box_in_floats(row.tolist(), height, width, scale, (3 / 4, 4 / 3))
        top, left, rows, columns = box
        assert 0 <= top <= top + rows <= height and rows >= 1
        assert 0 <= left <= left + columns <= width and columns >= 1


def test_areas_and_aspects_stay_in_their_ranges():
    """Up to the rounding of a side of 200 pixels or more, half a pixel."""
    boxes = boxes_of(T.RandomResizedCrop(8, scale=(0.25, 0.5), ratio=(0.5, 2)), 600, 600, 2000)
    area = boxes[:, 2] * boxes[:, 3] / 600**2
    aspect = boxes[:, 3] / boxes[:, 2]
    assert 0.249 < area.min() < 0.255 and 0.495 < area.max() < 0.501
    assert 0.499 < aspect.min() < 0.51 and 1.96 < aspect.max() < 2.005
    assert area.mean() == pytest.approx(0.375, abs=0.006), "uniform in the area"
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.03), "uniform in the logarithm"
    assert np.log(aspect).std() == pytest.approx(2 * math.log(2) / math.sqrt(12), abs=0.02)


def test_places_are_uniform():
    """A quarter of the area of a square of 40: places 0 ... 20 in both directions."""
    boxes = boxes_of(T.RandomResizedCrop(8, scale=(0.25, 0.25), ratio=(1, 1)), 40, 40, 4200)
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
    boxes = boxes_of(T.RandomResizedCrop(8, scale=(2, 3)), height, width, 5)
    np.testing.assert_array_equal(boxes, np.tile(box, (5, 1)))


def test_random_resized_crop_resizes_the_box():
    image = noise(41, 57)
    crop = T.RandomResizedCrop((12, 20), scale=(0.3, 0.6))
    for params in T.draw([crop], seeds_of(5))[0]:
        box = crop.box(np, np.float64(41), np.float64(57), params)
        top, left, rows, columns = map(int, box)
        expected = T.resize_array(image[top : top + rows, left : left + columns], (12, 20))
        np.testing.assert_array_equal(crop.on_array(image, params), expected)


def bicubic_matrix(old, new):
    """[new, old] float64 weights of the bicubic filter (a = -0.5), widened when it shrinks."""
    step = old / new
    width = max(step, 1.0)
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * step
        first = max(0, int(centre - 2 * width + 0.5))
        last = min(old, int(centre + 2 * width + 0.5))
        for j in range(first, last):
            x = abs((j + 0.5 - centre) / width)
            if x < 1:
                matrix[i, j] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                matrix[i, j] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        matrix[i] /= matrix[i].sum()
    return matrix


RESIZES = [((40, 30), (10, 12)), ((9, 13), (32, 31)), ((33, 17), (16, 40)), ((1, 5), (3, 2))]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("old", "new"), RESIZES)
def test_resize_array_is_bicubic_with_antialiasing(old, new, channels):
    image = noise(*old, channels)
    found = T.resize_array(image, new)
    assert (found.shape, found.dtype) == ((*new, channels), np.uint8)
    vertical, horizontal = bicubic_matrix(old[0], new[0]), bicubic_matrix(old[1], new[1])
    exact = np.einsum("iy,yxc,jx->ijc", vertical, image.astype(np.float64), horizontal)
    error = np.abs(found - np.clip(exact, 0, 255))
    assert error.max() < 0.501, "rounded once"
    for c in range(channels):
        pillow = np.asarray(Image.fromarray(image[:, :, c]).resize(new[::-1], Image.BICUBIC))
        difference = np.abs(found[:, :, c].astype(int) - pillow)
        assert np.mean(difference <= 1) > 0.8, "Pillow clips between its passes, this does not"


def test_resize_array_leaves_an_image_that_fits():
    image = noise(20, 30)
    np.testing.assert_array_equal(T.resize_array(image, (20, 30)), image)
    assert T.resize_array(image, (30, 20)).shape == (30, 20, 3)


def test_resize_array_clips_overshoots():
    edge = np.zeros((16, 16, 1), np.uint8)
    edge[:, 8:] = 255
    larger = T.resize_array(edge, (64, 64))
    assert (larger[:, :24] < 128).all() and (larger[:, 40:] > 128).all()
    assert larger.min() == 0 and larger.max() == 255


def test_flip():
    image = noise(3, 5)
    flip = T.Flip()
    np.testing.assert_array_equal(flip.on_array(image, np.array([1.0])), image[:, ::-1])
    np.testing.assert_array_equal(flip.on_array(image, np.array([0.0])), image)
    params = T.draw([flip], seeds_of(10_000))[0]
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
    found = T.Resize(size).on_array(image, np.zeros(0))
    assert found.shape == (*new, 3)
    np.testing.assert_array_equal(found, T.resize_array(image, new))


@pytest.mark.parametrize(
    ("size", "old", "top", "left"),
    [(4, (10, 10), 3, 3), (4, (9, 10), 2, 3), ((3, 8), (10, 9), 3, 0), (5, (5, 5), 0, 0)],
)
def test_center_crop(size, old, top, left):
    image = noise(*old)
    rows, columns = (size, size) if isinstance(size, int) else size
    found = T.CenterCrop(size).on_array(image, np.zeros(0))
    np.testing.assert_array_equal(found, image[top : top + rows, left : left + columns])


def test_center_crop_of_a_smaller_image():
    with pytest.raises(UserError, match=r"center_crop\(6, 4\) of an image of 5 x 8: put resize"):
        T.CenterCrop((6, 4)).on_array(noise(5, 8), np.zeros(0))


def test_parse():
    crop, flip, resize, center = T.parse(
        "random_resized_crop(32, scale=(0.5, 1), ratio=(1, 1))|flip|resize((8, 9))|center_crop(4)"
    )
    assert (crop.size, crop.scale, crop.ratio) == ((32, 32), (0.5, 1), (1, 1))
    assert isinstance(flip, T.Flip)
    assert resize.pair == (8, 9) and center.size == (4, 4)
    assert T.parse("") == []


def test_defaults_of_random_resized_crop_are_those_of_the_paper():
    crop = T.RandomResizedCrop(224)
    assert (crop.scale, crop.ratio) == ((0.2, 1.0), (3 / 4, 4 / 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "transform 'flop' is unknown: did you mean 'flip'?"),
        ("zzz", "choose center_crop, flip, random_resized_crop, resize"),
        ("flip(1)", "flip: too many positional arguments"),
        ("resize", "resize: missing a required argument: 'size'"),
        ("random_resized_crop(32, scales=1)", "no 'scales': did you mean 'scale'?"),
        ("resize(0)", "size 0 should be a positive number or (height, width)"),
        ("center_crop((4, -1))", "size (4, -1) should be"),
        ("center_crop((4, 4, 4))", "size (4, 4, 4) should be"),
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
        T.parse(text)
    assert message in str(error.value)


def test_every_transform_of_a_chain_draws_for_itself():
    first, second = T.draw(T.parse("flip|flip"), seeds_of(1000))
    assert (first != second).mean() == pytest.approx(0.5, abs=0.06)


def smooth(count, height, width, channels):
    """[N, H, W, C] uint8: a ramp with some noise on it, different in every image and channel."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / max(height, width)
    slope = rng.uniform(-1, 1, (2, count, 1, 1, channels))
    images = 0.5 + 0.4 * (slope[0] * y[..., None] + slope[1] * x[..., None])
    images += rng.uniform(-0.1, 0.1, images.shape)
    return (images.clip(0, 1) * 255).astype(np.uint8)


def first_batches(images, text, pipeline, start, count=3):
    """The images and the labels of some batches of four, from a step on."""
    source = Arrays({"image": images, "label": np.arange(len(images))})
    data = Data({"train": source}, 4, T.parse(text), [], pipeline, 2, 3, 0, 1)
    loaded = list(itertools.islice(data.train(start), count))
    return [np.concatenate([batch[field] for batch in loaded]) for field in ("image", "label")]


@pytest.mark.parametrize(
    ("size", "text", "start"),
    [
        ((24, 31, 3), "random_resized_crop(16)|flip", 0),
        ((13, 9, 3), "random_resized_crop((21, 18), scale=(0.5, 1))|flip", 1_000_000),
        ((24, 24, 1), "random_resized_crop(7, ratio=(0.5, 2))", 1),
        ((5, 60, 3), "flip|random_resized_crop(8)", 0),
        ((20, 27, 3), "resize(13)|center_crop(12)|flip", 0),
        ((20, 27, 1), "resize((40, 31))|center_crop((33, 31))", 2),
        ((6, 7, 3), "", 0),
    ],
)
def test_both_pipelines_make_the_same_batches(size, text, start):
    """Over the end of an epoch of seven; a box or flip that differed would move the labels'
    pixels by far more than one grey level.
    """
    pytest.importorskip("tensorflow")
    images = smooth(7, *size)
    arrays, tensors = (first_batches(images, text, name, start) for name in ("arrays", "tf"))
    np.testing.assert_array_equal(arrays[1], tensors[1])
    assert arrays[1].dtype == np.int32 and sorted(set(arrays[1])) == list(range(7))
    assert (arrays[0].shape, arrays[0].dtype) == (tensors[0].shape, tensors[0].dtype)
    difference = np.abs(arrays[0].astype(int) - tensors[0])
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_both_pipelines_crop_the_same_boxes():
    tf = pytest.importorskip("tensorflow")
    crop = T.RandomResizedCrop(8)
    params = tf.constant(T.draw([crop], seeds_of(200))[0])
    box = tf.function(lambda h, w: tf.map_fn(lambda p: tf.stack(crop.box(tf, h, w, p)), params))
    for height, width in SIZES:
        boxes = box(tf.constant(height, tf.float64), tf.constant(width, tf.float64))
        np.testing.assert_array_equal(boxes, boxes_of(crop, height, width, 200))


def test_both_pipelines_refuse_a_crop_that_is_larger_than_the_image():
    pytest.importorskip("tensorflow")
    for pipeline in ("arrays", "tf"):
        with pytest.raises(UserError, match=r"center_crop\(9, 9\) of an image of 8 x 8"):
            first_batches(smooth(4, 8, 8, 3), "center_crop(9)|flip", pipeline, 0)
