"""Transforms of one example, found by name: one a file.

A transform is in two halves. Its numbers are drawn in advance, for a whole batch, from the seeds of
the examples: `draws` says how many uniform numbers an example needs, `plan(u)` turns [B, draws] of
them into parameters [B, ...] float64. Then `apply(example, params)` changes one example with its
parameters: a dict of 'image' ([H, W, C] uint8, or still encoded) and what belongs to it. What moves
pixels moves the other fields too, see `fields.move`. So an example is a function of its seed,
wherever and in whatever order it is made.
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
    """See above; made by the `make` of its module."""

    draws: int = 0
    """Uniform numbers that an example needs."""
    pixels: int = 0
    """At least so many has every image that it makes; 0: that depends on what it is given."""

    def plan(self, u: np.ndarray) -> np.ndarray:
        """[B, draws] uniform numbers in [0, 1) to parameters [B, ...]."""
        return u

    @abc.abstractmethod
    def apply(self, example: Example, params: np.ndarray) -> Example:
        """The example with the parameters [...] of one row."""


def make_transforms(text: str) -> list[Transform]:
    """Builds the transforms of a spec string, e.g. 'random_resized_crop(224)|flip'.

    Raises:
        UserError: an unknown name or argument.
    """
    return build_all(text, "data.transforms", Transform)


def draw(transforms: Sequence[Transform], seeds: np.ndarray) -> list[np.ndarray]:
    """The parameters of every transform, for the examples with these seeds [B]."""
    return [
        transform.plan(uniform(hash_words(seeds, place), transform.draws))
        for place, transform in enumerate(transforms)
    ]


def shape_of(example: Example, where: str, rank: int | None = None) -> tuple[int, ...]:
    """The sizes of the axes of an example's image but the channels.

    Args:
        where: the transform that asks, for messages.
        rank: how many axes it needs; None: any number.

    Raises:
        UserError: there is no image, or one of another rank.
    """
    if "image" not in example:
        raise UserError(
            f"{where}: examples without an image; leave it out of config.data.train_transform and "
            "eval_transform"
        )
    shape = space_of(example["image"])
    if rank not in (None, len(shape)):
        raise UserError(
            f"{where}: images of shape {example['image'].shape} have {len(shape)} axes beside the "
            f"channels: give {len(shape)} sizes, or leave it out"
        )
    return shape


def plane_of(example: Example, where: str) -> tuple[int, int]:
    """(height, width) of an example's image, for transforms that compute in 2-D.

    Args:
        where: the transform that asks, for messages.

    Raises:
        UserError: there is no image, or one that is not [H, W, C] uint8.
    """
    shape, image = shape_of(example, where), example["image"]
    if len(shape) != 2 or (isinstance(image, np.ndarray) and image.dtype != np.uint8):
        raise UserError(
            f"{where}: images of shape {image.shape} and type {image.dtype}, it can change "
            "[H, W, C] of uint8: leave it out, or cut them with random_crop, center_crop and flip"
        )
    return shape


def pixels_of(example: Example, where: str) -> np.ndarray:
    """[H, W, C] uint8 of an example; see `plane_of`."""
    plane_of(example, where)
    return images.pixels_of(example["image"])


def color_of(example: Example, where: str) -> np.ndarray:
    """[H, W, C] uint8 of an example, for transforms of 1 or 3 channels; see `plane_of`."""
    pixels = pixels_of(example, where)
    if pixels.shape[2] not in (1, 3):
        raise UserError(
            f"{where}: images of {pixels.shape[2]} channels, it can change those of 1 (grey) or 3 "
            "(RGB)"
        )
    return pixels


def margins_of(example: Example, where: str, size: tuple[int, ...]) -> tuple[int, ...]:
    """How much longer the axes of an example's image are than `size`; see `shape_of`."""
    shape = shape_of(example, where, len(size))
    margins = tuple(side - kept for side, kept in zip(shape, size, strict=True))
    if min(margins) < 0:
        raise UserError(
            f"{where}{size} of an image of {' x '.join(map(str, shape))}: "
            + ("put resize(...) or pad(...) before it" if len(size) == 2 else "give smaller sizes")
        )
    return margins


def size_of(size: int | Sequence[int], *, rank: int | None = 2) -> tuple[int, ...]:
    """An argument that means the size of a result; one number means a square.

    Args:
        rank: how many axes it has; None: any number.
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
    """An argument that means (low, high), both positive."""
    valid = isinstance(pair, Sequence) and len(pair) == 2
    valid = valid and all(isinstance(v, (int, float)) for v in pair) and 0 < pair[0] <= pair[1]
    if not valid:
        raise UserError(
            f"{where}: {name} {pair} is not an ascending range of positive numbers, such as "
            "(0.2, 1)"
        )
    return tuple(pair)
