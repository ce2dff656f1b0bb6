"""Augmentation: what is drawn, for which examples, and what it does against scipy, Pillow and
float64 numpy.
"""

import functools
import math
from collections import Counter
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image, ImageOps

from mae_jax.ops import augment, color
from mae_jax.types import UserError

NONE = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
SIMCLR = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
PHOTOMETRIC = {
    "jitter": functools.partial(augment.color_jitter, **SIMCLR),
    "gray": augment.grayscale,
    "blur": augment.gaussian_blur,
    "solarize": augment.solarize,
}
MIXING = {
    "mixup": functools.partial(augment.mixup_cutmix, mixup_alpha=0.8, cutmix_alpha=0),
    "cutmix": functools.partial(augment.mixup_cutmix, mixup_alpha=0, cutmix_alpha=1.0),
    "either": functools.partial(augment.mixup_cutmix, mixup_alpha=0.8, cutmix_alpha=1.0),
}
KEY = jax.random.key(0)


@functools.cache
def compiled(function, **options):
    return jax.jit(functools.partial(function, **options))


def run(function, *arrays, **options):
    """The function under jit, which compiles faster than its operations do one by one."""
    return compiled(function, **options)(KEY, *arrays)


def random_images(*shape, low=0.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def changed(before, after):
    """Which examples are not what they were."""
    return (np.asarray(before) != np.asarray(after)).any(axis=(1, 2, 3))


def assert_uniform(values, low, high):
    """All in the range, and by a Kolmogorov-Smirnov test spread evenly over it."""
    assert min(values) >= low and max(values) <= high
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3


# Draws: which examples, on how many devices.

SHARES = (0, 0.3, 1)


@functools.cache
def photometric(name):
    """Compiled: images [1000, 4, 4, 3] changed with each probability of SHARES. Those share what is
    compiled, as they share what they draw.
    """

    def at_shares(key, images):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(augment, "SIGMA", (0.5, 2.0))  # less would change nothing
            return [PHOTOMETRIC[name](key, images, probability=share) for share in SHARES]

    return jax.jit(at_shares)


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_probability_is_of_each_example(name):
    """To five standard deviations, in number and in changes from one example to the next."""
    images = random_images(1000, 4, 4, 3)
    for probability, after in zip(SHARES, photometric(name)(KEY, images), strict=True):
        assert after.shape == images.shape and after.dtype == jnp.float32
        coins = changed(images, after)
        variance = probability * (1 - probability)
        assert abs(coins.sum() - 1000 * probability) <= 5 * np.sqrt(1000 * variance)
        turns = (coins[1:] != coins[:-1]).sum()
        assert abs(turns - 999 * 2 * variance) <= 5 * np.sqrt(999 * 2 * variance)


@pytest.mark.parametrize("name", ["jitter", "blur"])
def test_each_example_has_its_own_draw(name):
    images = np.repeat(random_images(1, 4, 4, 3), 1000, axis=0)
    after = np.asarray(photometric(name)(KEY, images)[-1])
    assert len({example.tobytes() for example in after}) > 990


def runs(name):
    """The function `name` of key and batch, whatever its options."""
    if name in PHOTOMETRIC:  # without hues, which take most of the time to compile
        more = {"hue": 0} if name == "jitter" else {}
        return lambda key, batch: PHOTOMETRIC[name](key, batch[0], probability=0.5, **more)
    return lambda key, batch: MIXING[name](key, *batch)


@pytest.fixture(scope="module")
def on_devices():
    """Name -> results: on one device, on two, on one again, and with another key."""
    batch = random_images(8, 6, 6, 3), np.eye(8, dtype=np.float32)
    rows = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), P("data"))
    function = jax.jit(lambda *args: {name: runs(name)(*args) for name in [*PHOTOMETRIC, "either"]})
    shared = function(KEY, jax.device_put(batch, rows))
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(shared)} == {2}
    found = function(KEY, batch), shared, function(KEY, batch), function(jax.random.key(1), batch)
    return {name: jax.device_get([each[name] for each in found]) for name in shared}


