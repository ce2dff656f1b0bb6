"""Converts images to sequences of patches and back, in the layout of MAE (arXiv 2111.06377), in any
number of dimensions: signals [B, T, C], images [B, H, W, C], volumes and videos [B, D, H, W, C].

Tokens are in row-major order over the image, and values within a token in (row, column, channel)
order.
"""

import itertools
import math
from collections.abc import Sequence

import jax

from mae_jax.types import UserError

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""Names of the spatial axes, by their number, for error messages."""


def patch_sides(patch: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Side of a patch along each spatial axis.

    Args:
        patch: one side for all axes, or one for each.
        rank: number of spatial axes.

    Raises:
        UserError: a number of sides other than 1 or `rank`.
    """
    if isinstance(patch, int):
        return (patch,) * rank
    if len(patch) != rank:
        raise UserError(
            f"patch={tuple(patch)} has {len(patch)} sides for images of {rank} dimensions: give "
            "one for each, or one number for all"
        )
    return tuple(patch)


def one_or_all(patch: int | Sequence[int]) -> tuple[int, ...]:
    """Normalizes a patch option to a tuple: (side,) for all axes, or one side for each axis."""
    return (patch,) if isinstance(patch, int) else tuple(patch)


def grid_of(shape: Sequence[int], patch: int | Sequence[int]) -> tuple[int, ...]:
    """Number of patches along each axis of an image.

    Args:
        shape: sides of the image without its channels, e.g. (height, width).
        patch: side of the patches, or one side for each axis.

    Raises:
        UserError: an image side that is not a multiple of the patch's.
    """
    sides = patch_sides(patch, len(shape))
    # Named axes for a readable message.
    names = AXES.get(len(shape)) or [f"axis {i}" for i in range(len(shape))]
    for name, length, side in zip(names, shape, sides, strict=True):
        if side < 1 or length < side or length % side:
            raise UserError(
                f"image {name} {length} is not a multiple of the patch size {side}: choose a patch "
                f"that divides {' x '.join(map(str, shape))}, or resize the images"
            )
    return tuple(length // side for length, side in zip(shape, sides, strict=True))


def patchify(images: jax.Array, patch: int | Sequence[int]) -> jax.Array:
    """Splits images [B, *space, C] into patches [B, L, prod(patch) * C]."""
    batch, *space, channels = images.shape
    rank, grid, sides = len(space), grid_of(space, patch), patch_sides(patch, len(space))
    # [B, H, W, C] to [B, rows, p, columns, p, C] to [B, rows, columns, p, p, C] to [B, L, p p C]
    x = images.reshape(batch, *itertools.chain(*zip(grid, sides, strict=True)), channels)
    x = x.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
    return x.reshape(batch, math.prod(grid), math.prod(sides) * channels)


def unpatchify(tokens: jax.Array, patch: int | Sequence[int], grid: tuple[int, ...]) -> jax.Array:
    """The inverse of `patchify`: patches [B, L, prod(patch) * C] to images [B, *space, C]."""
    batch, _, values = tokens.shape
    rank, sides = len(grid), patch_sides(patch, len(grid))
    # [B, L, p p C] to [B, rows, columns, p, p, C] to [B, rows, p, columns, p, C] to [B, H, W, C]
    x = tokens.reshape(batch, *grid, *sides, values // math.prod(sides))
    pairs = itertools.chain(*((1 + i, 1 + rank + i) for i in range(rank)))
    x = x.transpose(0, *pairs, 2 * rank + 1)
    return x.reshape(batch, *(n * side for n, side in zip(grid, sides, strict=True)), x.shape[-1])
