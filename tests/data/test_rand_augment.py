"""RandAugment: every operation against numpy, masks and boxes against the pixels, and its odds."""

import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import images
from mae_jax.data.fields import IGNORE
from mae_jax.data.random import hash_words
from mae_jax.data.transforms import draw, make_transforms
from mae_jax.data.transforms.rand_augment import GEOMETRIC, OPERATIONS
from mae_jax.types import UserError


def noise(height, width, channels=3, seed=0):
    """[H, W, C] uint8, in which not every gray level occurs."""
    return np.random.default_rng(seed).integers(30, 220, (height, width, channels), np.uint8)


def seeds_of(count):
    """[count] uint64."""
    return hash_words(7, np.arange(count))


def change(example, name, magnitude, sign=1, options=""):
    """The example after one operation."""
    transform = make_transforms(f"rand_augment({options})")[0]
    return transform.apply(example, np.array([[OPERATIONS.index(name), magnitude, sign]]))


def change_pixels(image, *args):
    """[H, W, C] after one operation, as integers that can be negative."""
    changed = change({"image": image}, *args)["image"]
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    return changed.astype(int)


# The fifteen of the recipe; if their order moves, every run draws other ones than before.
def test_operations():
    assert OPERATIONS == (
        *("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add"),
        *("color", "contrast", "brightness", "sharpness"),
        *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
    )


# Photometric operations -------------------------------------------------------------------------


def luminance(image):
    """[H, W] of integers: ITU-R 601-2 in 16 bits."""
    if image.shape[2] == 1:
        return image[:, :, 0].astype(int)
    return (image.astype(int) @ [19595, 38470, 7471] + 0x8000) >> 16


def smoothed(image):
    """The mean of 3 x 3 pixels, of which the middle one counts five times; borders stay."""
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    total = 4 * image.astype(float)
    for i in range(3):
        for j in range(3):
            total += padded[i : i + height, j : j + width]
    result = image.astype(float)
    result[1:-1, 1:-1] = np.rint(total / 13)[1:-1, 1:-1]
    return result