@pytest.mark.parametrize("name", [*PHOTOMETRIC, "either"])
def test_draws_depend_on_the_key_and_not_on_the_devices(name, on_devices):
    alone, shared, again, other = on_devices[name]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), alone, shared)
    jax.tree.map(np.testing.assert_array_equal, alone, again)
    assert not jax.tree.all(jax.tree.map(np.array_equal, alone, other))


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_values_stay_in_range(name):
    """Of images that touch both ends, with white ones and black ones."""
    images = np.clip(random_images(1000, 4, 4, 3, low=-0.3, high=1.3), 0, 1)
    images[:100], images[100:200] = 0, 1
    after = np.asarray(photometric(name)(KEY, images)[-1])
    assert after.min() >= 0 and after.max() <= 1


# Color jitter. test_color.py checks the four adjustments themselves.


def explained(before, after, kind):
    """The amount that best explains what happened to an image, and what it explains."""
    x, y = before.astype(np.float64), after.astype(np.float64)
    gray = x @ [0.2989, 0.587, 0.114]
    other = {"brightness": 0, "contrast": gray.mean(), "saturation": gray[..., None]}[kind]
    inside = (y > 0) & (y < 1)
    a, b = (x - other)[inside], (y - other)[inside]
    amount = a @ b / (a @ a)
    return amount, np.clip(amount * x + (1 - amount) * other, 0, 1)


BLENDS = ("brightness", "contrast", "saturation")


@pytest.fixture(scope="module")
def blended():
    """(kind, strength) -> images [300, 4, 4, 3] that were jittered in this alone."""
    cases = [(kind, strength) for kind in BLENDS for strength in (0.4, 1.5)]
    jitter = lambda *args, case: augment.color_jitter(*args, **NONE | dict([case]))
    every = jax.jit(lambda *args: [jitter(*args, case=case) for case in cases])
    return dict(zip(cases, jax.device_get(every(KEY, random_images(300, 4, 4, 3))), strict=True))


@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
@pytest.mark.parametrize("kind", BLENDS)
def test_one_factor_for_each_example(kind, strength, low, high, blended):
    """Each output is the adjustment by some factor, and the factors are uniform."""
    images, after = random_images(300, 4, 4, 3), blended[kind, strength]
    amounts, expected = zip(*[explained(x, y, kind) for x, y in zip(images, after)])
    np.testing.assert_allclose(after, expected, atol=2e-6)
    assert_uniform(amounts, low - 1e-5, high + 1e-5)


def test_one_hue_shift_for_each_example():
    """Of pure red, which turned by less than 1/6 is (1, 6 shift, 0) or (1, 0, -6 shift)."""
    images = np.zeros((600, 1, 1, 3), np.float32)
    images[..., 0] = 1
    after = run(augment.color_jitter, images, **NONE | {"hue": 0.1}, probability=0.5)
    red, green, blue = np.asarray(after)[changed(images, after)].reshape(-1, 3).T
    np.testing.assert_array_equal(red, 1)
    assert (np.minimum(green, blue) < 1e-6).all()
    assert_uniform((green - blue) / 6, -0.1 - 1e-6, 0.1 + 1e-6)


@functools.cache
def drawn():
    """Kinds and amounts [4, 4800] of four adjustments."""
    draw = jax.jit(lambda key: augment._draw_jitter(key, 4800, (0.8, 0.4, 0.2, 0.1)))
    return jax.device_get(draw(KEY))


def test_every_order_of_the_four_is_as_likely():
    kinds, amounts = drawn()
    counts = Counter(map(tuple, kinds.T.tolist()))
    assert set(counts) == set(permutations(range(4)))
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3
    for kind, (low, high) in enumerate([(0.2, 1.8), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]):
        for turn in range(4):
            assert_uniform(amounts[turn][kinds[turn] == kind], low, high)


def test_no_draw_is_bound_to_another():
    """Neither the amounts to one another nor an amount to its turn."""
    kinds, amounts = drawn()
    turns = np.argsort(kinds, axis=0)
    amounts = np.take_along_axis(amounts, turns, axis=0)
    correlations = np.corrcoef(np.concatenate([amounts, turns]))
    assert np.abs(correlations[:4, :4] - np.eye(4)).max() < 5 / np.sqrt(4800)
    assert np.abs(correlations[:4, 4:]).max() < 5 / np.sqrt(4800)


