"""Multi-scale crop as in temporal segment networks (arXiv 1608.00859), which VideoMAE uses
(arXiv 2203.12602): of a few sizes, at a few places, of images, and of clips with the same box of
all frames.
"""

import itertools

import numpy as np

from mae_jax.data.frame_geometry import frame_of, move_frames
from mae_jax.data.geometry import Window
from mae_jax.data.resizing import KERNELS
from mae_jax.data.transforms import Transform, size_of
from mae_jax.spec import check_choice
from mae_jax.types import UserError

PLACES = [(y, x) for y, x in itertools.product(range(5), repeat=2) if y % 2 == x % 2]
"""(y, x) in quarters of the room that a crop leaves: corners, centers of the sides, the center, and
four places between them.
"""
_NEAR = 3  # a side that differs by less from the result's is not resized


class MultiScaleCrop(Transform):
    """Crops one of several boxes and resizes it, antialiased; see `make`."""

    draws = 2

    def __init__(self, size, scales, kernel):
        self.size, self.scales, self.kernel = size, scales, kernel
        self.pixels = size[0] * size[1]
        count = range(len(scales))
        self.pairs = [(h, w) for h, w in itertools.product(count, count) if abs(h - w) <= 1]

    def box(self, height: int, width: int, params: np.ndarray) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop."""
        short = min(height, width)
        pair = self.pairs[int(params[0] * len(self.pairs))]
        sides = [int(short * self.scales[number]) for number in pair]
        rows, columns = (
            wanted if abs(side - wanted) < _NEAR and wanted <= short else max(side, 1)
            for side, wanted in zip(sides, self.size, strict=True)
        )
        y, x = PLACES[int(params[1] * len(PLACES))]
        return y * ((height - rows) // 4), x * ((width - columns) // 4), rows, columns

    def apply(self, example, params):
        """Crops an image of any size and resizes it to [*size, C], or a clip to [T, *size, C]."""
        box = self.box(*frame_of(example, "multi_scale_crop"), params)
        return move_frames(example, Window(box=box, size=self.size, kernel=self.kernel))


def make(size, *, scales=(1.0, 0.875, 0.75, 0.66), kernel: str = "bilinear") -> MultiScaleCrop:
    """A multi-scale crop of images [H, W, C], or of clips [T, H, W, C]: all frames alike.

    Height and width are two of the scales, the same or neighbors, and one of 13 places is chosen.
    All are equally likely.

    Args:
        size: size of the result in pixels, one number or (height, width).
        scales: sides of the crop as shares of the shorter side of the image, descending.
        kernel: of the image, as for resize; labels take the nearest pixel.

    Raises:
        UserError: an argument is invalid.
    """
    check_choice("multi_scale_crop: kernel", kernel, KERNELS)
    valid = isinstance(scales, tuple | list) and len(scales) > 0
    valid = valid and all(isinstance(v, int | float) and 0 < v <= 1 for v in scales)
    if not valid or list(scales) != sorted(scales, reverse=True):
        raise UserError(
            f"multi_scale_crop: scales {scales} are not descending shares in (0, 1], such as "
            "(1, 0.875, 0.75, 0.66)"
        )
    return MultiScaleCrop(size_of(size), tuple(scales), kernel)
