"""Transforms of one example, found by name: one a file.

A transform is in two halves. Its numbers are drawn in advance, for a whole batch, from the seeds of
the examples: `draws` says how many uniform numbers an example needs, `plan(u)` turns [B, draws] of
them into parameters [B, ...] float64. Then `apply(example, params)` changes one example with its
parameters: a dict of 'image' ([H, W, C] uint8, or still encoded) and what belongs to it. What moves
pixels moves the 'segmentation' [H, W] and the 'box' [..., 4] too (see `move`). So an example is a
function of its seed, wherever and in whatever order it is made.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mae_jax.data import images
from mae_jax.data.random import hash_words, uniform
from mae_jax.spec import call, maker, parse
from mae_jax.types import UserError

Example = Mapping[str, Any]
"""'image'; 'label', 'segmentation' [H, W] of any dtype, 'box' [..., 4] float32 (ymin, xmin, ymax,
xmax) as shares of the height and width, all zeros for none; whatever else passes through."""


class Transform(Protocol):
    """See above; made by the `make` of its module."""

    draws: int
    pixels: int
    """At least so many has every image that it makes; 0: that depends on what it is given."""

    def plan(self, u: np.ndarray) -> np.ndarray:
        """[B, draws] uniform numbers in [0, 1) to parameters [B, ...]."""

    def apply(self, example: Example, params: np.ndarray) -> Example:
        """The example with the parameters [...] of one row."""


def make_transforms(text: str) -> list[Transform]:
    """Builds the transforms of a spec string, e.g. 'random_resized_crop(224)|flip'.

    Raises:
        UserError: an unknown name or argument.
    """
    return [
        call(name, maker(name, "data.transforms"), *args, **kwargs)
        for name, args, kwargs in parse(text)
    ]


def draw(transforms: Sequence[Transform], seeds: np.ndarray) -> list[np.ndarray]:
    """The parameters of every transform, for the examples with these seeds [B]."""
    return [
        transform.plan(uniform(hash_words(seeds, place), transform.draws))
        for place, transform in enumerate(transforms)
    ]


def move(
    example: Example,
    box: images.Box,
    size: tuple[int, int],
    *,
    mirror: bool = False,
    kernel: str = "bicubic",
) -> Example:
    """Cuts a box out of an example and resizes it: the image with antialiasing, its segmentation by
    nearest neighbours; boxes follow, clipped to what is left.

    Args:
        box: (top, left, height, width) in pixels.
        size: (height, width) of the result.
        mirror: left and right change places.
        kernel: the image's, a name of `resizing.KERNELS`.
    """
    moved = dict(example)
    moved["image"] = images.cut(example["image"], box, size, kernel)
    if mirror:
        moved["image"] = images.mirror(moved["image"])
    if "segmentation" in example:
        check_segmentation(example)
        rows, columns = (
            (box[axis] + (np.arange(size[axis]) + 0.5) * box[axis + 2] / size[axis]).astype(int)
            for axis in (0, 1)
        )
        moved["segmentation"] = example["segmentation"][
            rows[:, None], columns[:: -1 if mirror else 1]
        ]
    if "box" in example:
        moved["box"] = _move_box(example["box"], box, shape_of(example), mirror)
    return moved


def check_segmentation(example: Example) -> None:
    """Raises BadImage unless an example's segmentation is as large as its image."""
    shape, found = shape_of(example), example["segmentation"].shape
    if found[:2] != shape:
        raise images.BadImage(f"its segmentation is {found}, the image {shape}")


def _move_box(boxes, window: images.Box, shape: tuple[int, int], mirror: bool) -> np.ndarray:
    """[..., 4] boxes as shares of an image to shares of a window in it; zeros if outside."""
    corners = np.asarray(boxes, np.float64).reshape(*np.shape(boxes)[:-1], 2, 2)
    corners = (corners * shape - np.asarray(window[:2])) / np.asarray(window[2:])
    if mirror:
        y, x = corners[..., 0], 1 - corners[..., ::-1, 1]
        corners = np.stack([y, x], axis=-1)
    corners = np.clip(corners, 0, 1)
    visible = (corners[..., 1, :] > corners[..., 0, :]).all(-1)
    return np.where(visible[..., None, None], corners, 0).reshape(np.shape(boxes)).astype("f4")


def shape_of(example: Example) -> tuple[int, int]:
    """(height, width) of an example's image."""
    return tuple(example["image"].shape[:2])


def size_of(size: int | Sequence[int]) -> tuple[int, int]:
    """An argument that means (height, width); one number means a square."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(type(side) is int and side > 0 for side in pair):
        raise UserError(f"size {size!r} should be a positive number or (height, width)")
    if pair[0] * pair[1] > images.MAX_PIXELS:
        raise UserError(f"size {size!r} is over {images.MAX_PIXELS} pixels: lower it")
    return pair


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
