"""Transforms of single examples, one module each, looked up by name.

A transform has two steps. First, its random parameters are drawn for a whole batch from the seeds
of the examples: `draws` is the number of uniform numbers per example, and `plan(u)` maps them
[B, draws] to parameters [B, ...] float64. Then `apply(example, params)` transforms one example: a
dict of 'image' ([H, W, C] uint8, or still encoded) and other fields. Geometric transforms move the
other fields with the image, see `fields.move`. So an example is a function of its seed, in any
process and order.
"""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.data import images
from mae_jax.data.fields import space_of
from mae_jax.data.random import hash_words, uniform
from mae_jax.spec import build_all
from mae_jax.types import UserError

Example = Mapping[str, Any]
"""Fields by name, see `fields.FIELDS`; 'image' if there is one."""


class Transform(abc.ABC):
    """Base class of transforms, see above; created by `make` of its module."""

    draws: int = 0
    """Uniform numbers per example."""
    pixels: int = 0
    """Lower bound on the pixels of its output; 0 if that depends on its input."""

    def plan(self, u: np.ndarray) -> np.ndarray:
        """Maps uniform numbers [B, draws] in [0, 1) to parameters [B, ...]."""
        return u

    @abc.abstractmethod
    def apply(self, example: Example, params: np.ndarray) -> Example:
        """Transforms an example with its parameters, a row [...] of `plan`."""


def make_transforms(text: str) -> list[Transform]:
    """Builds the transforms of a spec string, e.g. 'random_resized_crop(224)|flip'.

    Raises:
        UserError: a name or an argument is unknown.
    """
    return build_all(text, "data.transforms", Transform)


def draw(transforms: Sequence[Transform], seeds: np.ndarray) -> list[np.ndarray]:
    """Parameters [B, ...] of each transform, for examples with the seeds [B]."""
    return [
        transform.plan(uniform(hash_words(seeds, position), transform.draws))
        for position, transform in enumerate(transforms)
    ]


def transformed(image: Any, transforms: Sequence[Transform]) -> np.ndarray:
    """One image after transforms for evaluation, [*space, C]. Random ones draw by the seed 0.

    Args:
        image: [*space, C], or `images.Encoded`.

    Raises:
        BadImage: it cannot be decoded.
    """
    example = {"image": image}
    for transform, params in zip(transforms, draw(transforms, np.zeros(1, np.uint64)), strict=True):
        example = transform.apply(example, params[0])
    return images.pixels_of(example["image"])


def shape_of(example: Example, where: str, rank: int | None = None) -> tuple[int, ...]:
    """Shape of an example's image without the channels.

    Args:
        example: the example.
        where: name of the transform, for messages.
        rank: required number of axes; None: any.

    Raises:
        UserError: the example has no image, or one of another rank.
    """
    if "image" not in example:
        raise UserError(
            f"{where}: examples without an image; leave it out of config.data.train_transform and "
            "eval_transform"
        )
    shape = space_of(example["image"])
    if rank not in (None, len(shape)):
        raise UserError(
            f"{where}: images of shape {example['image'].shape} have {len(shape)} axes besides the "
            f"channels: give {len(shape)} sizes, or leave it out"
        )
    return shape


def plane_of(example: Example, where: str) -> tuple[int, int]:
    """(height, width) of an example's image, for 2-D transforms.

    Args:
        example: the example.
        where: name of the transform, for messages.

    Raises:
        UserError: the example has no image, or one that is not [H, W, C] uint8.
    """
    shape, image = shape_of(example, where), example["image"]
    if len(shape) != 2 or not (isinstance(image, images.Encoded) or image.dtype == np.uint8):
        raise UserError(
            f"{where}: images of shape {image.shape} and type {image.dtype}, it needs [H, W, C] "
            "uint8: leave it out, or use random_crop, center_crop and flip"
        )
    return shape


def pixels_of(example: Example, where: str) -> np.ndarray:
    """Decoded image [H, W, C] uint8 of an example; see `plane_of`."""
    plane_of(example, where)
    return images.pixels_of(example["image"])


def color_of(example: Example, where: str) -> np.ndarray:
    """Decoded image [H, W, C] uint8 of an example, with C = 1 or 3; see `plane_of`."""
    pixels = pixels_of(example, where)
    if pixels.shape[2] not in (1, 3):
        raise UserError(
            f"{where}: images of {pixels.shape[2]} channels, it needs 1 (gray) or 3 (RGB): leave "
            "it out"
        )
    return pixels


def margins_of(example: Example, where: str, size: tuple[int, ...]) -> tuple[int, ...]:
    """Pixels by which an example's image exceeds `size` along each axis; see `shape_of`."""
    shape = shape_of(example, where, len(size))
    margins = tuple(side - crop for side, crop in zip(shape, size, strict=True))
    if min(margins) < 0:
        raise UserError(
            f"{where}{size} of an image of {' x '.join(map(str, shape))}: "
            + f"put {'resize(...) or ' if len(size) == 2 else ''}pad(...) before it"
        )
    return margins


def size_of(size: int | Sequence[int], *, rank: int | None = 2) -> tuple[int, ...]:
    """Checks and normalizes a `size` argument; one number means a square.

    Args:
        size: the argument, in pixels.
        rank: number of axes; None: any.

    Raises:
        UserError: the size is invalid, or too large.
    """
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    valid = rank in (None, len(sides)) and len(sides) > 0
    if not valid or not all(type(side) is int and side > 0 for side in sides):
        more = "" if rank else ", or one for each axis"
        raise UserError(f"size {size!r} should be a positive number or (height, width){more}")
    if math.prod(sides) > images.MAX_PIXELS:
        raise UserError(f"size {size!r} is over {images.MAX_PIXELS} pixels: lower it")
    return sides


def check_range(where: str, name: str, pair: Any) -> tuple[float, float]:
    """Checks a range (low, high), 0 < low <= high; raises UserError if it is invalid."""
    valid = isinstance(pair, Sequence) and len(pair) == 2
    valid = valid and all(isinstance(v, (int, float)) for v in pair) and 0 < pair[0] <= pair[1]
    if not valid:
        raise UserError(
            f"{where}: {name} {pair} is not an ascending range of positive numbers, such as "
            "(0.2, 1)"
        )
    return tuple(pair)
