"""Color against colorsys, Pillow and float64 numpy, one adjustment at a time."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mae_jax.ops import color

# As a whole they compile faster than op by op.
adjust = jax.jit(color.adjust, static_argnames="hue")
luminance = jax.jit(color.luminance)
shift_hue = jax.jit(color.shift_hue)


def pixels(batch=12):
    """Random colors, and some of those where a hue is hard: gray, pure, on an edge of the cube."""
    images = np.random.default_rng(0).random((batch, 5, 5, 3)).astype(np.float32)
    corners = np.array(np.meshgrid([0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1])).reshape(3, 27).T
    images[0, :, :] = corners[:25].reshape(5, 5, 3)
    images[1, 0, :2] = corners[25:]
    images[1, 1] = 0.3
    return images


def by_colorsys(image, shift):
    """The hue of an image [H, W, 3] shifted by `shift` turns, pixel by pixel in float64."""
    shifted = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[place].astype(np.float64))
        shifted[place] = colorsys.hsv_to_rgb((hue + shift) % 1.0, saturation, value)
    return shifted


def by_definition(image, kind, amount):
    """One adjustment of an image [H, W, C] in float64, as torchvision defines it."""
    image = image.astype(np.float64)
    if kind == "hue":
        return by_colorsys(image, amount)
    gray = image @ [0.2989, 0.587, 0.114] if image.shape[-1] == 3 else image.mean(axis=-1)
    other = {"brightness": 0, "contrast": gray.mean(), "saturation": gray[..., None]}[kind]
    return np.clip(amount * image + (1 - amount) * other, 0, 1)


def adjusted(images, kind, amounts):
    kinds = jnp.full(len(images), color.ADJUSTMENTS.index(kind))
    return np.asarray(adjust(images, kinds, jnp.asarray(amounts), hue=kind == "hue"))


def test_luminance():
    images = pixels()
    expected = images.astype(np.float64) @ [[0.2989], [0.587], [0.114]]
    np.testing.assert_allclose(luminance(jnp.asarray(images)), expected, atol=2e-7)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_luminance_without_rgb_is_the_mean(channels):
    images = np.random.default_rng(0).random((2, 3, 4, channels)).astype(np.float32)
    expected = images.astype(np.float64).mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(luminance(jnp.asarray(images)), expected, atol=1e-7)


def test_hues_are_those_of_colorsys():
    images = pixels()
    shifts = np.linspace(-0.5, 0.5, len(images), dtype=np.float32)
    found = shift_hue(jnp.asarray(images), jnp.asarray(shifts)[:, None, None, None])
    expected = [by_colorsys(image, float(shift)) for image, shift in zip(images, shifts)]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_hue_by_thirds_of_a_turn_rotates_the_channels():
    images = pixels()
    found = shift_hue(jnp.asarray(images), jnp.float32(1 / 3))
    np.testing.assert_allclose(found, np.roll(images, 1, axis=-1), atol=1e-6)


@pytest.mark.parametrize("kind", color.ADJUSTMENTS)
def test_adjustments(kind):
    """Every example by an amount of its own, from none over large ones that clip."""
    images = pixels()
    amounts = np.linspace(0, 0.5 if kind == "hue" else 2.2, len(images), dtype=np.float32)
    expected = [by_definition(x, kind, float(amount)) for x, amount in zip(images, amounts)]
    np.testing.assert_allclose(adjusted(images, kind, amounts), expected, atol=2e-6)
    if kind != "hue":
        assert np.mean(np.array(expected) == 1) > 0.02, "nothing is clipped: too small a test"


def test_each_example_can_be_adjusted_in_another_way():
    images = pixels(batch=4)
    amounts = np.array([0.7, 1.4, 0.2, -0.1], np.float32)
    found = adjust(images, jnp.arange(4), jnp.asarray(amounts), hue=True)
    for image, kind, amount, result in zip(images, color.ADJUSTMENTS, amounts, found):
        expected = by_definition(image, kind, float(amount))
        np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("amount", [0.0, 0.6, 1.5])
def test_adjustments_agree_with_pillow_to_its_rounding(kind, amount):
    """Pillow rounds the luminance and the result to bytes: one step each, 1.5 times the first."""
    image = (pixels()[2] * 255).astype(np.uint8)
    name = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}[kind]
    expected = np.asarray(getattr(ImageEnhance, name)(Image.fromarray(image)).enhance(amount))
    found = adjusted(image[None].astype(np.float32) / 255, kind, [amount])[0] * 255
    np.testing.assert_allclose(found, expected, atol=1.6)


def test_gray_images_have_brightness_and_contrast():
    images = np.random.default_rng(0).random((2, 4, 4, 1)).astype(np.float32)
    for kind in ("brightness", "contrast"):
        expected = [by_definition(image, kind, 1.5) for image in images]
        np.testing.assert_allclose(adjusted(images, kind, [1.5, 1.5]), expected, atol=1e-6)
