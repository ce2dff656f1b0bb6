"""Between bytes and what a network sees. uint8 crosses to the device; floats live only there."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.types import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """[B, H, W, C] uint8 to float32 with this mean and standard deviation (of [0, 1]) removed.

    Raises:
        UserError: as many numbers as neither 1 nor the channels, or a deviation of 0.
    """
    channels = images.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UserError(f"{name} has {len(values)} values for {channels} channels")
    if min(std) <= 0:
        raise UserError(f"std {std} must be positive")
    return standardize(images.astype(jnp.float32) / 255, mean, std)


def standardize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """The same of images [B, H, W, C] float32 in [0, 1]."""
    return (images - jnp.asarray(mean)) / jnp.asarray(std)


def to_bytes(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """The inverse of `normalize`, rounded and clipped to uint8."""
    pixels = (images * jnp.asarray(std) + jnp.asarray(mean)) * 255
    return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)
