"""Random erasing: the boxes, the noise in them, and nothing outside of them."""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import images
from mae_jax.data.random import hash_words
from mae_jax.data.transforms import draw, make_transforms
from mae_jax.types import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(height, width, channels=3, seed=0):
    """[H, W, C] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def seeds_of(count):
    """[count] uint64."""
    return hash_words(13, np.arange(count))


def erasing(options=""):
    """The transform, with these options."""
    return make_transforms(f"random_erasing({options})")[0]


def boxes_of(transform, height, width, count):
    """[count, 4] integers."""
    params = draw([transform], seeds_of(count))[0]
    return np.array([transform.box(height, width, row) for row in params])


def erase(image, count, options="probability=1"):
    """[count, H, W, C]: the image, erased in many ways, and [count, 4] boxes."""
    transform = erasing(options)
    params = draw([transform], seeds_of(count))[0]
    erased = np.stack([transform.apply({"image": image}, row)["image"] for row in params])
    assert erased.dtype == np.uint8
    return erased, boxes_of(transform, *image.shape[:2], count)


# Boxes ------------------------------------------------------------------------------------------


def box_in_floats(numbers, height, width):
    """(top, left, height, width) with the default options: ten tries, or nothing.

    Args:
        numbers: 42 uniform numbers: whether, the noise, and four for each try.
    """
    for i in range(2, 42, 4):
        area = height * width * (0.02 + numbers[i] * (1 / 3 - 0.02))
        aspect = math.exp(math.log(0.3) * (1 - 2 * numbers[i + 1]))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if numbers[0] < 0.25 and 0 < rows < height and 0 < columns < width:
            top = math.floor(numbers[i + 2] * (height - rows + 1))
            return top, math.floor(numbers[i + 3] * (width - columns + 1)), rows, columns
    return 0, 0, 0, 0


@pytest.mark.parametrize("size", [(224, 224), (30, 50), (100, 7), (5, 4), (9, 400), (1, 1)])
def test_boxes(size):
    transform = erasing()
    u = np.random.default_rng(2).random((200, transform.draws))
    boxes = [transform.box(*size, row) for row in transform.plan(u)]
    assert boxes == [box_in_floats(row.tolist(), *size) for row in u]
    for top, left, rows, columns in boxes:
        assert 0 <= top <= size[0] - rows and 0 <= left <= size[1] - columns


def test_areas_and_aspects_are_those_asked_for():
    """Boxes that always fit, so that no try is refused."""
    boxes = boxes_of(erasing("probability=1, area=(0.02, 0.2), aspect=(0.5, 2)"), 800, 800, 3000)
    area = boxes[:, 2] * boxes[:, 3] / 800**2
    aspect = np.log(boxes[:, 2] / boxes[:, 3])
    assert 0.0195 < area.min() < 0.022 and 0.198 < area.max() < 0.2005
    assert area.mean() == pytest.approx(0.11, abs=0.005), "uniform"
    assert area.std() == pytest.approx(0.18 / math.sqrt(12), abs=0.003)
    assert aspect.mean() == pytest.approx(0, abs=0.04), "uniform in the logarithm"
    assert aspect.std() == pytest.approx(2 * math.log(2) / math.sqrt(12), abs=0.02)
    assert np.abs(aspect).max() < math.log(2.02) and np.abs(aspect).max() > math.log(1.95)
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.1


def test_the_aspect_is_height_by_width():
    boxes = boxes_of(erasing("probability=1, area=(0.04, 0.04), aspect=(4, 4)"), 100, 100, 20)
    np.testing.assert_array_equal(boxes[:, 2:], np.tile([40, 10], (20, 1)))


def test_places_are_uniform():
    """A quarter of a square of 40: places 0 ... 20 in both directions."""
    boxes = boxes_of(erasing("probability=1, area=(0.25, 0.25), aspect=(1, 1)"), 40, 40, 4200)
    for places in boxes[:, :2].T:
        counts = np.bincount(places, minlength=21)
        assert len(counts) == 21 and ((counts - 200) ** 2 / 200).sum() < 20 + 6 * math.sqrt(40)
    assert abs(np.corrcoef(boxes[:, :2].T)[0, 1]) < 0.06


@pytest.mark.parametrize("probability", [0, 0.25, 0.9, 1])
def test_probability(probability):
    erased = boxes_of(erasing(f"probability={probability}"), 224, 224, 8000)[:, 2] > 0
    bound = 5 * math.sqrt(probability * (1 - probability) / 8000)
    assert erased.mean() == pytest.approx(probability, abs=bound)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_images_in_which_no_box_is_smaller_stay(size):
    image = noise(*size)
    erased, boxes = erase(image, 20)
    assert (boxes == 0).all() and (erased == image).all()


# Noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_outside_the_box_stay(channels):
    image = noise(33, 47, channels)
    image.flags.writeable = False  # so that a change in place would raise
    erased, boxes = erase(image, 50, "probability=1, mean=(0.5,), std=(0.3,)")
    assert erased.shape == (50, *image.shape)
    for changed, (top, left, rows, columns) in zip(erased, boxes, strict=True):
        outside = np.ones((33, 47), bool)
        outside[top : top + rows, left : left + columns] = False
        np.testing.assert_array_equal(changed[outside], image[outside])
        assert (changed != image)[~outside].mean() > 0.9
    np.testing.assert_array_equal(image, noise(33, 47, channels))


def noise_pixels(options, channels):
    """[N, C] gray levels: N = 200,000, of twenty boxes of 100 x 100."""
    options = f"probability=1, area=(0.25, 0.25), aspect=(1, 1), {options}"
    erased, boxes = erase(np.zeros((200, 200, channels), np.uint8), 20, options)
    parts = [one[t : t + h, x : x + w] for one, (t, x, h, w) in zip(erased, boxes, strict=True)]
    return np.stack(parts).reshape(-1, channels)


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        ("", MEAN, STD),
        ("mean=(0.5,), std=(0.1,)", (0.5,) * 3, (0.1,) * 3),
        ("mean=(0.1, 0.5, 1), std=(0.01,)", (0.1, 0.5, 1), (0.01,) * 3),
        ("mean=(0,), std=(0.02, 0.5, 1)", (0,) * 3, (0.02, 0.5, 1)),
    ],
)
def test_noise_is_normal_rounded_and_clipped(options, mean, std):
    """The share of every gray level and below, within five standard deviations."""
    pixels = noise_pixels(options, 3)
    for channel in range(3):
        shares = np.cumsum(np.bincount(pixels[:, channel], minlength=256)) / len(pixels)
        normal = NormalDist(255 * mean[channel], 255 * std[channel])
        expected = np.array([normal.cdf(level + 0.5) for level in range(255)] + [1.0])
        bound = 5 * np.sqrt(expected * (1 - expected) / len(pixels)) + 2e-5
        assert (np.abs(shares - expected) < bound).all()


def test_normalized_noise_is_standard_normal_up_to_clipping():
    """With the narrower noise of which next to nothing is clipped."""
    pixels = noise_pixels("mean=(0.5, 0.45, 0.55), std=(0.1, 0.11, 0.09)", 3)
    normalized = (pixels / 255 - (0.5, 0.45, 0.55)) / (0.1, 0.11, 0.09)
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=0.012)
    np.testing.assert_allclose(normalized.std(axis=0), 1, atol=0.01)
    np.testing.assert_allclose((normalized**4).mean(axis=0), 3, atol=0.08)


def test_noise_has_no_structure():
    """No correlation between channels, neighbors, or the boxes of two examples."""
    pixels = noise_pixels("", 3).reshape(20, 100, 100, 3).astype(float)
    pixels -= pixels.mean(axis=(0, 1, 2))
    pairs = [
        (pixels[..., 0], pixels[..., 1]),
        (pixels[..., 1], pixels[..., 2]),
        (pixels[1:], pixels[:-1]),
        (pixels[:, 1:], pixels[:, :-1]),
        (pixels[:, :, 1:], pixels[:, :, :-1]),
        (pixels[:, :, 4:], pixels[:, :, :-4]),
    ]
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / math.sqrt(a.size)


# Pixels of a known seed: if they move, every run erases otherwise than before.
def test_noise_never_changes():
    transform = erasing("probability=1, area=(0.25, 0.25), aspect=(1, 1)")
    u = np.full((1, transform.draws), 0.5)
    assert transform.box(4, 4, transform.plan(u)[0]) == (1, 1, 2, 2)
    erased = transform.apply({"image": np.zeros((4, 4, 3), np.uint8)}, transform.plan(u)[0])
    words = [int(hash_words(1 << 52, word)) for word in range(3)]
    numbers = [word >> (16 * i) & 0xFFFF for word in words for i in range(4)]
    for place, number in enumerate(numbers):
        channel, pixel = divmod(place, 4)
        normal = NormalDist(MEAN[channel], STD[channel]).inv_cdf((number + 0.5) / 65536)
        level = erased["image"][1 + pixel // 2, 1 + pixel % 2, channel]
        assert abs(level - min(255, max(0, 255 * normal))) < 0.51


# Examples ---------------------------------------------------------------------------------------


def test_an_example_is_a_function_of_its_seed():
    """In any order, in any thread, and whatever is beside it in the batch."""
    transform, image = erasing("probability=0.7"), noise(40, 33)
    work = lambda params: transform.apply({"image": image}, params)["image"]
    one_by_one = [work(draw([transform], seeds_of(60)[i : i + 1])[0][0]) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        rows = draw([transform], seeds_of(60))[0][::-1]
        together = list(pool.map(work, rows))[::-1]
    for one, other in zip(one_by_one, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({one.tobytes() for one in one_by_one}) > 30


def test_whatever_else_is_in_an_example_stays():
    transform = erasing("probability=1")
    params = draw([transform], seeds_of(1))[0][0]
    example = {"image": noise(20, 20), "segmentation": np.eye(20), "box": np.ones(4), "label": 2}
    changed = transform.apply(example, params)
    assert changed.keys() == example.keys()
    assert all(changed[field] is example[field] for field in ("segmentation", "box", "label"))
    assert (changed["image"] != example["image"]).any()
    assert (example["image"] == noise(20, 20)).all()


def test_encoded_images():
    file = io.BytesIO()
    Image.fromarray(noise(20, 30)).save(file, "png")
    transform = erasing("probability=1")
    params = draw([transform], seeds_of(1))[0][0]
    found = transform.apply({"image": images.Encoded(file.getvalue())}, params)["image"]
    expected = transform.apply({"image": noise(20, 30)}, params)["image"]
    np.testing.assert_array_equal(found, expected)


# Mistakes ---------------------------------------------------------------------------------------


def test_channels_without_a_mean_are_refused_even_where_nothing_is_erased():
    transform = erasing("probability=0")
    params = draw([transform], seeds_of(1))[0][0]
    with pytest.raises(UserError, match="of 3 channels, images of 1: give one number, or 1"):
        transform.apply({"image": noise(8, 8, 1)}, params)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probability=1.01", "random_erasing: probability=1.01 is not in [0, 1]"),
        ("probability=often", "probability='often' should be of type float"),
        ("area=(0.3, 0.1)", "random_erasing: area (0.3, 0.1) is not an ascending range"),
        ("area=(0.3, 1.5)", "random_erasing: area (0.3, 1.5) exceeds the image"),
        ("aspect=(0, 1)", "random_erasing: aspect (0, 1) is not an ascending range"),
        ("mean=0.5", "random_erasing: mean=0.5 should be a number in [0, 1] for each channel"),
        ("mean=()", "random_erasing: mean=() should be a number in [0, 1] for each channel"),
        ("mean=(124, 116, 104)", "mean=(124, 116, 104) should be a number in [0, 1]"),
        ("std=(0.2, -0.1)", "random_erasing: std=(0.2, -0.1) should be a number in [0.001, 1]"),
        ("std=(0,)", "random_erasing: std=(0,) should be a number in [0.001, 1]"),
        ("std=(0.2, 0.2)", "random_erasing: 3 numbers in mean and 2 in std"),
        ("mode=pixel", "there is no 'mode'"),
    ],
)
def test_wrong_options_are_explained(text, message):
    with pytest.raises(UserError) as error:
        make_transforms(f"random_erasing({text})")
    assert message in str(error.value)