BASES = {
    "color": lambda image: luminance(image)[..., None],
    "contrast": lambda image: np.rint(luminance(image).mean()),
    "brightness": lambda image: 0,
    "sharpness": smoothed,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("magnitude", "sign", "factor"),
    [(0, 1, 1), (5, 1, 1.45), (5, -1, 0.55), (9, 1, 1.81), (9, -1, 0.19), (10, -1, 0.1)],
)
@pytest.mark.parametrize("name", BASES)
def test_enhancing_is_a_step_away_from_an_image_that_lacks_it(
    name, magnitude, sign, factor, channels
):
    image = noise(20, 23, channels)
    base = BASES[name](image)
    expected = np.clip(base + factor * (image - base), 0, 255)
    assert np.abs(change_pixels(image, name, magnitude, sign) - expected).max() < 2
    if factor == 1:
        np.testing.assert_array_equal(change_pixels(image, name, magnitude, sign), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_invert(channels):
    image = noise(9, 8, channels)
    np.testing.assert_array_equal(change_pixels(image, "invert", 9), 255 - image.astype(int))


@pytest.mark.parametrize(
    ("magnitude", "bits"), [(0, 4), (2.4, 4), (2.5, 3), (5, 2), (9, 1), (9.99, 1), (10, 0)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_posterize_keeps_the_highest_bits(magnitude, bits, channels):
    image = noise(9, 8, channels)
    expected = image >> (8 - bits) << (8 - bits) if bits else np.zeros_like(image)
    np.testing.assert_array_equal(change_pixels(image, "posterize", magnitude), expected)


@pytest.mark.parametrize(("magnitude", "threshold"), [(0, 256), (5, 128), (9, 26), (10, 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_solarize_inverts_what_is_bright(magnitude, threshold, channels):
    image = np.random.default_rng(0).integers(0, 256, (20, 20, channels), np.uint8)
    expected = np.where(image < threshold, image, 255 - image.astype(int))
    np.testing.assert_array_equal(change_pixels(image, "solarize", magnitude), expected)


@pytest.mark.parametrize(("magnitude", "added"), [(0, 0), (5, 55), (9, 99), (10, 110)])
@pytest.mark.parametrize("channels", [1, 3])
def test_solarize_add_brightens_what_is_dark(magnitude, added, channels):
    image = noise(20, 20, channels)
    expected = np.where(image < 128, image.astype(int) + added, image)
    np.testing.assert_array_equal(change_pixels(image, "solarize_add", magnitude), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_auto_contrast_stretches_each_channel(channels):
    image = noise(15, 16, channels) // np.arange(1, channels + 1, dtype=np.uint8)
    low, high = (f(image.astype(float), axis=(0, 1)) for f in (np.min, np.max))
    changed = change_pixels(image, "auto_contrast", 9)
    assert np.abs(changed - (image - low) * 255 / (high - low)).max() < 1.001
    assert (changed.min(axis=(0, 1)) == 0).all() and (changed.max(axis=(0, 1)) >= 254).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_flattens_each_histogram(channels):
    """Each gray level goes to the share of pixels below it."""
    image = (noise(128, 128, channels).astype(int) ** 2 // 256).astype(np.uint8)
    changed = change_pixels(image, "equalize", 9)
    for before, after in zip(image.reshape(-1, channels).T, changed.reshape(-1, channels).T):
        counts = np.bincount(before, minlength=256)
        below = np.append(0, np.cumsum(counts)[:-1])
        step = (counts.sum() - counts[before.max()]) // 255
        table = np.minimum((step // 2 + below) // step, 255)
        np.testing.assert_array_equal(after, table[before])
        assert np.histogram(after, bins=8, range=(0, 256))[0].std() < 0.1 * len(after) / 8


# Geometric operations ---------------------------------------------------------------------------


def turned_back(x, y, degrees, width, height):
    """A place before a rotation, counterclockwise for who looks at the image."""
    turned = complex(width, -height) / 2 + (x - 1j * y - complex(width, -height) / 2) * np.exp(
        -1j * math.radians(degrees)
    )
    return turned.real, -turned.imag


SOURCES = {
    "rotate": lambda x, y, a, w, h: turned_back(x, y, 30 * a, w, h),
    "shear_x": lambda x, y, a, w, h: (x + 0.3 * a * y, y),
    "shear_y": lambda x, y, a, w, h: (x, y + 0.3 * a * x),
    "translate_x": lambda x, y, a, w, h: (x + 0.45 * a * w, y),
    "translate_y": lambda x, y, a, w, h: (x, y + 0.45 * a * h),
}


def cubic_weights(t):
    """Weights [4, ...] of the pixels at -1, 0, 1 and 2 for a place t in [0, 1): cubic convolution
    with a = -1, which Pillow takes for moving pixels (and a = -0.5 for resizing).
    """
    near = lambda d: d**3 - 2 * d**2 + 1
    far = lambda d: -(d**3) + 5 * d**2 - 8 * d + 4
    return np.stack([far(1 + t), near(t), near(1 - t), far(2 - t)])


def warp(image, x, y, fill):
    """[H, W, C] float64: the image at places [H, W] in pixels from the upper left corner."""
    height, width = image.shape[:2]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = np.floor(y - 0.5).astype(int), np.floor(x - 0.5).astype(int)
    vertical, horizontal = cubic_weights(y - 0.5 - rows), cubic_weights(x - 0.5 - columns)
    total = np.zeros(image.shape)
    for i in range(4):
        for j in range(4):
            row, column = (rows + i - 1).clip(0, height - 1), (columns + j - 1).clip(0, width - 1)
            total += (vertical[i] * horizontal[j])[..., None] * image[row, column]
    return np.where(inside[..., None], total.clip(0, 255), fill)


@pytest.mark.parametrize(("channels", "fill"), [(1, 65), (3, (200, 10, 0))])
@pytest.mark.parametrize(("magnitude", "sign"), [(0, 1), (3.3, 1), (3.3, -1), (9, 1), (10, -1)])
@pytest.mark.parametrize("name", SOURCES)
def test_moved_pixels_are_bicubic(name, magnitude, sign, channels, fill):
    image = noise(24, 37, channels)
    y, x = np.mgrid[:24, :37] + 0.5
    expected = warp(image, *SOURCES[name](x, y, sign * magnitude / 10, 37, 24), fill)
    found = change_pixels(image, name, magnitude, sign, "fill=(200, 10, 0)")
    # Where a source lies on the border to a hair, rounding decides: a pixel or none of these.
    wrong = (np.abs(found - expected) > 1.001).any(-1)
    assert wrong.sum() <= (1 if name == "rotate" else 0)
    if magnitude == 0:
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("channels", [1, 3])
def test_translation_by_whole_pixels(channels):
    """At 5 of 10, by 0.225 of the side: 9 of 40 pixels, to the left or upwards if positive."""
    image, fill = noise(40, 40, channels), np.array([124, 116, 104] if channels == 3 else [117])
    gap = np.broadcast_to(fill, (40, 9, channels))
    left = np.concatenate([image[:, 9:], gap], axis=1)
    right = np.concatenate([gap, image[:, :-9]], axis=1)
    np.testing.assert_array_equal(change_pixels(image, "translate_x", 5), left)
    np.testing.assert_array_equal(change_pixels(image, "translate_x", 5, -1), right)
    down = np.concatenate([gap.swapaxes(0, 1), image[:-9]], axis=0)
    np.testing.assert_array_equal(change_pixels(image, "translate_y", 5, -1), down)


def test_rotation_by_a_right_angle():
    """Three times as far as `plan` ever asks for, where the result is plain. (Pillow cuts decimals
    off, so that a hair's breadth costs a gray level.)
    """
    image = noise(20, 20)
    segmentation = np.arange(400).reshape(20, 20)
    box = np.array([0.1, 0.2, 0.4, 0.9], np.float32)
    example = {"image": image, "segmentation": segmentation, "box": box}
    changed = change(example, "rotate", 30)
    assert np.abs(changed["image"].astype(int) - np.rot90(image)).max() <= 1
    np.testing.assert_array_equal(changed["segmentation"], np.rot90(segmentation))
    np.testing.assert_allclose(changed["box"], [0.1, 0.1, 0.8, 0.4], atol=1e-6)


MOVES = [(name, m, sign) for name in GEOMETRIC for m in (2, 6.5, 9, 10) for sign in (-1, 1)]


@pytest.mark.parametrize(("name", "magnitude", "sign"), MOVES)
def test_masks_and_boxes_move_with_the_pixels(name, magnitude, sign):
    """A bright rectangle on black, its mask and its box."""
    mask = np.zeros((60, 90), np.int32)
    mask[12:30, 40:61] = 7
    image = np.uint8(255 * (mask > 0))[..., None].repeat(3, axis=2)
    box = np.array([12 / 60, 40 / 90, 30 / 60, 61 / 90], np.float32)
    example = {"image": image, "segmentation": mask, "box": box, "label": 3}
    found = change(example, name, magnitude, sign, "fill=(0, 0, 0)")
    assert found["label"] == 3
    assert found["segmentation"].dtype == np.int32 and found["box"].dtype == np.float32
    assert set(np.unique(found["segmentation"])) <= {0, 7, IGNORE}
    bright = found["image"][:, :, 0] > 127
    assert ((found["segmentation"] == 7) != bright).mean() < 0.005, "but for the border"
    if not bright.any():
        assert (found["box"] == 0).all()
        return
    rows, columns = np.nonzero(found["segmentation"] == 7)
    hull = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    edges = found["box"] * [60, 90, 60, 90]
    assert (np.abs(edges - hull) <= 1.5).all(), "as tight as a hull of pixels can tell"


@pytest.mark.parametrize(("name", "magnitude", "sign"), MOVES)
def test_what_comes_from_outside_is_the_same_for_masks_and_pixels(name, magnitude, sign):
    example = {"image": np.full((31, 44, 3), 255, np.uint8), "segmentation": np.ones((31, 44))}
    found = change(example, name, magnitude, sign, "fill=(0, 0, 0)")
    np.testing.assert_array_equal(found["image"][:, :, 0] > 0, found["segmentation"] == 1)
    assert set(np.unique(found["segmentation"])) == {1, IGNORE}


def test_boxes_are_clipped_and_those_that_leave_are_zeros():
    boxes = np.zeros((2, 2, 4), np.float32)
    boxes[0] = [[0.2, 0, 0.4, 0.3], [0.2, 0.1, 0.4, 0.7]]
    boxes[1, 0] = [0, 0.5, 1, 1]
    found = change({"image": noise(20, 30), "box": boxes}, "translate_x", 10)["box"]
    expected = [[[0] * 4, [0.2, 0, 0.4, 0.25]], [[0, 0.05, 1, 0.55], [0] * 4]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    other_way = change({"image": noise(20, 30), "box": boxes}, "translate_x", 10, -1)["box"]
    assert (other_way[1, 1] == 0).all(), "a box of zeros does not come back as one"
    flat = np.array([0.5, 0.2, 0.5, 0.8], np.float32)
    turned = change({"image": noise(20, 30), "box": flat}, "rotate", 9)["box"]
    assert (turned == 0).all(), "a turn does not fill an empty box"


def test_photometric_operations_leave_masks_and_boxes():
    example = {"image": noise(8, 8), "segmentation": np.eye(8), "box": np.ones(4)}
    for name in set(OPERATIONS) - set(GEOMETRIC):
        changed = change(example, name, 9)
        assert changed["segmentation"] is example["segmentation"]
        assert changed["box"] is example["box"]


def test_operations_follow_one_another():
    transform = make_transforms("rand_augment(operations=3)")[0]
    image, mask = noise(40, 40), np.random.default_rng(0).integers(0, 9, (40, 40))
    row = lambda name, sign: [OPERATIONS.index(name), 5, sign]
    params = np.array([row("translate_x", 1), row("invert", 1), row("translate_x", -1)])
    changed = transform.apply({"image": image, "segmentation": mask}, params)
    np.testing.assert_array_equal(changed["image"][:, 9:], 255 - image[:, 9:])
    np.testing.assert_array_equal(changed["segmentation"][:, 9:], mask[:, 9:])
    np.testing.assert_array_equal(changed["image"][0, 0], [124, 116, 104])
    assert (changed["segmentation"][:, :9] == IGNORE).all()


# What is drawn ----------------------------------------------------------------------------------


def test_plan_is_box_and_mullers():
    u = np.random.default_rng(0).random((50, 15))
    transform = make_transforms("rand_augment(magnitude=4, deviation=3, operations=3)")[0]
    assert transform.draws == 15
    for row, params in zip(u, transform.plan(u), strict=True):
        for (a, b, c, d, e), (place, magnitude, sign) in zip(row.reshape(3, 5), params):
            assert place == (math.floor(15 * a) if b < 0.5 else -1)
            normal = math.sqrt(-2 * math.log(1 - c)) * math.cos(2 * math.pi * d)
            assert magnitude == pytest.approx(min(10, max(0, 4 + 3 * normal)), abs=1e-12)
            assert sign == (-1 if e < 0.5 else 1)


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_uniform_numbers(u):
    params = make_transforms("rand_augment(probability=1)")[0].plan(np.full((1, 10), u))
    assert set(params[..., 0].ravel()) == {0.0 if u == 0 else 14.0}
    assert ((params[..., 1] >= 0) & (params[..., 1] <= 10)).all()


def test_every_operation_is_chosen_equally_often():
    """Chi-square with 14 degrees of freedom for each of the two; all pairs come up."""
    params = draw(make_transforms("rand_augment(probability=1)"), seeds_of(15_000))[0]
    assert params.shape == (15_000, 2, 3)
    first, second = params[..., 0].astype(int).T
    for places in (first, second):
        counts = np.bincount(places, minlength=15)
        assert len(counts) == 15 and (np.abs(counts - 1000) < 5 * math.sqrt(1000)).all()
        assert ((counts - 1000) ** 2 / 1000).sum() < 14 + 6 * math.sqrt(28)
    pairs = np.bincount(15 * first + second, minlength=225)
    assert pairs.min() > 0, "with replacement, in both orders"
    assert ((pairs - 66.7) ** 2 / 66.7).sum() < 224 + 6 * math.sqrt(448)


@pytest.mark.parametrize("probability", [0, 0.5, 0.8, 1])
def test_each_is_applied_with_its_probability(probability):
    text = f"rand_augment(probability={probability})"
    applied = draw(make_transforms(text), seeds_of(10_000))[0][..., 0] >= 0
    bound = 5 * math.sqrt(probability * (1 - probability) / 10_000)
    np.testing.assert_allclose(applied.mean(axis=0), probability, atol=bound)
    both = applied.all(axis=1).mean()
    assert both == pytest.approx(probability**2, abs=0.025), "independent of one another"


def test_magnitudes_and_signs():
    """N(9, 0.5), of which 2.3 % are clipped to 10."""
    params = draw(make_transforms("rand_augment"), seeds_of(20_000))[0]
    magnitudes, signs = params[..., 1].ravel(), params[..., 2].ravel()
    share = lambda low, high: ((magnitudes >= low) & (magnitudes < high)).mean()
    assert (magnitudes == 10).mean() == pytest.approx(0.02275, abs=0.004)
    assert share(9, 9.5) == pytest.approx(0.3413, abs=0.012)
    assert share(8.5, 9) == pytest.approx(0.3413, abs=0.012)
    assert share(8, 8.5) == pytest.approx(0.1359, abs=0.009)
    assert share(0, 7.5) == pytest.approx(0.00135, abs=0.001)
    assert set(signs) == {-1, 1} and signs.mean() == pytest.approx(0, abs=0.025)
    assert abs(np.corrcoef(magnitudes, signs)[0, 1]) < 0.025


@pytest.mark.parametrize(("magnitude", "deviation", "expected"), [(3, 0, {3}), (10, 0, {10})])
def test_without_deviation_the_magnitude_is_fixed(magnitude, deviation, expected):
    text = f"rand_augment(magnitude={magnitude}, deviation={deviation})"
    assert set(draw(make_transforms(text), seeds_of(100))[0][..., 1].ravel()) == expected


def test_wide_deviations_are_clipped():
    magnitudes = draw(make_transforms("rand_augment(deviation=10)"), seeds_of(1000))[0][..., 1]
    assert magnitudes.min() == 0 and magnitudes.max() == 10


def test_an_example_is_a_function_of_its_seed():
    """In any order, in any thread, and whatever is beside it in the batch."""
    transforms = make_transforms("rand_augment(operations=3, probability=0.9)")
    transform, pixels = transforms[0], noise(32, 40)
    pixels.flags.writeable = False  # so that a change in place would raise
    work = lambda params: transform.apply({"image": pixels}, params)["image"]
    params = draw(transforms, seeds_of(60))[0]
    alone = [work(draw(transforms, seeds_of(60)[i : i + 1])[0][0]) for i in reversed(range(60))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, params))
    for one, other in zip(reversed(alone), together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({image.tobytes() for image in together}) > 50
    np.testing.assert_array_equal(pixels, noise(32, 40))


def test_encoded_images_and_views():
    file = io.BytesIO()
    image = noise(20, 30)
    Image.fromarray(image).save(file, "png")
    encoded = images.Encoded(file.getvalue())
    mask, box = np.eye(20, 30), np.array([0.1, 0.1, 0.6, 0.6], np.float32)
    for name in ("equalize", "shear_x"):
        expected = change({"image": image, "segmentation": mask, "box": box}, name, 9)
        found = change({"image": encoded, "segmentation": mask, "box": box}, name, 9)
        for field in expected:
            np.testing.assert_array_equal(found[field], expected[field])
        mirrored = change_pixels(image[:, ::-1], name, 9)
        np.testing.assert_array_equal(mirrored, change_pixels(image[:, ::-1].copy(), name, 9))


# Mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_other_channels_are_refused_even_where_nothing_is_applied(channels):
    transform = make_transforms("rand_augment(probability=0)")[0]
    with pytest.raises(UserError, match=f"images of {channels} channels.*1 .gray. or 3 .RGB."):
        transform.apply({"image": noise(4, 4, channels)}, transform.plan(np.zeros((1, 10)))[0])


def test_a_segmentation_of_another_size():
    example = {"image": noise(4, 5), "segmentation": np.zeros((5, 4))}
    with pytest.raises(images.BadImage, match=r"\(5, 4\), the image \(4, 5\)"):
        change(example, "rotate", 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magnitude=11", "rand_augment: magnitude=11 is not in [0, 10]"),
        ("magnitude=-0.1", "rand_augment: magnitude=-0.1 is not in [0, 10]"),
        ("magnitude=strong", "magnitude='strong' should be of type float"),
        ("deviation=-1", "rand_augment: deviation=-1 is not in [0, 10]"),
        ("deviation=1e999", "rand_augment: deviation=inf must be finite"),
        ("probability=1.5", "rand_augment: probability=1.5 is not in [0, 1]"),
        ("operations=0", "rand_augment: operations=0 must be at least 1"),
        ("operations=1.5", "operations=1.5 should be of type int"),
        ("fill=128", "rand_augment: fill=128 should be three integers in [0, 255]"),
        ("fill=(1, 2)", "rand_augment: fill=(1, 2) should be three integers in [0, 255]"),
        ("fill=(1, 2, 256)", "fill=(1, 2, 256) should be three integers in [0, 255]"),
        ("fill=(0.5, 0.5, 0.5)", "fill=(0.5, 0.5, 0.5) should be three integers in [0, 255]"),
        ("magnitudes=9", "there is no 'magnitudes': did you mean 'magnitude'?"),
    ],
)
def test_wrong_options_are_explained(text, message):
    with pytest.raises(UserError) as error:
        make_transforms(f"rand_augment({text})")
    assert message in str(error.value)
