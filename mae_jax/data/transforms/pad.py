"""More rows and columns, below and to the right, up to a size."""

import math
from collections.abc import Sequence

from mae_jax.data.fields import move
from mae_jax.data.geometry import Padded
from mae_jax.data.transforms import Transform, plane_of, size_of
from mae_jax.types import UserError

FILL = (124, 116, 104)
"""The mean color of ImageNet: (red, green, blue)."""


class Pad(Transform):
    """Pads an example; see `make`."""

    def __init__(self, size, fill):
        self.size, self.fill, self.pixels = size, fill, math.prod(size)

    def apply(self, example, params):
        """Image of any size to one of at least `size`."""
        shape = plane_of(example, "pad")
        size = tuple(map(max, shape, self.size))
        return example if size == shape else move(example, Padded(size=size, fill=self.fill))


def make(size, *, fill=FILL) -> Pad:
    """Padding of images that are smaller than `size`; larger ones stay.

    A segmentation is `fields.IGNORE` where it is padded.

    Args:
        size: in pixels, one number or (height, width).
        fill: (red, green, blue) of what is added, integers in [0, 255]; the mean of ImageNet by
            default. Images that have not three channels have the luminance in each.

    Raises:
        UserError: an argument outside its range.
    """
    valid = isinstance(fill, Sequence) and len(fill) == 3
    if not valid or not all(type(level) is int and 0 <= level <= 255 for level in fill):
        raise UserError(f"pad: fill={fill!r} should be three integers in [0, 255]")
    return Pad(size_of(size), tuple(fill))