def test_color_jitter_does_what_was_drawn_in_the_order_drawn(monkeypatch):
    """All 24 orders, with amounts that clip, so that every order gives another image."""
    orders = np.array(list(permutations(range(4))))
    images = np.repeat(random_images(1, 5, 5, 3), 24, axis=0)
    amounts = np.array([1.6, 1.5, 1.7, 0.15], np.float32)
    drawn = jnp.asarray(orders.T), jnp.asarray(amounts[orders].T)
    monkeypatch.setattr(augment, "_draw_jitter", lambda key, batch, strengths: drawn)
    found = np.asarray(run(augment.color_jitter, images, **SIMCLR))
    adjust = jax.jit(functools.partial(color.adjust, hue=True))
    for order, image, result in zip(orders, images, found):
        for kind in order:
            image = np.asarray(adjust(image[None], kind[None], amounts[kind][None]))[0]
        np.testing.assert_allclose(result, image, atol=2e-6)
    assert len({result.tobytes() for result in found.round(3)}) == 24


def test_no_strength_is_no_jitter():
    images = random_images(4, 3, 3, 1)
    np.testing.assert_array_equal(run(augment.color_jitter, images, **NONE), images)


def test_gray_images_can_change_brightness_and_contrast():
    images = random_images(4, 3, 3, 1)
    after = run(augment.color_jitter, images, **NONE | {"brightness": 0.4, "contrast": 0.4})
    assert after.shape == images.shape and changed(images, after).all()


# Gray, blur, solarize.


def test_grayscale_is_the_luminance_in_all_channels():
    images = random_images(4, 3, 5, 3)
    expected = (images.astype(np.float64) @ [0.2989, 0.587, 0.114])[..., None].repeat(3, axis=3)
    found = run(augment.grayscale, images, probability=1)
    np.testing.assert_allclose(found, expected, atol=2e-7)


@pytest.mark.parametrize(
    ("sigma", "radius", "shape"),
    [
        (0.1, 1, (6, 5)),
        (2.0, 4, (5, 6)),
        (3.0, 0, (4, 4)),
        pytest.param(0.8, 2, (7, 12), marks=pytest.mark.thorough),
        pytest.param(1.0, 3, (60, 64), marks=pytest.mark.thorough),
    ],
)
def test_blur_is_scipys_gaussian_filter(sigma, radius, shape):
    """Its mode 'mirror' is torch's 'reflect'. Kernels up to the widest that the shape allows."""
    images = random_images(2, *shape, 3)
    blur = jax.jit(augment._blurred, static_argnums=2)
    found = blur(images, np.full(2, sigma, np.float32), radius)
    expected = scipy.ndimage.gaussian_filter(
        images.astype(np.float64), sigma, mode="mirror", radius=radius, axes=(1, 2)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_kernel_is_a_tenth_of_the_shorter_side_made_odd():
    """SimCLR's for 224 pixels is int(0.1 * 224) = 22, made 23."""
    taps = {8: 3, 39: 3, 40: 5, 99: 9}
    points = {side: np.zeros((1, side, side + 9, 1), np.float32) for side in taps}
    for side, images in points.items():
        images[:, side // 2, side // 2] = 1
    blur = functools.partial(augment.gaussian_blur, probability=1)
    found = jax.jit(lambda key, points: jax.tree.map(functools.partial(blur, key), points))(
        KEY, points
    )
    assert {side: np.count_nonzero(x) for side, x in found.items()} == {
        side: count**2 for side, count in taps.items()
    }


def test_each_example_has_its_own_sigma():
    """From the fall of a single bright pixel: neighbor / center = exp(-1 / (2 sigma^2)). Examples
    that are blurred have sigmas as any others: the coin is another draw.
    """
    images = np.zeros((600, 7, 7, 1), np.float32)
    images[:, 3, 3] = 1
    after = run(augment.gaussian_blur, images, probability=0.5)
    row = np.asarray(after, np.float64)[changed(images, after), 3, :, 0]
    assert_uniform(np.sqrt(-0.5 / np.log(row[:, 4] / row[:, 3])), 0.1 - 1e-4, 2 + 1e-3)


def test_solarize_is_pillows():
    """On every byte: from 128 on."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.asarray(ImageOps.solarize(Image.fromarray(values), 128))
    images = values[None, ..., None].astype(np.float32) / 255
    found = np.asarray(run(augment.solarize, images, probability=1))[0, ..., 0]
    np.testing.assert_allclose(255 * found, expected, atol=2e-5)


def test_solarize_inverts_from_one_half_by_default():
    images = np.float32([0.0, 0.25, 0.4999, 0.5, 0.75, 1.0]).reshape(1, 1, 6, 1)
    found = run(augment.solarize, images, probability=1)
    np.testing.assert_array_equal(np.ravel(found), np.float32([0, 0.25, 0.4999, 0.5, 0.25, 0]))


# Mixing.

soft_targets = jax.jit(augment.soft_targets, static_argnums=(1, 2))


def test_soft_targets():
    """timm's: the label has 1 - smoothing + smoothing / classes."""
    found = soft_targets(np.array([2, 0]), 4, 0.1)
    expected = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_array_equal(soft_targets(np.array([1]), 3, 0), [[0, 1, 0]])


def test_targets_are_the_shares_that_the_pixels_show():
    """Both ways of mixing, with smoothing: whose label counts how much is read off the images."""
    mixed, targets = either()
    mean = mixed.astype(np.float64).mean(axis=(2, 3, 4))
    own, partner = np.arange(6.0), np.arange(5.0, -1, -1)
    share = ((mean - partner) / (own - partner))[..., None]  # [400, 6, 1]
    expected = share * SMOOTH + (1 - share) * SMOOTH[::-1]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=2), 1, atol=1e-6)
    assert mixed.min() >= 0 and mixed.max() <= 5
    assert mixed.dtype == targets.dtype == np.float32
    kinds = {len(np.unique(draw[0])) > 1 for draw in mixed}
    assert kinds == {False, True}, "some draws mix values, some paste"


