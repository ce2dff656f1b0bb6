"""More pixels after the last ones of each axis, up to a size: rows below, columns to the right."""

import math
from collections.abc import Sequence

from mae_jax.data.fields import move
from mae_jax.data.geometry import Padded
from mae_jax.data.transforms import Transform, plane_of, shape_of, size_of
from mae_jax.types import UserError

FILL = (124, 116, 104)
"""The mean color of ImageNet: (red, green, blue)."""


class Pad(Transform):
    """Pads an example; see `make`."""

    def __init__(self, size, fill):
        self.size, self.fill, self.pixels = size, fill, math.prod(size)

    def apply(self, example, params):
        """Image of any size to one of at least `size`."""
        rank = len(self.size)
        shape = shape_of(example, "pad", rank)
        if rank == 2:
            plane_of(example, "pad")
        size = tuple(map(max, shape, self.size))
        return example if size == shape else move(example, Padded(size=size, fill=self.fill))


def make(size, *, fill=FILL) -> Pad:
    """Padding of images that are smaller than `size`; larger ones stay.

    For volumes, e.g. pad((16, 96, 96), fill=0)|random_crop((16, 96, 96)). A segmentation is
    `fields.IGNORE` where it is padded.

    Args:
        size: in pixels, one number or (height, width); for images of another rank, a number per
            axis besides the channels.
        fill: (red, green, blue) of what is added, integers in [0, 255], or one gray level; the mean
            of ImageNet by default. Images that have not three channels have the luminance in each.

    Raises:
        UserError: an argument outside its range.
    """
    color = (fill,) * 3 if isinstance(fill, int) else fill
    valid = isinstance(color, Sequence) and len(color) == 3
    if not valid or not all(type(level) is int and 0 <= level <= 255 for level in color):
        raise UserError(
            f"pad: fill={fill!r} should be three integers in [0, 255], or one for a gray level"
        )
    return Pad(size_of(size, rank=None), tuple(color))
