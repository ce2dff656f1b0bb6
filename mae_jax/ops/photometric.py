"""Photometric distortion on the device, as in the training of segmentation: brightness, contrast,
saturation and hue, each of half of the images, with the ranges of SSD (arXiv 1512.02325) that
MMSegmentation uses. In real numbers: 8-bit code rounds after each step, and shifts hue in steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.ops.color import shift_hue
from mae_jax.types import UserError

BRIGHTNESS = 32 / 255
"""The most that is added to all channels or subtracted from them."""
FACTOR = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
HUE = 18 / 180
"""The largest shift of the hue, in turns."""
PROBABILITY = 0.5
"""Of each of the four, and of contrast before rather than after saturation and hue."""


class Draws(NamedTuple):
    """What is done to each image, [B] float32."""

    brightness: jax.Array
    """Added; 0 is none."""
    contrast: jax.Array
    """Factor of all channels; 1 is none."""
    saturation: jax.Array
    """Factor of the saturation in HSV; 1 is none."""
    hue: jax.Array
    """Added to the hue in HSV, in turns; 0 is none."""
    contrast_first: jax.Array
    """Bool: contrast before saturation and hue, otherwise after them."""


def photometric_distortion(key: jax.Array, images: jax.Array) -> jax.Array:
    """Distorts the colors of each image by draws of its own.

    Args:
        images: [B, H, W, 3] float32 in [0, 1].

    Returns:
        [B, H, W, 3] float32 in [0, 1].

    Raises:
        UserError: not float32, or not three channels.
    """
    if images.dtype != jnp.float32 or images.shape[-1] != 3:
        raise UserError(
            f"photometric distortion needs float32 images of 3 channels (RGB), these are "
            f"{images.dtype} of {images.shape[-1]}"
        )
    return distort(images, draw(key, len(images)))


def draw(key: jax.Array, batch: int) -> Draws:
    """Draws for a batch: uniform in their ranges, or none."""
    coin_key, amount_key = jax.random.split(key)
    coins = jax.random.bernoulli(coin_key, PROBABILITY, (5, batch))
    low, high = jnp.array([(-BRIGHTNESS, BRIGHTNESS), FACTOR, FACTOR, (-HUE, HUE)]).T[..., None]
    amounts = jax.random.uniform(amount_key, (4, batch), minval=low, maxval=high)
    none = jnp.array([0.0, 1.0, 1.0, 0.0])[:, None]
    return Draws(*jnp.where(coins[:4], amounts, none), coins[4])


def distort(images: jax.Array, draws: Draws) -> jax.Array:
    """Images [B, H, W, 3] in [0, 1], distorted; values are clipped to [0, 1] after each step."""
    brightness, contrast, saturation, hue, first = (x[:, None, None, None] for x in draws)
    images = jnp.clip(images + brightness, 0, 1)
    images = jnp.clip(images * jnp.where(first, contrast, 1), 0, 1)
    images = shift_hue(_saturate(images, saturation), hue)
    return jnp.clip(images * jnp.where(first, 1, contrast), 0, 1)


def _saturate(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiplies the saturation in HSV, at most to 1; hue and value stay.

    With V the largest channel and C = V - (the smallest), the saturation is C / V. Channel c
    becomes V - (V - c) min(factor, V / C).
    """
    value = images.max(axis=-1, keepdims=True)
    chroma = value - images.min(axis=-1, keepdims=True)
    most = value / jnp.where(chroma == 0, 1, chroma)
    return value - (value - images) * jnp.where(chroma == 0, 1, jnp.minimum(factor, most))
