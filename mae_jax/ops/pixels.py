"""Normalization of pixels. Images are transferred to devices as uint8, and converted to float32 and
normalized there.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.types import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], *, pixels: int = 1
) -> jax.Array:
    """Normalizes uint8 images to float32: (x / 255 - mean) / std.

    Patches can be gathered as bytes and normalized afterwards, which moves a quarter of the memory.

    Args:
        images: [B, *space, C], or patches [B, L, pixels * C].
        mean, std: of the pixels in [0, 1], one number or one per channel.
        pixels: number of pixels in the last axis, prod(patch) for patches.

    Raises:
        UserError: a number of values other than 1 or C, or values that are not statistics of pixels
            in [0, 1], see `check_statistics`.
    """
    check_statistics(mean, std)
    channels = images.shape[-1] // pixels
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UserError(
                f"config.method.args.{name} has {len(values)} values for {channels} channels: give "
                "one for each, or one for all"
            )
    # Channels are innermost in a patch: repeat the statistics for each of its pixels.
    mean, std = (values if len(values) == 1 else (*values,) * pixels for values in (mean, std))
    return standardize(images.astype(jnp.float32) / 255, mean, std)


def check_statistics(mean: Any, std: Any, where: str = "") -> None:
    """Checks that mean and std are statistics of pixels in [0, 1], not in [0, 255].

    Args:
        mean: sequence of numbers in [0, 1].
        std: sequence of numbers in (0, 1].
        where: prefix of the message, e.g. 'config.method.args.'.

    Raises:
        UserError: another type, or a number out of its range.
    """
    for name, values in (("mean", mean), ("std", std)):
        valid = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        if not valid or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
            raise UserError(
                f"{where}{name}={values!r} should be finite numbers in [0, 1], one for all "
                "channels or one for each, such as (0.5,)"
            )
        low, high = min(values), max(values)
        if low < 0 or high > 1:
            way = "write it for pixels in [0, 1]"
            if 0 <= low and high <= 255:
                shares = ", ".join(f"{value / 255:.4g}" for value in values)
                way = (
                    f"pixels are in [0, 1] here: divide by 255, ({shares}{',' * (len(values) < 2)})"
                )
            raise UserError(f"{where}{name}={tuple(values)} is outside [0, 1]: {way}")
        if name == "std" and low == 0:
            raise UserError(f"{where}std={tuple(values)} must be positive, in (0, 1]")


def standardize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Normalizes float32 images [B, *space, C] in [0, 1]: (x - mean) / std."""
    return (images - jnp.asarray(mean)) / jnp.asarray(std)


def to_bytes(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """The inverse of `normalize`: float images [B, *space, C] to uint8, rounded and clipped."""
    pixels = (images * jnp.asarray(std) + jnp.asarray(mean)) * 255
    return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)
