"""Random crop of images of any rank, without resizing."""

import math

from mae_jax.data.fields import move
from mae_jax.data.geometry import Window
from mae_jax.data.transforms import Transform, margins_of, size_of


class RandomCrop(Transform):
    """Crops at a uniformly random position; see `make`."""

    def __init__(self, size):
        self.size, self.pixels, self.draws = size, math.prod(size), len(size)

    def apply(self, example, params):
        """Crops an image of at least `size` to [*size, C]."""
        margins = margins_of(example, "random_crop", self.size)
        start = (int(u * (margin + 1)) for u, margin in zip(params, margins, strict=True))
        return move(example, Window(box=(*start, *self.size), size=self.size))


def make(size) -> RandomCrop:
    """A random crop, e.g. random_crop((16, 96, 96)) of volumes [D, H, W, C].

    Args:
        size: size in pixels, at most that of the image: one number or (height, width); for images
            of another rank, a number per axis besides the channels.
    """
    return RandomCrop(size_of(size, rank=None))
