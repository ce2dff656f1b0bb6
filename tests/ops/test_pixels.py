"""uint8 to normalized floats and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops import pixels
from mae_jax.ops.patches import patchify
from mae_jax.types import UserError

STATISTICS = [
    (pixels.IMAGENET_MEAN, pixels.IMAGENET_STD),
    ((0.2,), (0.7,)),
    ((0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)),
]


def every_byte(channels):
    """[1, 16, 16, channels] images that hold each of 0 ... 255 in every channel."""
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    return np.stack([np.roll(values, 7 * c) for c in range(channels)], axis=-1)


@pytest.mark.parametrize(("mean", "std"), STATISTICS)
def test_normalize_and_back(mean, std):
    images = every_byte(len(mean))
    normalized = pixels.normalize(jnp.asarray(images), mean, std)
    assert normalized.dtype == jnp.float32
    expected = (images.astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalized, expected, rtol=0, atol=1e-6 / min(std))
    back = pixels.to_bytes(normalized, mean, std)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, images)


@pytest.mark.parametrize(("mean", "std"), STATISTICS)
def test_patches_of_bytes_are_normalized_as_whole_images(mean, std):
    images = jnp.asarray(every_byte(3 if len(mean) == 1 else len(mean)))
    expected = patchify(pixels.normalize(images, mean, std), 4)
    found = pixels.normalize(patchify(images, 4), mean, std, pixels=16)
    np.testing.assert_array_equal(found, expected)


def test_patches_too_have_a_number_for_each_channel():
    patches = jnp.zeros((1, 4, 48), jnp.uint8)
    with pytest.raises(UserError, match="mean has 2 values for 3 channels"):
        pixels.normalize(patches, (0.5, 0.5), (0.25,), pixels=16)


def test_statistics_of_imagenet():
    assert pixels.IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert pixels.IMAGENET_STD == (0.229, 0.224, 0.225)


def test_to_bytes_rounds_and_clips():
    values = np.array([-10.0, -0.6, 0.4, 0.6, 99.4, 99.6, 254.6, 255.4, 300.0, 1e6])
    images = jnp.asarray(values / 255, jnp.float32).reshape(1, 1, -1, 1)
    found = pixels.to_bytes(images, (0.0,), (1.0,)).ravel()
    np.testing.assert_array_equal(found, [0, 0, 0, 1, 99, 100, 255, 255, 255, 255])
