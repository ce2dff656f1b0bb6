"""Photometric distortion against colorsys, in float64 and pixel by pixel; and what is drawn."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mae_jax.ops import photometric
from mae_jax.ops.photometric import Draws, photometric_distortion
from mae_jax.types import UserError

distort = jax.jit(photometric.distort)


def pixels(batch):
    """Random colors, and those where hue or saturation is hard: the corners of the cube, grays."""
    images = np.random.default_rng(0).random((batch, 6, 5, 3))
    images[:, 0] = np.array(np.meshgrid([0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1])).reshape(3, 27).T[:5]
    images[:, 1, :2] = [[0.3, 0.3, 0.3], [1, 1, 1]]
    return images.astype(np.float32)


def by_definition(image, brightness, contrast, saturation, hue, first):
    """One image [H, W, 3] in float64."""
    expected = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        color = np.clip(image[place].astype(np.float64) + brightness, 0, 1)
        if first:
            color = np.clip(color * contrast, 0, 1)
        h, s, v = colorsys.rgb_to_hsv(*color)
        color = np.array(colorsys.hsv_to_rgb((h + hue) % 1, min(s * saturation, 1), v))
        if not first:
            color = np.clip(color * contrast, 0, 1)
        expected[place] = color
    return expected


def drawn(batch):
    rng = np.random.default_rng(1)
    return Draws(
        *(rng.uniform(*limits, batch) for limits in ((-0.2, 0.2), (0.3, 2), (0, 4), (-1, 1))),
        rng.random(batch) < 0.5,
    )


def test_distortion_is_that_of_colorsys():
    images, draws = pixels(40), drawn(40)
    found = distort(images, jax.tree.map(jnp.asarray, draws))
    assert found.dtype == jnp.float32
    for row, image in enumerate(images):
        expected = by_definition(image, *(draw[row] for draw in draws))
        np.testing.assert_allclose(found[row], expected, atol=3e-6)


def test_without_a_draw_nothing_changes():
    none = Draws(*(jnp.full(3, x) for x in (0.0, 1.0, 1.0, 0.0)), jnp.array([True, False, True]))
    images = pixels(3)
    np.testing.assert_allclose(distort(images, none), images, atol=3e-7)


def test_draws_are_uniform_and_of_half_of_the_images():
    draws = jax.tree.map(np.asarray, photometric.draw(jax.random.key(0), 4000))
    ranges = {"brightness": (-32 / 255, 32 / 255), "hue": (-0.1, 0.1)}
    ranges |= {"contrast": (0.5, 1.5), "saturation": (0.5, 1.5)}
    coins = []
    for name, (low, high) in ranges.items():
        values = getattr(draws, name)
        done = values != (0 if low < 0 else 1)
        uniform = scipy.stats.uniform(low, high - low)
        assert scipy.stats.kstest(values[done], uniform.cdf).pvalue > 1e-3
        coins.append(done)
    coins = np.array([*coins, draws.contrast_first])
    assert np.abs(coins.mean(1) - 0.5).max() < 5 * 0.5 / np.sqrt(4000)
    assert np.abs(np.corrcoef(coins) - np.eye(5)).max() < 0.08, "drawn apart from each other"


def test_images_are_distorted_by_draws_of_their_own():
    images = np.tile(pixels(1), (16, 1, 1, 1))
    found = np.asarray(jax.jit(photometric_distortion)(jax.random.key(3), images))
    assert len({image.tobytes() for image in found}) > 12 and found.min() >= 0 and found.max() <= 1
    again = distort(images, photometric.draw(jax.random.key(3), 16))
    np.testing.assert_allclose(found, again, atol=1e-6)


@pytest.mark.parametrize("images", [np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2, 1), "f4")])
def test_other_images_are_refused(images):
    with pytest.raises(UserError, match="needs float32 images of 3 channels .RGB., these are"):
        photometric_distortion(jax.random.key(0), jnp.asarray(images))
