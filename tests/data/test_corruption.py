"""Corruptions: the simple ones against float64, the random ones against their statistics."""

import colorsys
import functools
import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy
from PIL import Image
from scipy import ndimage

from mae_jax.data import corruptions, images
from mae_jax.data.random import hash_words
from mae_jax.data.sources.fashion_scenes import photographs
from mae_jax.data.transforms import draw, make_transforms
from mae_jax.data.transforms.corruption import KINDS, SEVERITIES
from mae_jax.types import UserError

NAMES = tuple(kind.name for kind in KINDS)
DETERMINISTIC = (
    *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
)
# Where a higher severity of the paper changes the pixels less, at a shorter side of 224 and of 32.
# The paper's own code does so too, at 224.
LESS = {
    224: {("glass_blur", 4), ("snow", 3), ("fog", 4), ("elastic_transform", 3)},
    32: {("glass_blur", s) for s in (2, 4)} | {("snow", 3), ("fog", 4), ("elastic_transform", 3)},
}


@functools.cache
def picture(side=224, channels=3):
    """[side, side, channels] uint8: of a photograph."""
    photograph = photographs("train")[0].convert(images.MODES[channels])
    square = photograph.crop((60, 0, 316, 256)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(square).reshape(side, side, channels)


def flat(level, side=224, channels=3):
    """[side, side, channels] uint8, all of one gray level."""
    return np.full((side, side, channels), level, np.uint8)


def corrupt(image, kind, severity, seed=1):
    """The image after the transform, as the pipeline would call it."""
    transform = make_transforms(f"corruption({kind}, severity={severity})")
    params = draw(transform, hash_words(seed)[None])[0][0]
    return transform[0].apply({"image": image}, params)["image"]


def strengths(kind, severity):
    """The arguments of a formula."""
    return KINDS[NAMES.index(kind)].strengths[severity - 1]


def levels(image, kind, severity, seed=1):
    """What the formula gives: float64, neither clipped nor rounded."""
    formula = getattr(corruptions, kind)
    return np.asarray(formula(image, hash_words(seed), *strengths(kind, severity)), np.float64)


def change(image, changed):
    """Mean absolute difference."""
    return np.abs(changed.astype(float) - image).mean()


# The contract -----------------------------------------------------------------------------------


# If their order moves, every image draws another corruption than before.
def test_kinds():
    assert [kind.name for kind in KINDS] == [
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ]
    assert all(len(kind.strengths) == len(SEVERITIES) for kind in KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.thorough), 3])
@pytest.mark.parametrize("side", [224, 32])
@pytest.mark.parametrize("kind", NAMES)
def test_every_severity_changes_the_picture_and_mostly_more_than_the_one_before(
    kind, side, channels
):
    image, changes = picture(side, channels), []
    seeds = range(2 if side == 224 and kind != "fog" else 16)  # fogs are very different
    for severity in SEVERITIES:
        changed = [corrupt(image, kind, severity, seed) for seed in seeds]
        assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
        changes.append(np.mean([change(image, c) for c in changed]))
    assert changes[0] > 1.5
    less = {(kind, s) for s in SEVERITIES[1:] if changes[s - 1] <= changes[s - 2]}
    assert less <= LESS[side], changes


@pytest.mark.parametrize("kind", NAMES)
def test_a_function_of_the_seed(kind):
    image, copy = picture(64), picture(64).copy()
    with ThreadPoolExecutor(4) as pool:
        many = list(pool.map(lambda seed: corrupt(image, kind, 3, seed), [1, 2, 1, 2]))
    np.testing.assert_array_equal(many[0], many[2])
    np.testing.assert_array_equal(many[1], many[3])
    assert np.array_equal(many[0], many[1]) == (kind in DETERMINISTIC)
    np.testing.assert_array_equal(image, copy)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", NAMES)
def test_odd_shapes_and_extreme_levels(kind):
    for shape in ((1, 1, 1), (2, 5, 3), (40, 17, 1), (100, 230, 3)):
        for image in (picture(256)[: shape[0], : shape[1], : shape[2]], *map(np.uint8, (0, 255))):
            image = np.ascontiguousarray(np.broadcast_to(image, shape))
            for severity in (1, 5):
                assert corrupt(image, kind, severity).shape == shape


@pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur", "zoom_blur", "snow", "fog"])
@pytest.mark.parametrize("severity", [1, 5])
def test_lengths_scale_with_the_image(kind, severity):
    """Corrupting an image and halving it is halving and corrupting it, but for interpolation."""
    halve = lambda image: image.astype(float).reshape(224, 2, 224, 2, 3).mean(axis=(1, 3))
    large = picture(448)
    small = np.rint(halve(large)).astype(np.uint8)
    expected, found = halve(corrupt(large, kind, severity)), corrupt(small, kind, severity)
    assert change(expected, found) < 0.15 * change(small, found)


def test_what_belongs_to_an_image_stays_and_files_are_decoded():
    file = io.BytesIO()
    Image.fromarray(picture(32)).save(file, "PNG")
    transform = make_transforms("corruption(contrast)")[0]
    example = {
        "image": images.Encoded(file.getvalue()),
        "segmentation": np.arange(32 * 32).reshape(32, 32),
        "box": np.float32([0.1, 0.2, 0.3, 0.4]),
        "label": 7,
    }
    changed = transform.apply(example, np.zeros(1))
    np.testing.assert_array_equal(changed["image"], corrupt(picture(32), "contrast", 3))
    assert all(changed[name] is example[name] for name in ("segmentation", "box", "label"))


def test_images_of_other_channels():
    with pytest.raises(UserError, match="images of 4 channels.*1 .gray. or 3"):
        corrupt(np.zeros((8, 8, 4), np.uint8), "fog", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corruption(gaussian)", "no kind 'gaussian': did you mean 'gaussian_noise'"),
        ("corruption(frost)", "frost is not included.*license.*choose gaussian_noise, shot_noise"),
        ("corruption(snow, severity=0)", "severity=0, choose one from 1"),
        ("corruption(snow, severity=6)", "severity=6, choose one from 1"),
        ("corruption(snow, severity=2.5)", "severity=2.5 should be of type int"),
        ("corruption()", "missing a required argument: 'kind'"),
    ],
)
def test_wrong_options(text, message):
    with pytest.raises(UserError, match=message):
        make_transforms(text)


# Noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise(severity):
    std = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    noise = (levels(flat(100), "gaussian_noise", severity) - 100) / 255
    assert abs(noise.mean()) < 4 * std / math.sqrt(noise.size)
    assert noise.std() == pytest.approx(std, rel=0.01)
    assert scipy.stats.kstest(noise[::3, ::3].ravel() / std, "norm").pvalue > 1e-4
    for moved in (noise[1:], noise[:, 1:], noise[:, :, 1:]):  # no pixel, no channel is like another
        rows, columns, channels = moved.shape
        kept = noise[:rows, :columns, :channels]
        assert abs(np.corrcoef(kept.ravel(), moved.ravel())[0, 1]) < 0.02
    expected = np.rint(np.clip(100 + 255 * noise, 0, 255))
    # The transform has another stream of numbers than the formula above, so only its odds agree.
    found = corrupt(flat(100), "gaussian_noise", severity)
    assert np.mean(found == 0) == pytest.approx(np.mean(expected == 0), abs=0.01)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("level", [0, 3, 90, 255])
def test_shot_noise_is_a_poisson_number_of_photons(level, severity):
    photons = (60, 25, 12, 5, 3)[severity - 1]
    counts = levels(flat(level), "shot_noise", severity) / 255 * photons
    mean = photons * level / 255
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    error = 5 * math.sqrt(mean / counts.size) + 1e-12
    assert counts.mean() == pytest.approx(mean, abs=error)
    assert counts.var() == pytest.approx(mean, rel=0.03)
    for count in range(int(mean) + 3):
        share = scipy.stats.poisson.pmf(count, mean)
        assert np.mean(np.rint(counts) == count) == pytest.approx(share, abs=0.006)