def mixes(count, *batch, **alphas):
    """`count` draws for one batch: mixed images [count, B, H, W, C] and labels."""
    mix = functools.partial(augment.mixup_cutmix, **dict(mixup_alpha=0, cutmix_alpha=0) | alphas)
    function = jax.jit(jax.vmap(mix, in_axes=(0, None, None)))
    return jax.device_get(function(jax.random.split(KEY, count), *batch))


@functools.cache
def either():
    """400 draws for images that show their place in the batch, with the targets SMOOTH."""
    alphas = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
    return mixes(400, numbered(6, 8, 11)[0], SMOOTH.astype(np.float32), **alphas)


SMOOTH = 0.9 * np.eye(7)[[0, 3, 6, 2, 5, 1]] + 0.1 / 7
"""Labels of six examples among seven, smoothed."""


@pytest.mark.parametrize("alpha", [0.2, pytest.param(3, marks=pytest.mark.thorough)])
def test_mixup_is_the_formula_with_one_lambda_from_the_beta_distribution(alpha):
    images, labels = random_images(6, 2, 3, 3), np.eye(6, dtype=np.float32)
    mixed, targets = mixes(2000, images, labels, mixup_alpha=alpha)
    own = np.diagonal(
        np.float64(targets), axis1=1, axis2=2
    )  # of each example, whose label is its place
    lam = own[:, 0]
    np.testing.assert_array_equal(own, np.broadcast_to(lam[:, None], own.shape))
    assert scipy.stats.kstest(lam, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    share = lam[:, None, None]
    np.testing.assert_allclose(targets, share * labels + (1 - share) * labels[::-1], atol=1e-7)
    share = share[..., None, None]
    np.testing.assert_allclose(mixed, share * images + (1 - share) * images[::-1], atol=2e-7)


def test_each_of_the_two_has_its_alpha():
    """CutMix changes nothing in images of one pixel: half of it is no pixel on either side."""
    _, targets = mixes(2000, *numbered(2, 1, 1), mixup_alpha=5, cutmix_alpha=0.2)
    lam = targets[:, 0, 0]
    assert scipy.stats.kstest(lam[lam < 1], scipy.stats.beta(5, 5).cdf).pvalue > 1e-3
    assert abs((lam < 1).sum() - 1000) < 5 * np.sqrt(500)


def pasted(mixed):
    """Where each image, whose values were its place in the batch, is its partner now."""
    batch = len(mixed)
    place = np.arange(batch, dtype=np.float32)[:, None, None, None]
    mixed = np.asarray(mixed)
    assert ((mixed == place) | (mixed == batch - 1 - place)).all(), "neither own nor partner"
    return (mixed == batch - 1 - place).all(axis=3)


def numbered(batch, height, width):
    """Images whose pixels are all their place in the batch, with one-hot labels that say so."""
    place = np.arange(batch, dtype=np.float32)[:, None, None, None]
    return np.broadcast_to(place, (batch, height, width, 2)), np.eye(batch, dtype=np.float32)


@functools.cache
def cut(height, width, alpha):
    """2000 draws for six images that show their place in the batch."""
    return mixes(2000, *numbered(6, height, width), cutmix_alpha=alpha)


def test_cutmix_pastes_a_rectangle_and_lambda_is_its_exact_area():
    labels, kinds = np.eye(6, dtype=np.float32), set()
    for mixed, targets in zip(*(x[:40] for x in cut(9, 14, 1)), strict=True):
        boxes = pasted(mixed)
        assert len({box.tobytes() for box in boxes}) == 1, "the batch draws once"
        kinds.add(boxes[0].tobytes())
        rows, columns = boxes[0].any(axis=1), boxes[0].any(axis=0)
        np.testing.assert_array_equal(boxes[0], rows[:, None] & columns, "a rectangle, maybe empty")
        for line in (rows, columns):
            assert np.abs(np.diff(line.astype(int))).sum() <= 2, "in one piece"
        own = np.float32(1) - np.float32(boxes[0].mean())
        np.testing.assert_allclose(targets, own * labels + (1 - own) * labels[::-1], atol=1e-7)
    assert len(kinds) > 20


def boxes_by_timm(count, space, alpha, rng):
    """Areas of timm's boxes: a half side on either side of a center, cut off at the borders."""
    areas = []
    for lam in rng.beta(alpha, alpha, count):
        area = 1
        for side in space:
            half, center = int(side * (1 - lam) ** (1 / len(space))) // 2, rng.integers(side)
            area *= min(center + half, side) - max(center - half, 0)
        areas.append(area)
    return areas


@pytest.mark.parametrize("space", [(60,), pytest.param((10, 12, 14), marks=pytest.mark.thorough)])
def test_cutmix_pastes_intervals_and_boxes(space):
    """Each of their sides is shorter by the same share, whatever the number of axes."""
    images = np.broadcast_to(np.arange(2.0).reshape(2, *(1,) * len(space), 1), (2, *space, 1))
    images, labels = images.astype(np.float32), np.eye(2, dtype=np.float32)
    mixed, targets = mixes(2000, images, labels, mixup_alpha=1, cutmix_alpha=1)
    cuts = np.isin(mixed, (0, 1)).reshape(2000, -1).all(axis=1)
    means = mixed[~cuts].reshape(-1, 2, math.prod(space)).mean(axis=2)
    np.testing.assert_allclose(means, targets[~cuts, :, 1], atol=1e-5)
    boxes, targets = mixed[cuts][:, 0, ..., 0] == 1, targets[cuts]
    assert 900 < len(boxes) < 1100
    areas = boxes.reshape(len(boxes), -1).sum(axis=1)
    np.testing.assert_allclose(targets[:, 0, 1], areas / boxes[0].size, atol=1e-6)
    expected = boxes_by_timm(1000, space, 1, np.random.default_rng(0))
    assert scipy.stats.ks_2samp(areas, expected).pvalue > 1e-3
    for box in boxes:
        lines = [box.any(axis=tuple({*range(len(space))} - {i})) for i in range(len(space))]
        np.testing.assert_array_equal(box, functools.reduce(np.multiply.outer, lines))
        assert all(np.abs(np.diff(line.astype(int))).sum() <= 2 for line in lines)


@pytest.mark.parametrize(
    ("height", "width", "alpha"),
    [(9, 14, 1), pytest.param(12, 12, 0.3, marks=pytest.mark.thorough)],
)
def test_boxes_are_distributed_as_timms(height, width, alpha):
    """In area; and rows, columns and area are drawn independently of one another, but that boxes
    which no border cuts are half a pixel off the center.
    """
    boxes = cut(height, width, alpha)[0][:, 0, :, :, 0] == 5  # the first was all 0, its partner 5
    areas = boxes.sum(axis=(1, 2))
    expected = boxes_by_timm(2000, (height, width), alpha, np.random.default_rng(0))
    assert scipy.stats.ks_2samp(areas, expected).pvalue > 1e-3
    assert np.mean(areas) == pytest.approx(np.mean(expected), rel=0.05)
    boxes, areas = boxes[areas > 0], areas[areas > 0]
    middles = [boxes.sum(axis=2) @ np.arange(height), boxes.sum(axis=1) @ np.arange(width)] / areas
    correlations = np.corrcoef([*middles, areas])
    assert np.abs(correlations - np.eye(3)).max() < 6 / np.sqrt(len(areas))


def test_the_batch_switches_as_one():
    """What was cut has pixels that are its own or its partner's."""
    cuts = np.isin(either()[0], range(6)).all(axis=(2, 3, 4))  # [400, 6]
    assert (cuts == cuts[:, :1]).all()
    assert abs(cuts[:, 0].mean() - 0.5) < 5 * np.sqrt(0.25 / 400)


@pytest.mark.thorough
@pytest.mark.parametrize("name", MIXING)
def test_mixed_labels_sum_to_one_and_images_stay_in_range(name):
    images = np.clip(random_images(64, 4, 4, 3, low=-0.5, high=1.5), 0, 1)
    labels = soft_targets(np.arange(64) % 10, 10, 0.1)
    mixed, targets = run(MIXING[name], images, labels)
    np.testing.assert_allclose(targets.sum(axis=1), np.ones(64), atol=1e-6)
    assert mixed.min() >= 0 and mixed.max() <= 1
    assert mixed.dtype == targets.dtype == jnp.float32


def test_an_alpha_of_zero_turns_one_off():
    images, labels = numbered(5, 4, 4)
    same, targets = run(augment.mixup_cutmix, images, labels, mixup_alpha=0, cutmix_alpha=0)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(targets, labels)


# Mistakes.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: augment.color_jitter(KEY, x, **NONE | {"contrast": -1}),
            "contrast -1 is outside",
        ),
        (lambda x: augment.color_jitter(KEY, x, **NONE | {"hue": 0.6}), r"hue 0.6 .* \[0, 0.5\]"),
        (lambda x: augment.color_jitter(KEY, x[..., :1], **SIMCLR), "hue needs 3 .* have 1"),
        (
            lambda x: augment.color_jitter(KEY, x[..., :2], **NONE | {"saturation": 0.1}),
            "saturation .* needs 3 .* have 2",
        ),
        (lambda x: augment.grayscale(KEY, x[..., :1], probability=1), "3 channels .* have 1"),
        (
            lambda x: augment.grayscale(KEY, x, probability=1.5),
            r"probability 1.5 is outside \[0, 1",
        ),
        (lambda x: augment.solarize(KEY, x, probability=-0.1), "probability -0.1 is outside"),
        (lambda x: augment.solarize(KEY, x.astype(np.uint8), probability=1), "images are uint8"),
        (lambda x: augment.gaussian_blur(KEY, x, probability=2), "probability 2 is outside"),
        (lambda x: augment.soft_targets(np.arange(2), 3, 1.5), "smoothing 1.5 is outside"),
        (lambda x: mixes(1, x, np.arange(2), mixup_alpha=1), r"shape \(2,\) .* \[2, classes\]"),
        (lambda x: mixes(1, x, np.eye(3), mixup_alpha=1), r"shape \(3, 3\) .* 2 images"),
        (lambda x: mixes(1, x, np.eye(2), cutmix_alpha=-1), "cutmix_alpha -1 is not 0"),
        (lambda x: mixes(1, x, np.eye(2), mixup_alpha=np.nan), "mixup_alpha nan is not 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call(random_images(2, 4, 6, 3))
