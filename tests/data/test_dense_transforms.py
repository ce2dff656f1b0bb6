"""Random scale, padding and crops of several classes against loops, with masks and boxes."""

import numpy as np
import pytest

from mae_jax.data import transforms as T
from mae_jax.data.fields import IGNORE
from mae_jax.data.images import cut
from mae_jax.data.random import hash_words
from mae_jax.data.transforms.class_crop import make as class_crop
from mae_jax.data.transforms.pad import make as pad
from mae_jax.data.transforms.random_scale import make as random_scale
from mae_jax.types import UserError

RNG = np.random.default_rng(0)


def example_of(height, width, channels=3):
    """Noise, quarters of four classes, and the box of the lower right one."""
    segmentation = np.zeros((height, width), np.uint8)
    segmentation[height // 2 :] += 2
    segmentation[:, width // 2 :] += 1
    box = np.float32([[height // 2 / height, width // 2 / width, 1, 1], [0, 0, 0, 0]])
    image = RNG.integers(0, 256, (height, width, channels), np.uint8)
    return {"image": image, "segmentation": segmentation, "box": box, "label": 3}


def params_of(transform, count, seed=11):
    return T.draw([transform], hash_words(seed, np.arange(count)))[0]


@pytest.mark.parametrize(
    ("options", "shape", "ratio", "size"),
    [
        ({"short": 512}, (480, 640), 1.0, (512, 683)),
        ({"short": 512, "long": 2048}, (683, 512), 0.5, (342, 256)),
        ({"short": 512}, (100, 1000), 1.0, (205, 2048)),  # the long side decides
        ({"short": 512, "long": 600}, (512, 512), 2.0, (1024, 1024)),
        ({"short": 512, "long": 600}, (300, 600), 1.5, (450, 900)),
        ({"short": 4}, (1, 999), 0.5, (1, 8)),
    ],
)
def test_random_scale_keeps_the_aspect_ratio(options, shape, ratio, size):
    assert random_scale(**options).target(*shape, ratio) == size


def test_random_scale_moves_masks_and_boxes_with_the_image():
    transform, example = random_scale(24, ratio=(0.5, 2)), example_of(30, 40)
    ratios = params_of(transform, 2000)[:, 0]
    assert 0.5 <= ratios.min() < 0.51 and 1.98 < ratios.max() < 2
    assert ratios.mean() == pytest.approx(1.25, abs=0.03), "uniform"
    for ratio in ratios[:4]:
        found = transform.apply(example, np.array([ratio]))
        rows, columns = int(30 * 0.8 * ratio + 0.5), int(40 * 0.8 * ratio + 0.5)
        expected = cut(example["image"], (0, 0, 30, 40), (rows, columns), "bilinear")
        np.testing.assert_array_equal(found["image"], expected)
        for y, x in np.ndindex(rows, columns):
            true = example["segmentation"][
                int((y + 0.5) * 30 / rows), int((x + 0.5) * 40 / columns)
            ]
            assert found["segmentation"][y, x] == true
        np.testing.assert_allclose(found["box"], example["box"], atol=1e-6)
        assert found["label"] == 3


def test_bilinear_scaling_up_is_that_of_the_formula():
    """In float64: pixel i of the result is at (i + 1/2) n / m - 1/2."""
    example = example_of(7, 9)
    found = random_scale(14).apply(example, np.array([1.0]))["image"]

    def matrix(new, old):
        weights = np.zeros((new, old))
        for i in range(new):
            place = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
            low = int(place)
            weights[i, low] += 1 - (place - low)
            weights[i, min(low + 1, old - 1)] += place - low
        return weights

    rows, columns = matrix(14, 7), matrix(18, 9)
    expected = np.einsum("ay,bx,yxc->abc", rows, columns, example["image"].astype(float))
    assert np.abs(found - expected).max() <= 1, "grey levels"


@pytest.mark.parametrize(("channels", "fill"), [(3, (1, 2, 3)), (1, 2), (4, 2)])
def test_pad(channels, fill):
    example = example_of(5, 8, channels)
    example["segmentation"] = example["segmentation"] > 2  # a bool has no room for IGNORE
    found = pad((7, 6), fill=(1, 2, 3)).apply(example, np.zeros(0))
    assert found["image"].shape == (7, 8, channels) and found["segmentation"].shape == (7, 8)
    np.testing.assert_array_equal(found["image"][:5], example["image"])
    assert (found["image"][5:] == np.array(fill, np.uint8)).all()
    np.testing.assert_array_equal(found["segmentation"][:5], example["segmentation"])
    assert (found["segmentation"][5:] == IGNORE).all()
    pixels = found["box"] * [7, 8, 7, 8]
    np.testing.assert_allclose(pixels, example["box"] * [5, 8, 5, 8], atol=1e-5)


def test_padding_of_a_larger_image_changes_nothing():
    example = example_of(5, 8)
    assert pad(5).apply(example, np.zeros(0)) is example


def window_by_loops(segmentation, size, share, places):
    """(top, left) of the window that is cut out."""
    for i, (y, x) in enumerate(places):
        top = int(y * (segmentation.shape[0] - size[0] + 1))
        left = int(x * (segmentation.shape[1] - size[1] + 1))
        found = {}
        for row in segmentation[top : top + size[0], left : left + size[1]].tolist():
            for value in row:
                if value != IGNORE:
                    found[value] = found.get(value, 0) + 1
        most = max(found.values(), default=0)
        if i == len(places) - 1 or (len(found) > 1 and most / sum(found.values()) < share):
            return top, left
    return None


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("tries", [0, 3])
def test_class_crop_takes_the_first_varied_window(share, tries):
    size, example = (6, 9), example_of(20, 24)
    example["segmentation"][:4] = IGNORE
    transform = class_crop(size, share=share, tries=tries)
    chosen = set()
    for params in params_of(transform, 60):
        top, left = window_by_loops(example["segmentation"], size, share, params)
        chosen.add((params * [15, 16]).astype(int).tolist().index([top, left]))
        found = transform.apply(example, params)
        part = np.s_[top : top + 6, left : left + 9]
        np.testing.assert_array_equal(found["image"], example["image"][part])
        np.testing.assert_array_equal(found["segmentation"], example["segmentation"][part])
        ends = (example["box"][0] * [20, 24, 20, 24] - [top, left] * 2) / [6, 9, 6, 9]
        ends = np.clip(ends, 0, 1)
        seen = ends if (ends[2:] > ends[:2]).all() else np.zeros(4)
        np.testing.assert_allclose(found["box"][0], seen, atol=1e-6)
    assert {0, tries} <= chosen or share > 0.5


def test_class_crop_of_a_picture_without_classes_is_the_last_window():
    example = example_of(9, 9)
    for value in (IGNORE, 0):
        example["segmentation"][:] = value
        places = params_of(class_crop(3), 1)[0]
        found = class_crop(3).apply(example, places)["image"]
        top, left = (places[-1] * 7).astype(int)
        np.testing.assert_array_equal(found, example["image"][top : top + 3, left : left + 3])
    assert class_crop(3).draws == 22


def test_the_recipe_makes_crops_of_one_size():
    steps = T.make_transforms("random_scale(16, long=64)|pad(16)|class_crop(16)|flip")
    for k, shape in enumerate([(5, 90), (16, 16), (40, 30), (30, 40)]):
        example = example_of(*shape)
        for step, params in zip(steps, T.draw(steps, hash_words(k, np.arange(1))), strict=True):
            example = step.apply(example, params[0])
        assert example["image"].shape == (16, 16, 3) and example["segmentation"].shape == (16, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random_scale(0)", "random_scale: short=0 should be a positive integer"),
        ("random_scale(8, long=7)", "long=7 is less than short=8: raise it"),
        ("random_scale(8, long=9.5)", "long=9.5 should be of type int or None"),
        ("random_scale(8, ratio=(2, 1))", "ratio (2, 1) is not an ascending range"),
        ("random_scale(8, kernel=cubic)", "random_scale: kernel 'cubic' is unknown: choose"),
        ("pad(0)", "size 0 should be a positive number or (height, width)"),
        ("pad(8, fill=256)", "pad: fill=256 should be three integers in [0, 255]"),
        ("pad(8, fill=(0, 0, 256))", "pad: fill=(0, 0, 256) should be three integers"),
        ("class_crop(8, share=0)", "class_crop: share=0 is not in (0, 1]"),
        ("class_crop(8, tries=-1)", "class_crop: tries=-1 should be an integer from 0 to 1000"),
    ],
)
def test_wrong_arguments_are_one_clear_line(text, message):
    with pytest.raises(UserError) as error:
        T.make_transforms(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_class_crop_needs():
    example = example_of(5, 8)
    with pytest.raises(
        UserError, match=r"class_crop\(6, 6\) of an image of 5 x 8: put resize\(...\) or pad"
    ):
        class_crop(6).apply(example, params_of(class_crop(6), 1)[0])


def test_a_class_crop_without_a_segmentation_is_a_random_one():
    example = example_of(5, 8)
    alone = {"image": example["image"]}
    params = params_of(class_crop(2), 1)[0]
    found = class_crop(2).apply(alone, params)["image"]
    top, left = (int(share * (side - 2 + 1)) for share, side in zip(params[0], (5, 8)))
    np.testing.assert_array_equal(found, example["image"][top : top + 2, left : left + 2])
