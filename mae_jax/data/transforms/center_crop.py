"""Center crop of images of any rank."""

import math

from mae_jax.data.fields import move
from mae_jax.data.geometry import Window
from mae_jax.data.transforms import Transform, margins_of, size_of
from mae_jax.spec import check_choice

HALF = {"down": lambda margin: margin // 2, "even": lambda margin: round(margin / 2)}


class CenterCrop(Transform):
    """Crops the center; see `make`."""

    def __init__(self, size, rounding):
        self.size, self.half, self.pixels = size, HALF[rounding], math.prod(size)

    def apply(self, example, params):
        """Crops an image of at least `size` to [*size, C]."""
        start = map(self.half, margins_of(example, "center_crop", self.size))
        return move(example, Window(box=(*start, *self.size), size=self.size))


def make(size, *, rounding: str = "down") -> CenterCrop:
    """A center crop.

    Args:
        size: size in pixels, at most that of the image: one number or (height, width); for images
            of another rank, a number per axis besides the channels.
        rounding: rounding of half an odd margin: 'down' as in transformers, or to the 'even' number
            as in torchvision and timm.

    Raises:
        UserError: the size or the rounding is invalid.
    """
    check_choice("center_crop: rounding", rounding, HALF)
    return CenterCrop(size_of(size, rank=None), rounding)
