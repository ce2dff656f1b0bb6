"""Between bytes and what a network sees. uint8 crosses to the device; floats live only there."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """[B, H, W, C] uint8 to float32 with this mean and standard deviation (of [0, 1]) removed."""
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def to_bytes(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """The inverse of `normalize`, rounded and clipped to uint8."""
    pixels = (images * jnp.asarray(std) + jnp.asarray(mean)) * 255
    return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)