def test_shot_noise_of_a_picture_is_that_of_its_levels():
    image = picture()
    noisy = np.mean([levels(image, "shot_noise", 3, seed) for seed in range(40)], axis=0)
    deviation = np.sqrt(np.maximum(image, 1.0) * 255 / 12 / 40)
    assert abs(np.mean((noisy - image) / deviation)) < 0.02
    assert np.std((noisy - image)[image > 0] / deviation[image > 0]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise(severity):
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    image = np.clip(picture(), 1, 254)
    noisy = corrupt(image, "impulse_noise", severity)
    assert np.mean(noisy == 255) == pytest.approx(share / 2, rel=0.06)
    assert np.mean(noisy == 0) == pytest.approx(share / 2, rel=0.06)
    kept = (noisy > 0) & (noisy < 255)
    np.testing.assert_array_equal(noisy[kept], image[kept])


# Blur -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_blur_is_a_mean_over_a_disk(severity):
    radius, softness = ((3, 0), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    y, x = np.mgrid[-12:13, -12:13]
    disk = np.where(np.hypot(y, x) <= radius, 1.0, 0.0)
    if softness:
        line = np.exp(-(np.arange(-2, 3) ** 2) / 2 / softness**2)
        disk = ndimage.convolve(disk, np.outer(line, line), mode="constant")
    image = picture().astype(float)
    expected = np.stack(
        [ndimage.convolve(image[:, :, i], disk / disk.sum(), mode="mirror") for i in range(3)], 2
    )
    np.testing.assert_allclose(levels(picture(), "defocus_blur", severity), expected, atol=0.01)


def places():
    """[224, 224, 3] uint8: row and column of each pixel, and zero."""
    return np.stack([*np.mgrid[:224, :224], np.zeros((224, 224), int)], axis=2).astype(np.uint8)


def copies_one_by_one(reach, rounds, seed):
    """What the paper's loop does to `places`, with numbers of its own."""
    rng, image = np.random.default_rng(seed), places().tolist()
    for _ in range(rounds):
        offsets = iter(rng.integers(-reach, reach, (224 * 224, 2)).tolist())
        for row in range(224 - reach, reach, -1):
            for column in range(224 - reach, reach, -1):
                down, right = next(offsets)
                image[row][column] = image[row + down][column + right]
    return np.array(image)


@pytest.mark.parametrize(("reach", "rounds"), [(1, 2), (2, 3), (4, 1)])
def test_glass_blur_copies_as_often_and_as_far_as_a_loop(reach, rounds):
    """Without blur. Copies of copies go further than `reach`, and mostly from the lower right."""
    found = corruptions.glass_blur(places(), hash_words(3), 0, reach, rounds)
    expected = copies_one_by_one(reach, rounds, seed=0)
    for border in (np.s_[: reach + 1], np.s_[224 - reach + 1 :]):
        np.testing.assert_array_equal(found[border], places()[border])
        np.testing.assert_array_equal(found[:, border], places()[:, border])
    moved, wanted = (
        x[10:-10, 10:-10, :2] - places()[10:-10, 10:-10, :2] for x in (found, expected)
    )
    assert np.mean(moved == 0) == pytest.approx(np.mean(wanted == 0), abs=0.01)
    for power in (1, 2, 3):
        scale = np.mean(np.abs(wanted) ** power)
        np.testing.assert_allclose(
            *(np.mean(x**power, axis=(0, 1)) for x in (moved, wanted)), atol=0.15 * scale
        )
    np.testing.assert_allclose(*(np.abs(x).max() for x in (moved, wanted)), rtol=0.5)


def test_glass_blur_blurs_twice():
    """Far from edges copies change nothing: a straight edge is blurred by sqrt(2) * sigma."""
    image = flat(0)
    image[:, 112:] = 200
    blurred = corruptions.glass_blur(image, hash_words(0), 2.0, 1, 0)[100, :, 0]
    expected = 200 * scipy.stats.norm.cdf(np.arange(224) - 111.5, scale=math.sqrt(8))
    np.testing.assert_allclose(blurred, expected, atol=1)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_blur_smears_one_way(severity):
    """A point becomes a streak to the left: of the same light, the right length and angle."""
    radius, sigma = strengths("motion_blur", severity)
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / 2 / sigma**2)
    image = flat(0, channels=1)
    image[112, 112] = 255
    y, x = np.mgrid[:224, :224] - 112
    angles = []
    for seed in range(20):
        streak = levels(image, "motion_blur", severity, seed)[:, :, 0]
        assert streak.sum() == pytest.approx(255, rel=1e-4) and streak.min() > -1e-3
        middle = np.array([(streak * y).sum(), (streak * x).sum()]) / streak.sum()
        length = np.average(steps, weights=weights)
        assert np.linalg.norm(middle) == pytest.approx(length, rel=1e-3)
        angles.append(math.degrees(math.atan2(middle[0], -middle[1])))
        along = (streak * np.abs(np.hypot(y, x) - length)).sum() / 255
        wanted = np.average(np.abs(steps - length), weights=weights)
        assert along == pytest.approx(wanted, rel=0.1)
    assert -45 <= min(angles) < -30 and 30 < max(angles) <= 45


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_is_a_mean_of_enlarged_pictures(severity):
    zooms = (
        np.arange(1, 1.111, 0.01),
        np.arange(1, 1.151, 0.01),
        np.arange(1, 1.201, 0.02),
        np.arange(1, 1.241, 0.02),
        np.arange(1, 1.301, 0.03),
    )[severity - 1]
    image = picture().astype(float)
    total = image.copy()
    for zoom in zooms:
        at = (np.arange(224) - 111.5) / zoom + 111.5
        grid = np.stack(np.meshgrid(at, at, indexing="ij"))
        total += np.stack(
            [ndimage.map_coordinates(image[:, :, i], grid, order=1) for i in (0, 1, 2)], 2
        )
    found = levels(picture(), "zoom_blur", severity)
    assert np.abs(found - total / (len(zooms) + 1)).mean() < 0.2


@pytest.mark.parametrize("kind", [name for name in NAMES if name.endswith("blur")])
def test_blur_leaves_flat_images_and_the_mean(kind):
    for severity in SEVERITIES:
        np.testing.assert_array_equal(corrupt(flat(77), kind, severity), 77)
        if kind != "zoom_blur":  # which leaves out the margin, and what is light or dark there
            found = levels(picture(), kind, severity).mean()
            assert found == pytest.approx(picture().mean(), rel=0.02)


# Weather ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow(severity):
    whitened = 127.5 * (0.2, 0.3, 0.3, 0.35, 0.45)[severity - 1]
    steep = []
    for seed in range(8):
        snowy = levels(flat(0), "snow", severity, seed)
        assert snowy.min() == pytest.approx(whitened, abs=0.01)  # between the flakes
        assert snowy.mean() > whitened + 5
        np.testing.assert_allclose(snowy, snowy[::-1, ::-1], atol=1e-6)  # half of them rise
        np.testing.assert_array_equal(snowy[:, :, 0], snowy[:, :, 2])
        down, right = (np.abs(np.diff(snowy, axis=axis)).mean() for axis in (0, 1))
        steep.append(down / right)
    # Streaks are vertical, or up to 45 degrees from it, where both differences are the same.
    assert max(steep) < 1.1 and np.mean(steep) < 0.9


def test_snow_whitens_by_luminance():
    image = np.broadcast_to(np.uint8([200, 40, 10]), (224, 224, 3))
    gray = 1.5 * (0.299 * 200 + 0.587 * 40 + 0.114 * 10) + 127.5
    snowy = levels(image, "snow", 1)
    expected = 0.8 * np.array([200, 40, 10]) + 0.2 * np.maximum([200, 40, 10], gray)
    np.testing.assert_allclose(snowy.min(axis=(0, 1)), expected, atol=0.1)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog(severity):
    """Recovers the clouds: between 0 and 1, alike in all channels, rougher where it is severe."""
    thickness = (1.5, 2, 2.5, 2.5, 3)[severity - 1]
    image = picture()
    most = int(image.max())
    foggy = levels(image, "fog", severity)
    clouds = (foggy * (most + 255 * thickness) / most - image) / (255 * thickness)
    np.testing.assert_allclose(clouds[:, :, 0], clouds[:, :, 1], atol=1e-6)
    assert -1e-6 < clouds.min() < 0.2 and 0.8 < clouds.max() < 1 + 1e-6
    assert foggy.max() <= most


def test_fog_gets_rougher():
    """By the decay of its waves: the mean step between neighbors, of clouds from 0 to 1."""

    def roughness(decay):
        fields = [corruptions.fog(flat(255), hash_words(seed), 1, decay) for seed in range(5)]
        return np.mean([np.abs(np.diff(f, axis=1)).mean() / np.ptp(f) for f in fields])

    assert roughness(2) < roughness(1.7) < roughness(1.5) < roughness(1.4)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_is_value_in_hsv(severity):
    amount = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    image = picture(24).copy()
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3) / 255]
    expected = [colorsys.hsv_to_rgb(h, s, min(v + amount, 1)) for h, s, v in hsv]
    expected = 255 * np.array(expected).reshape(image.shape)
    np.testing.assert_allclose(levels(image, "brightness", severity), expected, atol=1e-3)
    gray = levels(image[:, :, :1], "brightness", severity)
    np.testing.assert_allclose(gray, np.minimum(image[:, :, :1] + 255 * amount, 255), atol=1e-3)


# Digital ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast(severity):
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    image = picture().astype(float)
    mean = image.reshape(-1, 3).mean(axis=0)
    expected = np.rint(np.clip(kept * image + (1 - kept) * mean, 0, 255))
    np.testing.assert_array_equal(corrupt(picture(), "contrast", severity), expected)


def ramps():
    """[224, 224, 1] twice: of rows and of columns, so that values tell where they come from."""
    return places()[:, :, :1], places()[:, :, 1:2]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_transform(severity):
    """An affine map that moves three corners, and noise of the right size and smoothness."""
    strength, sigma, shift = strengths("elastic_transform", severity)
    inner = np.s_[60:-60, 60:-60]
    y, x = (grid[inner].ravel() for grid in np.mgrid[:224, :224])
    design = np.stack([y, x, np.ones(y.size)], axis=1)
    bends = []
    for seed in range(6):
        sources = np.stack(
            [levels(ramp, "elastic_transform", severity, seed)[inner].ravel() for ramp in ramps()],
            axis=1,
        )
        fit = np.linalg.lstsq(design, sources, rcond=None)[0]
        bends.append((sources - design @ fit).reshape(104, 104, 2))
        if severity > 2:  # before that the middle's corners may come from outside
            corners = np.array([[186, 186, 1], [38, 186, 1], [38, 38, 1]])
            moved = np.abs(corners @ fit - corners[:, :2])
            assert moved.max() < 1.2 * shift + 1 and moved.max() > 0.2 * shift
    # Uniform noise has variance 1 / 3, and blurring divides it by 4 pi sigma^2.
    wanted = strength / math.sqrt(3) / (2 * math.sqrt(math.pi) * sigma)
    if severity > 2:
        assert np.std(bends) == pytest.approx(wanted, rel=0.1)
        bends = np.array(bends)
        alike = np.mean(bends[:, 2:] * bends[:, :-2]) / np.mean(bends**2)
        assert alike == pytest.approx(math.exp(-(2**2) / 4 / sigma**2), abs=0.03)


@pytest.mark.parametrize(("severity", "block"), [(2, 2), (5, 4)])
def test_pixelate_shows_means_of_blocks(severity, block):
    count = 224 // block
    means = picture().astype(float).reshape(count, block, count, block, 3).mean(axis=(1, 3))
    expected = np.repeat(np.repeat(means, block, axis=0), block, axis=1)
    found = corrupt(picture(), "pixelate", severity)
    assert np.abs(found - expected).max() <= 1  # Pillow rounds after either direction


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("shape", [(224, 112), (32, 45)])
def test_pixelate_is_two_box_filters(shape, severity):
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    image, (height, width) = picture()[: shape[0], : shape[1]], shape
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.BOX)
    found = corrupt(np.ascontiguousarray(image), "pixelate", severity)
    np.testing.assert_array_equal(found, small.resize((width, height), Image.BOX))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_compression_is_pillows(severity, channels):
    file, image = io.BytesIO(), picture(channels=channels)
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    expected = np.asarray(Image.open(file)).reshape(image.shape)
    np.testing.assert_array_equal(corrupt(image, "jpeg_compression", severity), expected)
